"""The checker for generators of ids: none is given out twice."""

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from labrys.checkers.by_key import ByKey, Tally
from labrys.checkers.history import Operation
from labrys.checkers.models.model import wanted
from labrys.checkers.text import as_key, json_text, told
from labrys.checkers.verdict import CheckResult, Verdict


class UniqueIds(ByKey):
    """Is every id that `generate` returned another one? Ids that nobody got to see do not count."""

    name = "unique-ids"
    functions: ClassVar[Mapping[str, str]] = {"generate": "generate"}

    def assert_sound(self, operation: Operation) -> None:
        if operation.is_ok and operation.value is None:
            raise wanted(operation, "an id as its result", None)

    def missing(self, operations: Sequence[Operation]) -> str | None:
        acknowledged = sum(operation.is_ok for operation in operations)
        return None if acknowledged > 1 else f"{acknowledged} ids were given out: two can differ"

    def judge(self, operations: Sequence[Operation]) -> CheckResult:
        given: dict[Any, list[int]] = {}
        for operation in operations:
            if operation.is_ok:
                given.setdefault(as_key(operation.value), []).append(operation.call)
        tally = Tally()
        for key, ops in given.items():
            if len(ops) > 1:
                named = ", ".join(f"op {op}" for op in ops[:4])
                message = f"{told(key)} was given out {len(ops)} times: {named}"
                tally.tell("duplicated", message, ops)
        twice = tally.counts["duplicated"]
        return CheckResult(
            Verdict.INVALID if twice else Verdict.VALID,
            f"{twice} of {len(given)} ids were given out more than once"
            if twice
            else f"{len(given)} ids, all different",
            findings=tally.findings(["duplicated"]),
            data={
                "attempts": len(operations),
                "acknowledged": sum(map(len, given.values())),
                "ids": len(given),
                "duplicated": twice,
                "range": _range([key for key in given if type(key) is int]),
            },
        )


def _range(numbers: Sequence[int]) -> list[str]:
    return [json_text(min(numbers)), json_text(max(numbers))] if numbers else []
