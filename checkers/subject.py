"""One object's operations, ready for a search."""

from collections.abc import Sequence
from typing import NamedTuple

from labrys.checkers.budget import Budget
from labrys.checkers.history import Operation
from labrys.checkers.models.model import Model, described
from labrys.checkers.register_search import Registers, RegisterSearch, registers
from labrys.checkers.search import Search
from labrys.checkers.steps import Compiler, Steps
from labrys.checkers.text import json_text


class Subject(NamedTuple):
    """One object: its operations as they were and as the search sees them, side by side."""

    key: str | None
    part: str | None
    """Which part of the object under the key, where it was split further."""
    model: Model
    steps: Steps
    operations: Sequence[Operation]
    table: Registers | None
    """What the classes do, if the object is a register."""

    def search(self, budget: Budget, steps: Steps | None = None) -> Search:
        """Return a fresh search over all steps, or over others of the same classes."""
        steps = self.steps if steps is None else steps
        if self.table is None:
            return Search(self.model, steps, budget)
        return RegisterSearch(self.model, steps, budget, self.table)

    def name(self) -> str:
        """Return how to call the object: `key "k7"`."""
        what = "the history" if self.key is None else f"key {json_text(self.key)}"
        return what if self.part is None else f"{self.part} in {what}"

    def told(self, number: int) -> str:
        """Return one operation in words: `1219 process 3 read -> 5 at 12.41 s`."""
        operation, step = self.operations[number], self.steps[number]
        text = f"{operation.call} process {operation.process} {described(step.action)}"
        completion = operation.completion
        if step.ret is None:
            return f"{text}{at(operation.invoke.time)}, outcome unknown"
        return f"{text}{at(completion.time if completion else -1)}"


def subjects(model: Model, keys: dict[str | None, list[Operation]]) -> list[Subject]:
    """Return the objects of a history, one for each key and each part that stands by itself.

    Raises `HistoryError` for an operation that is none of the model.
    """
    compiler = Compiler(model)
    found = []
    for key, operations in keys.items():
        parts: Sequence[tuple[str | None, list[Operation]]] = [(None, operations)]
        for part, some in model.parts(operations) or parts:
            found.append((key, part, *compiler.steps(some)))
    table = registers(model, compiler.classes)
    return [Subject(key, part, model, steps, kept, table) for key, part, steps, kept in found]


def at(time_ns: int) -> str:
    """Return ` at 12.41 s`, or nothing when the time is not known."""
    return f" at {time_ns / 1e9:.2f} s" if time_ns >= 0 else ""
