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

from labrys.checkers.op import NEMESIS, Op
from labrys.control.environments.base import Environment, on_nodes
from labrys.control.errors import LabrysError, UsageError
from labrys.control.systems.base import System
from labrys.workloads.context import Context
from labrys.workloads.generator import Generator, Pending, Step, assign, template

T = TypeVar("T")

JITTER: Final = 0.15
"""Each beginning and end is early or late by up to this part of the interval."""


class Options(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a spec may say about a kind of fault."""

    interval_s: float | None = None
    """How long a fault of this kind holds, and the quiet after it; None: as the whole test."""
    hold_s: float | None = None
    """How long it holds, where that is not an interval: a round, a fault and the quiet after it,
    takes two intervals all the same."""

    def check(self, nodes: Sequence[str] | None) -> None:
        """Raise UsageError for values that cannot be; `nodes` is None while they are unknown."""
        if self.interval_s is not None and not 0 < self.interval_s < float("inf"):
            raise UsageError(f"interval_s: must be more than 0 seconds, not {self.interval_s:g}")
        if self.hold_s is not None and not 0 < self.hold_s < float("inf"):
            raise UsageError(f"hold_s: must be more than 0 seconds, not {self.hold_s:g}")

    def check_times(self, fault_interval_s: float) -> None:
        """Raise UsageError if a fault would outlast its round; the interval is the whole test's."""
        round_s = 2 * (self.interval_s or fault_interval_s)
        if self.hold_s is not None and self.hold_s >= round_s:
            raise UsageError(
                f"hold_s: {self.hold_s:g} s do not fit into a round, which takes two intervals, "
                f"{round_s:g} s; hold shorter, or set a longer interval_s"
            )


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
    strike_order: ClassVar[int] = 2
    """Lower strikes first in a round: what the cluster has to agree on, before it is hurt."""
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
        self.interval_s = options.interval_s
        self.hold_s = options.hold_s

    @classmethod
    def obstacle(cls, environment: str) -> str | None:
        """Return why there are no such faults in `environment` on this machine, and the mend.

        None: there are. Asked before there are any nodes; what only a node can tell is for
        `set_up` to find out.
        """
        return None

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

    def schedule(self, interval_s: float, seed: str, *, phase: float = 0.0) -> Generator:
        """Return the generator of this kind's ops; see `Schedule`."""
        interval_ns = round((self.interval_s or interval_s) * 1e9)
        hold_ns = interval_ns if self.hold_s is None else round(self.hold_s * 1e9)
        return Schedule(
            package=self,
            seed=f"{seed}/{self.kind}",
            interval_ns=interval_ns,
            hold_ns=hold_ns,
            phase=phase,
        )


class Schedule(Generator, frozen=True, kw_only=True):
    """A fault, quiet, a fault, quiet: two intervals a round, the first after half an interval.

    The fault holds for `hold_ns`, normally one interval, and the rest of the round is quiet.

    `phase` puts the first one off by a part of a round (a fault and its quiet), from 0 to 1, so
    that several kinds do not all strike and rest together.

    Plans and the timetable are functions of the seed alone. If the nemesis was late, because it
    was busy with another kind, the next step waits until this one has held for half of its time.
    """

    package: FaultPackage
    seed: str
    interval_ns: int
    hold_ns: int
    phase: float = 0.0
    step: int = 0
    origin: int | None = None
    """When the first op is due, jitter aside; None until the schedule is asked for the first time.
    All others are counted from here, so that jitter does not add up and kinds keep their phases."""
    not_before: int = 0

    def op(self, ctx: Context) -> Step:
        """Return the next op when it is due. Never exhausted: wrap it in a time limit."""
        if self.origin is None:
            wait_ns = round((0.5 + 2 * self.phase) * self.interval_ns)
            return msgspec.structs.replace(self, origin=ctx.time + wait_ns).op(ctx)
        due = max(self.not_before, self.origin + self._offset_ns())
        if ctx.time < due:
            return Pending(due), self
        op = assign(ctx, self._next())
        if isinstance(op, Pending):
            return op, self
        not_before = ctx.time + self._length_ns() // 2
        return op, msgspec.structs.replace(self, step=self.step + 1, not_before=not_before)

    def _next(self) -> Op:
        turn, is_stop = divmod(self.step, 2)
        if is_stop:
            op = template(self.package.stop_f)
        else:
            op = template(self.package.start_f, self.package.plan(turn, self.seed))
        return msgspec.structs.replace(op, process=NEMESIS)

    def _length_ns(self) -> int:
        """How long what begins at this step lasts: the fault, or the quiet after it."""
        return 2 * self.interval_ns - self.hold_ns if self.step % 2 else self.hold_ns

    def _offset_ns(self) -> int:
        """When this step is due, counted from the origin."""
        turn, is_stop = divmod(self.step, 2)
        rng = random.Random(f"{self.seed}/jitter/{self.step}")
        # A short fault must not be jittered away.
        jitter_ns = min(self.interval_ns, self.hold_ns) * rng.uniform(-JITTER, JITTER)
        return 2 * turn * self.interval_ns + is_stop * self.hold_ns + round(jitter_ns)


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
