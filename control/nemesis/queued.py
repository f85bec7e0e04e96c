"""Faults that send the packets of peers through a queue, where `delayer` holds them back.

By NFQUEUE, which kernels without netem have as well. Each kind has a chain, a queue and a process
of its own, so that they can hold at once. Whoever is to be undone is found by its pid file, so an
undo needs to know nothing of the fault; and first the rules go, so that even a delayer that cannot
be stopped holds nothing back any more.
"""

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any, ClassVar

from labrys.control.environments.base import Environment, on_nodes
from labrys.control.errors import ClusterError, MachineError
from labrys.control.nemesis import delayer
from labrys.control.nemesis.aimed import AimedFault, AimedOptions
from labrys.control.nemesis.chain import Chain
from labrys.control.nemesis.helper import Helper
from labrys.control.nemesis.package import Outcome, Planned, each
from labrys.control.systems.base import System


class QueuedFault(AimedFault):
    """Hurts what the targets hear from their peers; clients are served as ever."""

    undo_order = 0
    mechanism = "iptables NFQUEUE and a process in the node"
    cure_word = "emptying the chain, ending the process"
    nodes_min = 2
    what: ClassVar[str]
    """The packets that are hurt, in words: `delayed packets`."""
    chain: ClassVar[str]
    hook: ClassVar[str]
    """The chain of the table mangle that jumps to ours."""
    queue: ClassVar[int]
    process: ClassVar[str]
    """The name of the process in the node."""
    healed_word: ClassVar[str]
    trial: ClassVar[Mapping[str, Any]]
    """A plan that is tried in each node beforehand."""

    def __init__(self, env: Environment, system: System, options: AimedOptions) -> None:
        super().__init__(env, system, options)
        self._chain = Chain(env, self.chain, self.what, table="mangle", hook=self.hook)
        self._delayer = Helper(env, self.process, delayer.__file__)

    @abstractmethod
    def words(self, plan: Mapping[str, Any]) -> tuple[str, ...]:
        """Return the command line of `delayer` for a plan, behind the number of its queue."""

    @abstractmethod
    def hurt_word(self, plan: Mapping[str, Any]) -> str:
        """Return what a plan does to a node, in words."""

    @abstractmethod
    def bites(self, facts: Mapping[str, Any]) -> bool:
        """Whether a node that had packets in its queue felt it, by the facts of its process."""

    def apply(self, planned: Planned) -> Outcome:
        """Start the processes of the targets, and send them the packets of all peers."""
        rule = f"-j NFQUEUE --queue-num {self.queue} --queue-bypass"

        def hurt(node: str) -> str:
            self._let_go(node)
            self._start(node, planned.plan)
            self._chain.set_for_peers(node, rule)
            return self.hurt_word(planned.plan)

        done, errors = each(planned.targets, hurt)
        return Outcome(done=done, errors=errors)

    def undo(self) -> Outcome:
        """Take rules and processes away from all nodes; tells what became of the packets."""
        found, errors = each(self.env.nodes, self._let_go)
        observed = {node: facts for node, facts in found.items() if facts.get("packets")}
        return Outcome(
            done={node: self.healed_word for node in found},
            observed=observed,
            bit=any(self.bites(facts) for facts in observed.values()),
            errors=errors,
        )

    def set_up(self) -> None:
        """Put the program into every node and try it. Raises MachineError where it cannot work."""
        self._chain.prepare()

        def prepare(node: str) -> None:
            self._delayer.install(node)
            self._let_go(node)
            try:
                self._start(node, self.trial)
            except ClusterError as error:
                raise MachineError(
                    f"{error}. {self.what.capitalize()} need the kernel's NFQUEUE (modprobe "
                    "nfnetlink_queue) and the capability NET_ADMIN in the node"
                ) from error
            self._let_go(node)

        on_nodes(self.env.nodes, prepare)

    def tear_down(self) -> None:
        """Leave no rule and no process behind."""
        on_nodes(self.env.nodes, self._let_go)
        self._chain.remove()

    def _start(self, node: str, plan: Mapping[str, Any]) -> None:
        self._delayer.start(node, str(self.queue), *self.words(plan))

    def _let_go(self, node: str) -> Mapping[str, Any]:
        self._chain.set(node, {})
        return self._delayer.stop(node)
