"""Swarm: what a seed draws is a test that can be run, and differs from seed to seed."""

from labrys.control.sim.faults import SIM_PACKAGES
from labrys.control.spec import resolve
from labrys.control.swarm import NODES, SYSTEM_OPTIONS, WORKLOAD_OPTIONS, vary

PLAIN = resolve({"env": "sim", "seed": 1})


def test_a_seed_draws_the_same_test_again() -> None:
    assert vary(PLAIN, 5, ()) == vary(PLAIN, 5, ())
    assert vary(PLAIN, 5, ()).seed == 5
    assert vary(PLAIN, 5, ()) != vary(PLAIN, 6, ())


def test_every_choice_comes_up_and_can_be_run() -> None:
    drawn = [vary(PLAIN, seed, ()) for seed in range(300)]
    assert {spec.nodes for spec in drawn} == {*NODES}
    assert {kind for spec in drawn for kind in spec.fault_kinds} == {*SIM_PACKAGES}
    assert all(spec.fault_kinds for spec in drawn)
    assert any("snapshot-entries" in spec.system_options for spec in drawn)
    assert not all("snapshot-entries" in spec.system_options for spec in drawn)
    assert {name for spec in drawn for name in spec.system_options} == {*SYSTEM_OPTIONS}
    assert {name for spec in drawn for name in spec.workload_options} == {*WORKLOAD_OPTIONS}
    faults = [spec.faults for spec in drawn if isinstance(spec.faults, dict)]
    narrowed = [kinds["kill"] for kinds in faults if "kill" in kinds]
    assert {} in narrowed
    assert {"targets": ["leader"]} in narrowed
    assert all(10 <= spec.time_limit <= 40 for spec in drawn)
    assert min(spec.fault_interval for spec in drawn) < 0.6
    assert max(spec.fault_interval for spec in drawn) > 3


def test_what_was_asked_for_stays() -> None:
    fields = {"env": "sim", "seed": 1, "nodes": 5, "rate": 77, "faults": ["kill", "pause"]}
    for seed in range(50):
        spec = vary(resolve(fields), seed, frozenset(fields))
        assert (spec.nodes, spec.rate) == (5, 77)
        assert {*spec.fault_kinds} <= {"kill", "pause"}


def test_what_does_not_fit_what_was_asked_for_is_drawn_again() -> None:
    plan = [{"at_s": 20.0, "hold_s": 5.0, "kind": "kill", "options": {"targets": [["n5"]]}}]
    for fields in (
        {"workload_options": {"threads_per_key": 2}},
        {"faults": {"kill": {"targets": [["n4", "n5"]]}, "pause": {"hold_s": 4.0}}},
        {"faults": {"kill": {"weight": 3}, "pause": {}, "loss": {}, "delay": {}, "reset": {}}},
        {"fault_plan": plan},
        {"faults": {"pause": {"hold_s": 4.0}}, "fault_interval": 4.0},
    ):
        base = resolve({"env": "sim", "seed": 1, **fields})
        drawn = [vary(base, seed, frozenset(fields)) for seed in range(20)]
        assert [spec.seed for spec in drawn] == [*range(20)]
        assert len({spec.time_limit for spec in drawn}) > 10, f"nothing is drawn beside {fields}"


def test_a_cluster_of_one_gets_faults_that_it_can_have() -> None:
    base = resolve({"env": "sim", "seed": 1, "nodes": 1})
    kinds = {kind for seed in range(50) for kind in vary(base, seed, {"nodes"}).fault_kinds}
    assert "kill" in kinds
    assert not {"partition", "loss", "membership"} & kinds


def test_options_of_faults_stay_with_them() -> None:
    options = {"kill": {"targets": ["leader"]}, "pause": {"hold_s": 0.2}}
    fields = {"env": "sim", "seed": 1, "faults": options}
    seen = [vary(resolve(fields), seed, frozenset(fields)).faults for seed in range(50)]
    for faults in seen:
        assert isinstance(faults, dict)
        assert faults == {kind: options[kind] for kind in faults}
    assert {len(faults) for faults in seen} == {1, 2}
