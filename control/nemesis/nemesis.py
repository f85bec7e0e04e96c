"""The nemesis: plays the faults of several packages, which may overlap in time, and heals.

It is the worker behind the history's process `nemesis`. Each fault is two ops: one that applies it
and one that undoes it; what was planned stands in the invocation, what was done and seen in the
completion. The ledger tells the same story ahead of time:

    planned    before anything is done; from here on the fault may be in force
    applied    done on all its nodes, or on some (then `error` names the others)
    failed     a step went wrong on every node it was for; the fault may be in force
    evidence   what was read back from the nodes, and whether it bit
    undone     undone on all nodes

Undoing comes first and is recorded after it, the other way round from applying: a full disk must
not keep a cluster in pieces. `heal` undoes everything, whatever fails on the way.
"""

import random
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

import msgspec

from labrys.checkers.fault import FaultStage
from labrys.checkers.op import Op, OpType
from labrys.control.environments.base import Environment
from labrys.control.errors import ClusterError, InternalError, UsageError
from labrys.control.ledger import Ledger
from labrys.control.names import known
from labrys.control.nemesis import fault_plan
from labrys.control.nemesis.bandwidth import Bandwidth
from labrys.control.nemesis.clock import Clock
from labrys.control.nemesis.corrupt import Corrupt
from labrys.control.nemesis.delay import Delay
from labrys.control.nemesis.disk import Disk
from labrys.control.nemesis.fault_plan import PlannedFault
from labrys.control.nemesis.flap import Flap
from labrys.control.nemesis.freeze import Freeze
from labrys.control.nemesis.kill import Kill
from labrys.control.nemesis.leadership import Leadership
from labrys.control.nemesis.loss import Loss
from labrys.control.nemesis.membership import Membership
from labrys.control.nemesis.oom import Oom
from labrys.control.nemesis.package import FaultPackage, Options, Outcome, Planned
from labrys.control.nemesis.partition import Partition
from labrys.control.nemesis.pause import Pause
from labrys.control.nemesis.power import Power
from labrys.control.nemesis.reset import Reset
from labrys.control.nemesis.schedule import Timetable, compose
from labrys.control.nemesis.slow_cpu import SlowCpu
from labrys.control.nemesis.storm import RestartStorm
from labrys.control.systems.base import System
from labrys.workloads.generator import Generator

PACKAGES: Final[Mapping[str, type[FaultPackage]]] = {
    package.kind: package
    for package in (
        Partition,
        Flap,
        Reset,
        Loss,
        Delay,
        Bandwidth,
        Kill,
        RestartStorm,
        Pause,
        SlowCpu,
        Oom,
        Freeze,
        Clock,
        Disk,
        Power,
        Corrupt,
        Leadership,
        Membership,
    )
}
"""The kinds of faults that a spec can name."""

HEAL_WAIT_S: Final = 30.0
"""How long `heal` waits for a fault that is being applied at this very moment."""

Faults = Sequence[str] | Mapping[str, Mapping[str, Any] | None]
"""`faults` of a spec: kinds, or a mapping from kind to options."""


def parse_faults(faults: Faults, nodes: Sequence[str] | None = None) -> dict[str, Options]:
    """Return the options by kind of fault. Raises UsageError that names the wrong word.

    Named nodes are checked only if `nodes` are given.
    """
    given = faults if isinstance(faults, Mapping) else dict.fromkeys(faults)
    return {kind: _parse_options(kind, options or {}, nodes) for kind, options in given.items()}


def obstacle(kind: str, environment: str) -> str | None:
    """Return why a kind of fault cannot be had in `environment` on this machine; None if it can."""
    if environment == "sim":
        from labrys.control.sim.faults import SIM_PACKAGES

        if kind not in SIM_PACKAGES:
            return "it cannot be simulated yet; leave it out, or use another environment"
        return None
    return PACKAGES[kind].obstacle(environment)


def assert_possible(kinds: Iterable[str], environment: str) -> None:
    """Raise UsageError if a kind of fault cannot be had in `environment` on this machine."""
    reasons = possible(kinds, environment)[1]
    for reason in reasons.values():
        alike = ",".join(kind for kind in reasons if reasons[kind] == reason)
        raise UsageError(f"--faults {alike}: not with --env {environment} here: {reason}")


def possible(kinds: Iterable[str], environment: str) -> tuple[list[str], dict[str, str]]:
    """Return the kinds that can be had in `environment` here, and why the others cannot."""
    obstacles = {kind: obstacle(kind, environment) for kind in kinds}
    can = [kind for kind, reason in obstacles.items() if reason is None]
    return can, {kind: reason for kind, reason in obstacles.items() if reason is not None}


def needs_of(kinds: Iterable[str]) -> frozenset[str]:
    """Return what an environment must be able to do for these kinds of faults."""
    return frozenset().union(*(PACKAGES[kind].needs for kind in kinds))


def build_packages(
    faults: Faults,
    env: Environment,
    system: System,
    packages: Mapping[str, type[FaultPackage]] = PACKAGES,
) -> tuple[FaultPackage, ...]:
    """Return the fault packages of a spec for this cluster. Raises UsageError as `parse_faults`."""
    return tuple(
        packages[kind](env, system, options)
        for kind, options in parse_faults(faults, env.nodes).items()
    )


class Nemesis:
    """Plays and undoes faults. May be called from several threads; does one thing at a time."""

    def __init__(
        self, packages: Iterable[FaultPackage], ledger: Ledger, rng: random.Random
    ) -> None:
        """All choices and times derive from one draw of `rng`."""
        self._packages = tuple(sorted(packages, key=lambda package: package.undo_order))
        self._ledger = ledger
        self._seed = f"{rng.getrandbits(64):016x}"
        self._by_f = {
            f: package for package in self._packages for f in (package.start_f, package.stop_f)
        }
        self._active: dict[str, list[tuple[int, Planned]]] = {
            package.kind: [] for package in self._packages
        }
        """By kind: the faults that may be in force, oldest first. One, unless an undo failed."""
        self._lock = threading.Lock()
        self._was_set_up = False
        self._has_ended = False

    def setup(self) -> None:
        """Prepare the nodes, undoing what an earlier run left. Raises what went wrong first.

        To be called before the database is started.
        """
        self._was_set_up = True
        for package in self._packages:
            package.set_up()

    def generator(self, timetable: Timetable) -> Generator:
        """Return the endless schedule of all packages."""
        return compose(self._packages, timetable, self._seed)

    def environ(self, node: str) -> dict[str, str]:
        """Return the variables that the database of `node` has to be started with.

        To be asked after `setup`. Libraries of several kinds of fault are all preloaded.
        """
        merged: dict[str, str] = {}
        for package in self._packages:
            for name, value in package.environ(node).items():
                if name in merged and merged[name] != value:
                    if name != "LD_PRELOAD":
                        raise InternalError(f"two faults want {name}: {merged[name]} and {value}")
                    value = f"{merged[name]}:{value}"
                merged[name] = value
        return merged

    def fixed(self, faults: Sequence[PlannedFault]) -> Generator:
        """Return the schedule of a list of faults. Raises UsageError for one that cannot be."""
        by_kind = {package.kind: package for package in self._packages}
        return fault_plan.play(
            faults,
            [_with_options(by_kind[fault.kind], fault.options) for fault in faults],
            self._seed,
        )

    def invoke(self, op: Op) -> Op:
        """Do what `op` says and return its completion, which tells what was done and seen.

        What goes wrong on nodes is told in the completion (`error`) and the ledger. Raises
        MachineError when the ledger cannot be written: then a fault that was not announced was
        not begun, and whatever was to be undone is.
        """
        if op.f not in self._by_f:
            known("nemesis op", op.f, self._by_f)
        package = self._by_f[op.f]
        with self._lock:
            if op.f == package.stop_f:
                self._make_way(package)
                value, errors = self._undo(package)
            elif self._has_ended:
                value, errors = None, {"nemesis": "not done: the faults were healed for good"}
            else:
                try:
                    value, errors = self._apply(package, op.value or {})
                finally:
                    if (
                        self._has_ended
                    ):  # `heal` gave up waiting for this one and may have missed it
                        self._undo(package)
                if self._has_ended:
                    errors |= {"nemesis": "undone at once: the faults were healed for good"}
        return msgspec.structs.replace(
            op, type=OpType.INFO, value=value, error=_in_words(errors) or None
        )

    def heal(self) -> None:
        """Undo every fault on all nodes, the network first, and play no more.

        Tries everything; raises an ExceptionGroup of all that failed. Idempotent.
        """
        errors: list[Exception] = []
        got_lock = self._lock.acquire(timeout=HEAL_WAIT_S)
        self._has_ended = True
        try:
            if not got_lock:
                errors.append(ClusterError(f"a fault took more than {HEAL_WAIT_S:g} s to apply"))
            for package in self._packages:
                try:
                    _, failed = self._undo(package, package.undo_for_good)
                except Exception as error:  # the ledger, most likely; the other undos matter more
                    errors.append(error)
                else:
                    errors += [
                        ClusterError(f"{node}: undoing {package.kind} failed: {error}")
                        for node, error in failed.items()
                    ]
        finally:
            if got_lock:
                self._lock.release()
        if errors:
            raise ExceptionGroup("faults that could not be undone", errors)

    def teardown(self) -> None:
        """Leave the nodes as they were found. Tries everything; raises an ExceptionGroup.

        Unlike `heal` it starts no process: it may follow a set-up that failed half-way. Before
        `setup` there are no nodes to leave, and it does nothing.
        """
        self._has_ended = True
        if not self._was_set_up:
            return
        errors: list[Exception] = []
        for package in self._packages:
            try:
                package.tear_down()
            except Exception as error:  # collected: the other packages must be torn down as well
                errors.append(error)
        if errors:
            raise ExceptionGroup("nodes that could not be put in order", errors)

    def _apply(
        self, package: FaultPackage, plan: Mapping[str, Any]
    ) -> tuple[dict[str, Any], dict[str, str]]:
        errors: dict[str, str] = {}
        if self._active[package.kind]:
            _, errors = self._undo(package)
        planned = package.settle(plan)
        fault = self._ledger.new_id()
        self._record(fault, FaultStage.PLANNED, package, targets=planned.targets, plan=planned.plan)
        # From here on it counts as in force: half-applied faults have to be undone as well.
        self._active[package.kind].append((fault, planned))
        outcome = package.apply(planned)
        errors |= outcome.errors
        stage = FaultStage.APPLIED if outcome.done or not outcome.errors else FaultStage.FAILED
        self._record(fault, stage, package, error=_in_words(outcome.errors) or None)
        self._record_evidence(fault, package, planned, outcome)
        return _report(fault, planned, outcome), errors

    def _make_way(self, package: FaultPackage) -> None:
        """Undo what would keep a package from undoing its own; the ledger tells how that went."""
        for other in self._packages:
            if other.bars_undo and other is not package and self._active[other.kind]:
                self._undo(other)

    def _undo(
        self, package: FaultPackage, undo: Callable[[], Outcome] | None = None
    ) -> tuple[dict[str, Any], dict[str, str]]:
        outcome = (undo or package.undo)()
        active = self._active[package.kind]
        if not active:
            return {"done": outcome.done}, outcome.errors
        fault, planned = active[-1]
        self._record_evidence(fault, package, planned, outcome)
        if outcome.errors:
            # It stays active, so that the next undo closes its story.
            self._record(fault, FaultStage.FAILED, package, error=_in_words(outcome.errors))
        else:
            for undone, _ in tuple(active):
                self._record(undone, FaultStage.UNDONE, package)
                del active[:1]
        return _report(fault, planned, outcome), outcome.errors

    def _record_evidence(
        self, fault: int, package: FaultPackage, planned: Planned, outcome: Outcome
    ) -> None:
        if outcome.bit is not None:
            self._record(
                fault,
                FaultStage.EVIDENCE,
                package,
                targets=planned.targets,
                observed=outcome.observed,
                bit=outcome.bit,
            )

    def _record(self, fault: int, stage: FaultStage, package: FaultPackage, **more: Any) -> None:
        self._ledger.record(fault, stage, package.kind, **more)


def _report(fault: int, planned: Planned, outcome: Outcome) -> dict[str, Any]:
    """The value of a completion: the plan, what was done by node, and whether it bit."""
    report: dict[str, Any] = {"fault": fault, **planned.plan, "done": outcome.done}
    if outcome.bit is not None:
        report |= {"observed": outcome.observed, "bit": outcome.bit}
    return report


def _in_words(errors: Mapping[str, str]) -> str:
    return "; ".join(f"{node}: {error}" for node, error in errors.items())


def _with_options(package: FaultPackage, given: Mapping[str, Any]) -> FaultPackage:
    options = _parse_options(package.kind, given, package.env.nodes)
    return type(package)(package.env, package.system, options)


def _parse_options(kind: str, given: Mapping[str, Any], nodes: Sequence[str] | None) -> Options:
    known("fault", kind, PACKAGES)
    options_type = PACKAGES[kind].options_type
    if not isinstance(given, Mapping):
        raise UsageError(f"faults: {kind}: options are a mapping, not {given!r}")
    try:
        for name in given:
            known("option", str(name), options_type.__struct_fields__)
        options = msgspec.convert(dict(given), options_type)
        options.check(nodes)
    except (msgspec.ValidationError, UsageError) as error:
        raise UsageError(f"faults: {kind}: {error}") from error
    return options
