"""`labrys check`: judge stored runs and bare history files again, offline."""

from typing import Any

import msgspec

from labrys.checkers.verdict import CheckResult, Verdict


class Checked(msgspec.Struct, frozen=True):
    """What was found out about one path."""

    path: str
    verdict: Verdict
    checkers: dict[str, CheckResult]
    readings: dict[str, Any]
    """How the file was read: format, model and the choices that can change a verdict."""
