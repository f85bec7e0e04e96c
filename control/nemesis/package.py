"""A fault package: all that belongs to one kind of fault.

Each package plans its faults (pure, from the random stream), settles a plan when its moment has
come (who is the leader now?), applies it, and undoes it. Undoing goes to all nodes, is idempotent
and knows no plan: it must work after a rig that died and forgot everything.

Evidence that a fault bit is read back from the nodes, by whichever step can see it: a kill right
after it, a partition only at its end, when there was time for packets to be dropped.
"""

import random
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, ClassVar, Final, TypeVar

import msgspec

from labrys.control.environments import registry as environments
from labrys.control.environments.base import Environment, on_nodes
from labrys.control.errors import LabrysError, UsageError
from labrys.control.systems.base import System

T = TypeVar("T")

WEIGHT_MAX: Final = 1000


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a spec may say about a kind of fault."""

    interval_s: float | None = None
    """How long a fault of this kind holds, and the quiet after it; None: as the whole test."""
    hold_s: float | None = None
    """How long it holds, where that is not an interval: a round, the fault and the quiet after it,
    takes as long all the same."""

    weight: int = 1
    """How often this kind has its turn, compared with others, where not all kinds are in force at
    once."""

    def check(self, nodes: Sequence[str] | None) -> None:
        """Raise UsageError for values that cannot be; `nodes` is None while they are unknown."""
        if self.interval_s is not None and not 0 < self.interval_s < float("inf"):
            raise UsageError(f"interval_s: must be more than 0 seconds, not {self.interval_s:g}")
        if self.hold_s is not None and not 0 < self.hold_s < float("inf"):
            raise UsageError(f"hold_s: must be more than 0 seconds, not {self.hold_s:g}")
        if not 1 <= self.weight <= WEIGHT_MAX:
            raise UsageError(f"weight: must be from 1 to {WEIGHT_MAX}, not {self.weight}")


class Planned(msgspec.Struct, frozen=True):
    """A fault that is about to be applied."""

    targets: tuple[str, ...]
    """The nodes that it hurts."""
    plan: dict[str, Any]
    """All there is to know about it, as a JSON value."""


class Outcome(msgspec.Struct, frozen=True):
    """What a step did, node by node."""

    done: dict[str, str] = {}
    observed: dict[str, Any] = {}
    """Evidence read back."""
    bit: bool | None = None
    """Whether the fault was seen to take effect; None: this step cannot tell."""
    errors: dict[str, str] = {}
    """Where it went wrong. The other nodes were tried all the same."""


class FaultPackage(ABC):
    """One kind of fault in one cluster."""

    kind: ClassVar[str]
    start_f: ClassVar[str]
    """The `f` of the op that applies a fault."""
    stop_f: ClassVar[str]
    undo_order: ClassVar[int]
    """Lower is undone first: the network, then processes."""
    bars_undo: ClassVar[bool] = False
    """Whether nothing else can be undone in a node that it hurts: then it ends when others do."""
    strike_order: ClassVar[int] = 3
    """Lower strikes first in a round: what the cluster has to agree on, before it is hurt."""
    holds: ClassVar[float] = 1.0
    """The part of an interval that a fault holds, if its options do not say how long."""
    shade: ClassVar[str]
    """The colour of its bands in plots."""
    mechanism: ClassVar[str]
    """By what it is done, in a few words."""
    evidence: ClassVar[str]
    """What is read back from the nodes to see that it bit."""
    cure_word: ClassVar[str]
    """By what it is undone."""
    options_type: ClassVar[type[Options]]
    choices: ClassVar[str]
    """The option that narrows what is drawn, and what a short form such as `kill:all` sets."""
    needs: ClassVar[frozenset[str]] = frozenset()
    """What nodes must be made able to do for it; see `Environment.require`."""
    capability: ClassVar[type | None] = None
    """What an environment must offer beyond `Environment`: `Freezable`, ..."""
    without: ClassVar[str] = ""
    """Why there are no such faults where that is not offered, and what to do instead."""
    nodes_min: ClassVar[int] = 1
    """Fewer nodes cannot be hurt so."""

    def __init__(self, env: Environment, system: System, options: Options) -> None:
        """Raises UsageError for options that do not fit these nodes, or for too few of them."""
        options.check(env.nodes)
        if len(env.nodes) < self.nodes_min:
            raise UsageError(
                f"{self.kind} needs at least {self.nodes_min} nodes, not {len(env.nodes)}"
            )
        self.env = env
        self.system = system
        self.weight = options.weight
        self.interval_s = options.interval_s
        self.hold_s = options.hold_s

    @classmethod
    def obstacle(cls, environment: str) -> str | None:
        """Return why there are no such faults in `environment` on this machine, and the mend.

        None: there are. Asked before there are any nodes; what only a node can tell is for
        `set_up` to find out.
        """
        return None if cls.is_offered(environment) else cls.without

    @classmethod
    def is_offered(cls, environment: str) -> bool:
        """Whether `environment` was made for such faults; some machine may still lack something."""
        return cls.capability is None or environments.offers(environment, cls.capability)

    def environ(self, node: str) -> Mapping[str, str]:
        """Return the variables that the database of `node` has to be started with for this fault.

        Asked after `set_up`, and not needed by most.
        """
        return {}

    @abstractmethod
    def plan(self, turn: int, seed: str) -> dict[str, Any]:
        """Return the plan of the fault number `turn`, counted from 0. A pure function."""

    @abstractmethod
    def settle(self, plan: Mapping[str, Any]) -> Planned:
        """Return what will be done for `plan` now. May ask the system who leads; hurts nobody."""

    @abstractmethod
    def apply(self, planned: Planned) -> Outcome:
        """Hurt the cluster."""

    @abstractmethod
    def undo(self) -> Outcome:
        """Undo every fault of this kind on all nodes, whatever was done before."""

    def undo_for_good(self) -> Outcome:
        """Undo at the end, when no other kind is in force any more: this one may take its time."""
        return self.undo()

    @abstractmethod
    def set_up(self) -> None:
        """Prepare the nodes, and undo what an earlier run may have left. Nothing runs there yet."""

    @abstractmethod
    def tear_down(self) -> None:
        """Leave the nodes as they were found; does not bring the dead to life."""

    def leaders(self) -> tuple[str, ...]:
        """Return who leads, the newest first; nobody when the system cannot say."""
        try:
            return self.system.leaders()
        except (
            Exception
        ):  # a cluster that is being hurt may answer anything: the plan says what then
            return ()


def deal(groups: Sequence[Sequence[T]], turn: int, seed: str) -> T:
    """Return the choice for one turn: every group once per round, in random order.

    Drawing each turn afresh would leave some groups out of most short runs: six draws out of six
    miss two of them on average. Within the group whose turn it is, the choice is uniform.
    """
    round_number, place = divmod(turn, len(groups))
    order = list(groups)
    random.Random(f"{seed}/round/{round_number}").shuffle(order)
    return random.Random(f"{seed}/within/{turn}").choice(order[place])


def only(groups: Sequence[Sequence[str]], wanted: Iterable[str]) -> tuple[tuple[str, ...], ...]:
    """Return the groups reduced to what is wanted, without empty ones."""
    names = frozenset(wanted)
    reduced = (tuple(name for name in group if name in names) for group in groups)
    return tuple(group for group in reduced if group)


def each(nodes: Iterable[str], action: Callable[[str], T]) -> tuple[dict[str, T], dict[str, str]]:
    """Do `action` on all nodes in parallel; return results and errors by node.

    What fails on one node stops no other and is not raised.
    """

    def guarded(node: str) -> T | _Failure:
        try:
            return action(node)
        except LabrysError as error:
            return _Failure(str(error).removeprefix(f"{node}: "))
        except Exception as error:  # reported by node all the same: an undo must reach the others
            return _Failure(f"{type(error).__name__}: {error}")

    found = on_nodes(nodes, guarded)
    results = {node: result for node, result in found.items() if not isinstance(result, _Failure)}
    errors = {node: result.error for node, result in found.items() if isinstance(result, _Failure)}
    return results, errors


class _Failure(msgspec.Struct, frozen=True):
    error: str
