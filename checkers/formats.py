"""Reading histories that other tools wrote, as our own.

jsonl         one JSON object a line (history.py)
jepsen-edn    EDN maps with :process, :type, :f, :value, one after another or in one collection
jepsen-log    `INFO  jepsen.util - PROCESS :TYPE :F VALUE`, one event a line
porcupine-kv  EDN maps with a :key, one a line
"""

import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from labrys.checkers.edn import EdnError, read_forms, read_members
from labrys.checkers.history import History, HistoryError, located, read_history
from labrys.checkers.models import json_text
from labrys.checkers.op import Op, OpType

AUTO: Final = "auto"
FORMATS: Final = ("jsonl", "jepsen-edn", "jepsen-log", "porcupine-kv")

INITIAL: Final = {"porcupine-kv": ""}
"""What an object of the format reads as before anything was written, where that is no null."""

_LOG_LINE: Final = re.compile(
    r"INFO\s+jepsen\.util\s+-\s+(?P<process>\S+)\s+:(?P<type>\w+)\s+:(?P<f>\S+)\s+(?P<value>.+)"
)
_TIMED_OUT: Final = "timed-out"

_Events = tuple[list[Op], list[int]]
"""Ops, and the line of each."""


def read_any(path: str | Path, form: str = AUTO, *, keyed: bool = False) -> History:
    """Read a history file in one of `FORMATS`; `auto` looks at how it begins.

    `keyed`: the values of the clients' ops are [key, value].
    Raises `HistoryError` naming path and line; `OSError` when the file cannot be read.
    """
    if form == AUTO:
        form = detect(path)
    if form == "jsonl":
        history = read_history(path)
        return _by_value(path, form, history) if keyed else history
    try:
        ops, lines = _READERS[form](Path(path).read_text(encoding="utf-8"))
    except _LineError as error:
        raise HistoryError(f"{path}:{error.line}: {error}") from None
    except UnicodeDecodeError as error:
        raise HistoryError(f"{path}: not a text file: {error}") from None
    except RecursionError:
        raise HistoryError(f"{path}: nested too deeply") from None
    history = located(path, ops, lines, monotonic=False)
    return _by_value(path, form, history) if keyed else history


def with_line(path: str | Path, form: str, history: History, error: HistoryError) -> HistoryError:
    """Return `error` with path and line of the op that it is about.

    `history` was read from there. Errors about an op begin with `op` and its index.
    """
    named = re.match(r"op (\d+):", str(error))
    if named is None:
        return HistoryError(f"{path}: {error}", error.position)
    index = int(named[1])
    position = next(place for place, op in enumerate(history.ops) if op.index == index)
    if form == "jsonl":
        lines = [
            n for n, line in enumerate(Path(path).read_bytes().split(b"\n"), 1) if line.strip()
        ]
    else:
        _, lines = _READERS[form](Path(path).read_text(encoding="utf-8"))
    return HistoryError(f"{path}:{lines[position]}: {error}", position)


def detect(path: str | Path) -> str:
    """Return the format of a history file by its first words. Raises `HistoryError` if unknown."""
    with Path(path).open("rb") as file:
        head = file.read(4096).decode(errors="replace").lstrip()
    if not head:
        return "jsonl"  # nothing is a history of nothing, whatever its format
    if head.startswith("INFO"):
        return "jepsen-log"
    if re.match(r'\{\s*"', head):
        return "jsonl"
    if re.match(r"[\[({;#]", head):
        return "porcupine-kv" if re.match(r"\{[^}]*:key\b", head) else "jepsen-edn"
    raise HistoryError(f"{path}: not one of the formats {', '.join(FORMATS)}")


class _LineError(ValueError):
    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def _read_edn(text: str) -> _Events:
    try:
        members = read_members(text)
    except EdnError as error:
        raise _LineError(str(error), error.line) from None
    maps = [form for form, _ in members if isinstance(form, dict)]
    # Where no event at all names its process or function, one process did transactions.
    missing: dict[str, Any] = {"process": 0, "f": "txn"}
    defaults = {
        name: value
        for name, value in missing.items()
        if maps and all(form.get(name) is None for form in maps)
    }
    ops = [_op_of_map(form, line, defaults) for form, line in members]
    return ops, [line for _, line in members]


def _op_of_map(form: Any, line: int, defaults: dict[str, Any]) -> Op:
    if isinstance(form, dict):
        form = defaults | form
    if not isinstance(form, dict):
        raise _LineError(f"an event must be a map, not {json_text(form)[:80]}", line)
    missing = [name for name in ("process", "type", "f") if form.get(name) is None]
    if missing:
        raise _LineError(f"an event without :{missing[0]}", line)
    known = {name: form[name] for name in Op.__struct_fields__ if form.get(name) is not None}
    if "key" in known and not isinstance(known["key"], str):
        known["key"] = json_text(known["key"])
    return _op(known, line)


def _read_log(text: str) -> _Events:
    ops: list[Op] = []
    lines: list[int] = []
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            continue
        match = _LOG_LINE.fullmatch(line.strip())
        if match is None:
            raise _LineError(f"not an event: {line[:80]!r}", number)
        ops.append(_op_of_log(match, number))
        lines.append(number)
    return ops, lines


def _op_of_log(match: re.Match[str], line: int) -> Op:
    try:
        values: Sequence[Any] = [value for value, _ in read_forms(match["value"])]
    except EdnError as error:
        raise _LineError(str(error), line) from None
    process = match["process"].removeprefix(":")
    fields: dict[str, Any] = {
        "process": int(process) if process.isdecimal() else process,
        "type": match["type"],
        "f": match["f"],
    }
    if fields["type"] != OpType.INVOKE and values == [_TIMED_OUT]:
        fields["error"] = _TIMED_OUT
    else:
        fields["value"] = values[0] if len(values) == 1 else list(values)
    return _op(fields, line)


def _op(fields: dict[str, Any], line: int) -> Op:
    try:
        return msgspec.convert(fields, Op)
    except msgspec.ValidationError as error:
        raise _LineError(f"not a history event: {error}", line) from None


def _by_value(path: str | Path, form: str, history: History) -> History:
    """Take the key out of values that are [key, value]."""
    try:
        return History(_keyed(history), torn=history.torn, monotonic=False)
    except HistoryError as error:
        raise with_line(path, form, history, error) from None


def _keyed(history: History) -> Iterator[Op]:
    keys: dict[str, str] = {}
    for op in history.ops:
        value = op.value
        if not op.is_client:
            yield op
        elif isinstance(value, list) and len(value) == 2:
            key = value[0] if isinstance(value[0], str) else json_text(value[0])
            if keys.setdefault(key, json_text(value[0])) != json_text(value[0]):
                raise HistoryError(
                    f"op {op.index}: the keys {json_text(value[0])} and {keys[key]} would be "
                    "taken for one"
                )
            yield msgspec.structs.replace(op, key=key, value=value[1])
        elif op.type in (OpType.FAIL, OpType.INFO):
            yield op  # it need not repeat what was asked
        else:
            raise HistoryError(
                f"op {op.index}: with keyed values, {op.f} needs [key, value], "
                f"not {json_text(value)[:80]}"
            )


_READERS: Final[dict[str, Callable[[str], _Events]]] = {
    "jepsen-edn": _read_edn,
    "jepsen-log": _read_log,
    "porcupine-kv": _read_edn,
}
