"""Writing a history as Jepsen does: EDN, one map a line, which Knossos and Elle read.

What Jepsen has keywords for is one: types, functions, the nemesis, codes of errors and the
functions of a transaction's operations. Keys and values stay what they are. An operation on one of
many keys carries `[key value]`, as Jepsen's independent histories do.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

import msgspec

from labrys.checkers.history import HistoryError
from labrys.checkers.op import Op, OpType

_SYMBOL: Final = re.compile(r"[A-Za-z*!_?<>=$%&+-][\w*!?<>=$%&+.'-]*", re.ASCII)
"""What can be a keyword."""


class Keyword(str):
    """A string that is to be written as a keyword."""


def jepsen_lines(ops: Iterable[Op], *, key: str | None = None) -> Iterator[str]:
    """Write ops as EDN, a line each.

    `key`: only the clients' ops on this key, as a history of one object: their values are bare.
    Raises `HistoryError` where some ops of clients name a key and others do not.
    """
    keys: dict[int | str, str | None] = {}
    """By process: what its latest invocation was about; completions need not repeat it."""
    first: tuple[int, bool] | None = None
    for op in ops:
        if not op.is_client:
            yield _line(op, op.value)
            continue
        if op.type is OpType.INVOKE:
            keys[op.process] = op.key
        about = keys.get(op.process) if op.key is None else op.key
        if first is None:
            first = op.index, about is not None
        elif key is None and first[1] != (about is not None):
            raise HistoryError(
                f"op {op.index}: some operations name a key and others do not (op {first[0]}): "
                "Jepsen has no such histories"
            )
        if key is None:
            yield _line(op, op.value if about is None else [about, op.value])
        elif about == key:
            yield _line(op, op.value)


def edn_text(value: Any) -> str:
    """Return a JSON value, or one with `Keyword`s in it, as EDN on one line."""
    if isinstance(value, Keyword):
        return f":{value}" if _SYMBOL.fullmatch(value) else edn_text(str(value))
    if value is None:
        return "nil"
    if isinstance(value, list | tuple):
        return f"[{' '.join(map(edn_text, value))}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{edn_text(k)} {edn_text(v)}' for k, v in value.items())}}}"
    return msgspec.json.encode(value).decode()


def _line(op: Op, value: Any) -> str:
    fields: dict[Keyword, Any] = {
        Keyword("type"): Keyword(op.type),
        Keyword("f"): Keyword(op.f),
        Keyword("value"): _transaction(value) if op.f == "txn" else value,
        Keyword("process"): op.process if op.is_client else Keyword(op.process),
    }
    if op.time >= 0:
        fields[Keyword("time")] = op.time
    if op.index >= 0:
        fields[Keyword("index")] = op.index
    if op.error is not None:
        fields[Keyword("error")] = _with_code(op.error)
    if op.node is not None:
        fields[Keyword("node")] = op.node
    return edn_text(fields)


def _transaction(value: Any) -> Any:
    """Make keywords of the functions in `[["append", "x", 1], ["r", "x", null]]`."""
    return [_with_code(micro) for micro in value] if isinstance(value, list) else value


def _with_code(value: Any) -> Any:
    """Make a keyword of a string, and of the first of a list."""
    if isinstance(value, str):
        return Keyword(value)
    if isinstance(value, list) and value and isinstance(value[0], str):
        return [Keyword(value[0]), *value[1:]]
    return value
