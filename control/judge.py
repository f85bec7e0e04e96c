"""Judge a history: the checkers of a run, run side by side and combined into one verdict.

`labrys test` and `labrys check` both come here, so a stored run is judged again by the very same
code that judged it first.
"""

import gc
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from labrys.checkers.agreement import Agreement
from labrys.checkers.availability import Availability
from labrys.checkers.checker import Checker, DataChecker, Evidence, Limits, run_checker
from labrys.checkers.coverage import FaultCoverage
from labrys.checkers.errors import UnhandledErrors
from labrys.checkers.fault import FaultEvent
from labrys.checkers.history import History
from labrys.checkers.linearizable import Linearizable
from labrys.checkers.logs import LogPatterns
from labrys.checkers.perf import Perf
from labrys.checkers.raft_log import RaftLog
from labrys.checkers.stats import Stats
from labrys.checkers.verdict import CheckResult, Verdict, combine
from labrys.control.cores import spread
from labrys.workloads.registry import WORKLOADS

if TYPE_CHECKING:
    from labrys.control.spec import Spec

EXIT_CODES: Final = {
    Verdict.VALID: 0,
    Verdict.INVALID: 1,
    Verdict.UNKNOWN: 3,
    Verdict.ERROR: 4,
}


@contextmanager
def no_collection() -> Iterator[None]:
    """Leave cyclic garbage alone meanwhile.

    Reading and checking make millions of small objects and no cycles of them: looking for those
    takes as long as the check itself.
    """
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


def limits(seconds: float, memory_mib: int, moves: int = Limits().moves) -> Limits:
    """Return the budgets of a check on this machine, with its clock and its memory."""
    return Limits(
        seconds=seconds,
        memory_mib=memory_mib,
        moves=moves,
        clock=time.monotonic,
        memory_used_mib=_resident_mib,
    )


def judge_run(
    spec: "Spec",
    history: History,
    *,
    faults: Sequence[FaultEvent],
    logs: Mapping[str, Sequence[str]],
    end_states: Mapping[str, Mapping[str, Any] | None],
    budget: Limits,
) -> dict[str, CheckResult]:
    """Return what every checker of this test says, by the checker's name, the main one first."""
    evidence = Evidence(
        faults=faults,
        planned_faults=spec.fault_kinds,
        logs=logs,
        end_states=end_states,
        limits=budget,
        spread=spread,
    )
    return _judge(checkers_of(spec), history, evidence)


def judge_history(main: DataChecker, history: History, budget: Limits) -> dict[str, CheckResult]:
    """Judge a history about which nothing else is known by the one checker that fits it."""
    return _judge([main], history, Evidence(limits=budget, spread=spread))


def judge_test(
    main: DataChecker,
    history: History,
    *,
    logs: Mapping[str, Sequence[str]],
    budget: Limits,
) -> dict[str, CheckResult]:
    """Judge a test that played its operations and faults itself, so that no coverage is asked for.

    Its history by `main`, if clients did anything; and what the nodes logged.
    """
    evidence = Evidence(logs=logs, limits=budget, spread=spread)
    checkers: list[Checker] = [main] if history.operations else []
    return _judge([*checkers, RaftLog(), LogPatterns()], history, evidence)


def conclude_verdict(checkers: dict[str, CheckResult], *, failed: bool) -> Verdict:
    """Combine what the checkers say with whether the rig itself failed."""
    verdicts = [result.verdict for result in checkers.values()]
    return combine([*verdicts, Verdict.ERROR] if failed else verdicts)


def _judge(
    checkers: Sequence[Checker], history: History, evidence: Evidence
) -> dict[str, CheckResult]:
    with no_collection():
        return {checker.name: run_checker(checker, history, evidence) for checker in checkers}


def checkers_of(spec: "Spec") -> list[Checker]:
    """Return what judges a run of a test."""
    return [
        Linearizable(WORKLOADS[spec.workload].model),
        Stats(),
        FaultCoverage(),
        Availability(),
        Agreement(),
        RaftLog(),
        LogPatterns(),
        UnhandledErrors(),
        Perf(),
    ]


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20
