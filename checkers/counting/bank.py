"""The bank checker: money moves, and none appears or vanishes.

After Jepsen's bank. Every read of all accounts must show the same total, for transfers only move
it; a read between the two halves of a transfer shows another one.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from labrys.checkers.by_key import ByKey, Tally
from labrys.checkers.history import Operation
from labrys.checkers.models.model import wanted
from labrys.checkers.text import json_text
from labrys.checkers.verdict import CheckResult, Verdict

_KINDS = ("wrong-total", "unknown-account", "missing-account", "negative-balance")


class Bank(ByKey):
    """Does every read show all accounts with the same total, and no balance below zero?

    A read returns {account: balance}, or a list of [account, balance]; a `transfer` is {"from",
    "to", "amount"}, and fails when the money is not there.
    """

    name = "bank"
    has_start = True
    functions: ClassVar[Mapping[str, str]] = {"transfer": "transfer", "read": "read"}

    def __init__(
        self, level: str | None = None, initial: Any = None, *, negative: bool = False
    ) -> None:
        """Begin with `initial`: {account: balance}, or the total alone.

        None: the first read says what the total is. `negative`: accounts may be overdrawn. Raises
        `ValueError` for any other start.
        """
        super().__init__(level, initial)
        self._accounts: frozenset[str] | None = None
        self._total: int | None = None
        self._negative = negative
        if isinstance(initial, dict):
            if not all(type(balance) is int for balance in initial.values()):
                raise ValueError(f"balances are integers, not {json_text(initial)}")
            self._accounts, self._total = frozenset(initial), sum(initial.values())
        elif initial is not None:
            if type(initial) is not int:
                raise ValueError(
                    f'a bank starts with a total or with {{"account": balance}}, '
                    f"not {json_text(initial)}"
                )
            self._total = initial

    def assert_sound(self, operation: Operation) -> None:
        if operation.f == "read":
            if operation.is_ok:
                _balances(operation)
            return
        asked = operation.invoke.value
        if (
            not isinstance(asked, dict)
            or not {"from", "to", "amount"} <= asked.keys()
            or type(asked["amount"]) is not int
        ):
            raise wanted(operation, '{"from": A, "to": B, "amount": N}', asked)

    def missing(self, operations: Sequence[Operation]) -> str | None:
        if not any(operation.f == "read" and operation.is_ok for operation in operations):
            return "no read succeeded"
        if not any(operation.f == "transfer" and operation.is_ok for operation in operations):
            return "no transfer succeeded"
        return None

    def judge(self, operations: Sequence[Operation]) -> CheckResult:
        tally = Tally()
        total, total_of = self._total, "the start"
        accounts = self._accounts
        totals: Counter[int] = Counter()
        for operation in operations:
            if operation.f != "read" or not operation.is_ok:
                continue
            balances = _balances(operation)
            if accounts is None:
                accounts = frozenset(balances)
            _look(operation, balances, accounts, tally, negative=self._negative)
            found = sum(balance for balance in balances.values() if balance is not None)
            totals[found] += 1
            if total is None:
                total, total_of = found, f"op {operation.call}"
            elif found != total:
                tally.tell(
                    "wrong-total",
                    f"op {operation.call} read a total of {found}, not {total} as at {total_of} "
                    f"(off by {found - total:+}): {json_text(balances)[:200]}",
                    [operation.call],
                    total=found,
                )
        bad = sum(tally.counts.values())
        reads = totals.total()
        what = ", ".join(f"{tally.counts[kind]} {kind}" for kind in _KINDS if tally.counts[kind])
        return CheckResult(
            Verdict.INVALID if bad else Verdict.VALID,
            f"{what} in {reads} reads" if bad else f"{reads} reads, all of them with {total}",
            findings=tally.findings(_KINDS),
            data={
                "total": total,
                "reads": reads,
                "totals": {str(found): count for found, count in totals.most_common(20)},
                **{kind.replace("-", "_"): tally.counts[kind] for kind in _KINDS},
            },
        )


def _balances(read: Operation) -> dict[str, int | None]:
    """Return what a read shows, by account. Raises `HistoryError` if it is something else."""
    shown = read.value
    if isinstance(shown, dict):
        pairs = list(shown.items())
    elif isinstance(shown, list) and all(isinstance(p, list) and len(p) == 2 for p in shown):
        pairs = [(name if isinstance(name, str) else json_text(name), b) for name, b in shown]
    else:
        raise wanted(read, '{"account": balance} as its result', shown)
    if len(dict(pairs)) < len(pairs):
        raise wanted(read, "every account only once", shown)
    if not all(balance is None or type(balance) is int for _, balance in pairs):
        raise wanted(read, "integers as balances", shown)
    return dict(pairs)


def _look(
    read: Operation,
    balances: Mapping[str, int | None],
    accounts: frozenset[str],
    tally: Tally,
    *,
    negative: bool,
) -> None:
    """Look at the accounts of one read."""
    ops = [read.call]
    for name in sorted(balances.keys() - accounts):
        message = f"op {read.call} shows account {json_text(name)}, which nobody knows"
        tally.tell("unknown-account", message, ops)
    for name in sorted(accounts - {n for n, balance in balances.items() if balance is not None}):
        tally.tell("missing-account", f"op {read.call} lacks account {json_text(name)}", ops)
    for name, balance in balances.items():
        if balance is not None and balance < 0 and not negative:
            message = f"op {read.call} shows {balance} in account {json_text(name)}"
            tally.tell("negative-balance", message, ops)
