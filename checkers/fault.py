"""The fault event: one line of the fault ledger, `faults.jsonl`."""

from enum import StrEnum
from typing import Any

import msgspec


class FaultStage(StrEnum):
    """How far a fault has come. Each stage is written before the next one is begun."""

    PLANNED = "planned"
    APPLIED = "applied"
    EVIDENCE = "evidence"
    UNDONE = "undone"
    FAILED = "failed"


class FaultEvent(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One step in the life of one fault; events with the same `id` tell its whole story."""

    id: int
    stage: FaultStage
    time: int
    """Nanoseconds since the run began, on the clock of the history."""
    kind: str
    """The fault package: partition, kill, pause."""
    targets: tuple[str, ...] = ()
    """The nodes that are hurt, in order."""
    plan: dict[str, Any] = {}
    """What was intended, e.g. `{"shape": "halves", "grudge": {"n1": ["n3"]}}`."""
    observed: dict[str, Any] = {}
    """Evidence read back, by node, e.g. `{"n1": {"packets": 12}}`."""
    bit: bool | None = None
    """On evidence: whether the fault was seen to take effect. None: nobody looked."""
    error: str | None = None
