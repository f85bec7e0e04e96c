"""A simulated cluster in the hands of a test."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from labrys.control.nemesis.package import FaultPackage, Outcome, Planned
from labrys.control.sim.machine import Machine
from labrys.control.sim.stage import SimStage
from labrys.control.spec import resolve


class Rig:
    """Three simulated nodes, unless `fields` of a spec say otherwise."""

    def __init__(self, seed: int = 1, **fields: Any) -> None:
        self.stage = SimStage(resolve({"env": "sim", "nodes": 3, "seed": seed, **fields}), print)
        self.system, self.world = self.stage.system, self.stage.world

    def begin(self) -> None:
        self.system.start_all()
        assert self.system.await_healthy(30.0, give_up=lambda: False)

    def put(self, node: str, key: str, value: Any) -> None:
        with self.system.session() as session:
            url = f"{self.system.url(node)}/v1/kv/{key}"
            session.put(url, json={"value": value}, timeout=2.0).raise_for_status()

    def get(self, node: str, key: str) -> Any:
        with self.system.session() as session:
            answer = session.get(f"{self.system.url(node)}/v1/kv/{key}", timeout=2.0)
        return answer.json()["value"]

    def fault(self, *targets: str, **plan: Any) -> Outcome:
        """Apply a fault of the first kind in the spec."""
        return self.package.apply(Planned(targets=targets, plan=plan))

    @property
    def package(self) -> FaultPackage:
        return self.stage.packages[0]

    def machine(self, node: str) -> Machine:
        return self.stage._sim.machines[node]

    def leader(self) -> str:
        (leader,) = self.system.leaders()
        return leader

    def followers(self) -> tuple[str, ...]:
        return tuple(node for node in self.stage.env.nodes if node != self.leader())

    def log(self, node: str) -> str:
        return "\n".join(text for _, text in self.machine(node).log)


@contextmanager
def running(**fields: Any) -> Iterator[Rig]:
    """A cluster that is healthy, with its faults set up."""
    rig = Rig(**fields)
    with rig.stage.entered():
        for package in rig.stage.packages:
            package.set_up()
        rig.begin()
        try:
            yield rig
        finally:
            for package in rig.stage.packages:
                package.tear_down()
            rig.stage.env.destroy()
