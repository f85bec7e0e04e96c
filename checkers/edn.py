"""A small EDN reader: as much of Clojure's data notation as histories use, as JSON values.

Keywords and symbols become strings, lists, vectors and sets become lists, tags are dropped. Written
here because the packages there are neither say on which line a fault is nor read a stream of forms.
"""

import math
import re
from collections.abc import Iterator
from typing import Any, Final, NamedTuple

import msgspec

_TOKEN: Final = re.compile(
    r"""(?P<blank>[\s,]+|;[^\n]*)
      | (?P<discard>\#_)
      | (?P<open>\#\{|[(\[{])
      | (?P<close>[)\]}])
      | (?P<string>"(?:[^"\\]|\\.)*")
      | (?P<tag>\#[A-Za-z][^\s,()\[\]{}";]*)
      | (?P<char>\\(?:[A-Za-z0-9]+|.))
      | (?P<atom>[^\s,()\[\]{}";\\#][^\s,()\[\]{}";\\]*)""",
    re.VERBOSE | re.DOTALL,
)
_INTEGER: Final = re.compile(r"[+-]?\d+N?")
_FLOAT: Final = re.compile(r"[+-]?\d+(\.\d*)?([eE][+-]?\d+)?M?")
_CLOSES: Final = {"(": ")", "[": "]", "{": "}", "#{": "}"}
_CHARS: Final = {"newline": "\n", "space": " ", "tab": "\t", "return": "\r"}
_CONSTANTS: Final = {"nil": None, "true": True, "false": False}


class EdnError(ValueError):
    """Text that is no EDN: `line` counts from 1."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


class _Open(NamedTuple):
    """A collection that is being read."""

    bracket: str
    line: int
    items: list[Any]
    lines: list[int]
    discards: list[int]
    """Lengths of `items` after which the next form is to be thrown away."""


def read_forms(text: str) -> list[tuple[Any, int]]:
    """Return all forms of `text`, each with the line it begins on. Raises `EdnError`."""
    whole, _ = _read(text)
    return list(zip(whole.items, whole.lines, strict=True))


def read_members(text: str) -> list[tuple[Any, int]]:
    """Return what stands in the one list or vector that `text` is, or else all its forms."""
    whole, last = _read(text)
    if len(whole.items) == 1 and last is not None and last.bracket in ("(", "["):
        whole = last
    return list(zip(whole.items, whole.lines, strict=True))


def _read(text: str) -> tuple[_Open, _Open | None]:
    """Return the forms of `text` and its last top-level collection."""
    whole = _Open("", 1, [], [], [])
    last: _Open | None = None
    stack = [whole]
    for kind, token, line in _tokens(text):
        inner = stack[-1]
        if kind == "open":
            stack.append(_Open(token, line, [], [], []))
        elif kind == "discard":
            inner.discards.append(len(inner.items))
        elif kind == "close":
            if len(stack) == 1 or _CLOSES[inner.bracket] != token:
                raise EdnError(f"unexpected {token}", line)
            stack.pop()
            last = inner
            _add(stack[-1], _collection(inner), inner.line)
        elif kind != "tag":
            _add(inner, _atom(kind, token, line), line)
    if len(stack) > 1:
        raise EdnError(f"{stack[-1].bracket} is never closed", stack[-1].line)
    return whole, last


def _tokens(text: str) -> Iterator[tuple[str, str, int]]:
    position, line = 0, 1
    while position < len(text):
        match = _TOKEN.match(text, position)
        if match is None:
            raise EdnError(f"cannot read {text[position : position + 20]!r}", line)
        kind = match.lastgroup
        assert kind is not None, "every alternative has a name"
        if kind != "blank":
            yield kind, match.group(), line
        line += text.count("\n", position, match.end())
        position = match.end()


def _add(inner: _Open, value: Any, line: int) -> None:
    if inner.discards and inner.discards[-1] == len(inner.items):
        inner.discards.pop()
        return
    inner.items.append(value)
    inner.lines.append(line)


def _collection(inner: _Open) -> Any:
    if inner.bracket != "{":
        return inner.items
    if len(inner.items) % 2:
        raise EdnError("a map with a key and no value", inner.line)
    pairs = zip(inner.items[::2], inner.items[1::2], strict=True)
    return {
        key if isinstance(key, str) else msgspec.json.encode(key).decode(): value
        for key, value in pairs
    }


def _atom(kind: str, token: str, line: int) -> Any:
    if kind == "string":
        try:
            return msgspec.json.decode(token.replace("\n", "\\n").replace("\t", "\\t"))
        except msgspec.DecodeError as error:
            raise EdnError(f"string {token[:40]}: {error}", line) from None
    if kind == "char":
        return _CHARS.get(token[1:], token[1:])
    if token in _CONSTANTS:
        return _CONSTANTS[token]
    if _INTEGER.fullmatch(token):
        return int(token.rstrip("N"))
    if _FLOAT.fullmatch(token):
        number = float(token.rstrip("M"))
        if math.isinf(number):  # JSON has no such value: it would be written as null
            raise EdnError(f"number out of range: {token[:40]}", line)
        return number
    return token.removeprefix(":")
