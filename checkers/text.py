"""JSON values as text, and as what can stand in a dict."""

from typing import Any

import msgspec


def json_text(value: Any) -> str:
    """Return `value` as canonical JSON: equal values, equal text."""
    return msgspec.json.encode(value, order="sorted").decode()


def as_key(value: Any) -> Any:
    """Return what stands for a JSON value in a dict: 1, true, 1.0 and "1" are four values."""
    kind = type(value)
    return value if kind is int or kind is str else ("\0", json_text(value))


def told(key: Any) -> str:
    """Return what `as_key` made, as JSON text."""
    return str(key[1]) if isinstance(key, tuple) else json_text(key)
