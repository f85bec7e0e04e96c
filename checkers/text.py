"""JSON values as text."""

from typing import Any

import msgspec


def json_text(value: Any) -> str:
    """Return `value` as canonical JSON: equal values, equal text."""
    return msgspec.json.encode(value, order="sorted").decode()
