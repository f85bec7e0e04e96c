"""Models of what an object does, by the name that `labrys check --model` takes."""

from collections.abc import Callable
from typing import Final

from labrys.checkers.models.collections import AppendList, Counter, SetModel
from labrys.checkers.models.locks import FencedLock, Mutex, OwnedMutex
from labrys.checkers.models.model import ABSENT, UNSEEN, Action, Illegal, Model, described
from labrys.checkers.models.queues import FifoQueue, Stack, UnorderedQueue
from labrys.checkers.models.registers import CasRegister, Kv, Register
from labrys.checkers.models.transactional import MultiRegister, Txn
from labrys.checkers.text import json_text

MODELS: Final[dict[str, Callable[..., Model]]] = {
    "register": Register,
    "cas-register": CasRegister,
    "multi-register": MultiRegister,
    "kv": Kv,
    "mutex": Mutex,
    "owned-mutex": OwnedMutex,
    "fenced-lock": FencedLock,
    "fifo-queue": FifoQueue,
    "unordered-queue": UnorderedQueue,
    "stack": Stack,
    "set": SetModel,
    "counter": Counter,
    "append": AppendList,
    "txn": Txn,
}
"""Each takes `initial` (a JSON value); the registers `nil_read` and `failed_cas` as well."""

__all__ = [
    "ABSENT",
    "MODELS",
    "UNSEEN",
    "Action",
    "AppendList",
    "CasRegister",
    "Counter",
    "FencedLock",
    "FifoQueue",
    "Illegal",
    "Kv",
    "Model",
    "MultiRegister",
    "Mutex",
    "OwnedMutex",
    "Register",
    "SetModel",
    "Stack",
    "Txn",
    "UnorderedQueue",
    "described",
    "json_text",
]
