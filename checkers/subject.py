"""One object's operations: as they were, and ready for a search where there is need of one."""

from collections.abc import Sequence
from functools import cached_property

from labrys.checkers.budget import Budget
from labrys.checkers.distinct.outcome import NotApplicable
from labrys.checkers.history import Operation
from labrys.checkers.models.model import Model, described
from labrys.checkers.register_search import Registers, RegisterSearch
from labrys.checkers.search import Search
from labrys.checkers.steps import Compiler, Steps
from labrys.checkers.text import json_text


class Reading:
    """How the operations of one history are read: shared by its objects, equal ones read once."""

    def __init__(self, model: Model) -> None:
        self.model = model
        self.compiler = Compiler(model)
        self._table = Registers.empty()

    def table(self) -> Registers | None:
        """Return what the classes so far do to a register; None if some do more than that."""
        if not self.model.is_register:
            return None
        return self._table if self._table.extend(self.model, self.compiler.classes) else None


class Subject:
    """One object: its operations, and the same as a search sees them."""

    def __init__(
        self,
        reading: Reading,
        operations: Sequence[Operation],
        key: str | None = None,
        part: str | None = None,
    ) -> None:
        """Take what was done to the object under `key`, or to a `part` of it that stands by itself.

        Raises `HistoryError` for an operation that is none of the model.
        """
        self.key = key
        self.part = part
        self.model = reading.model
        self.operations = operations
        """All that were invoked, in order."""
        self.outcome = reading.model.distinct(operations)
        """What is known without a search."""
        self._reading = reading

    def compile(self) -> None:
        """Make the steps now. Raises `HistoryError` for an operation the model cannot have."""
        _ = self._compiled

    @cached_property
    def _compiled(self) -> tuple[Steps, list[Operation]]:
        return self._reading.compiler.steps(self.operations)

    @property
    def steps(self) -> Steps:
        """The operations that say something.

        Made when somebody asks first: an object with distinct values seldom needs them.
        """
        return self._compiled[0]

    @property
    def kept(self) -> Sequence[Operation]:
        """The operation of each step."""
        return self._compiled[1]

    @property
    def table(self) -> Registers | None:
        """What the classes do, if the object is a register."""
        return self._reading.table()

    def search(self, budget: Budget, steps: Steps | None = None) -> Search:
        """Return a fresh search over all steps, or over others of the same classes."""
        steps = self.steps if steps is None else steps
        table = self.table
        if table is None:
            return Search(self.model, steps, budget)
        return RegisterSearch(self.model, steps, budget, table)

    def name(self) -> str:
        """Return how to call the object: `key "k7"`."""
        what = "the history" if self.key is None else f"key {json_text(self.key)}"
        return what if self.part is None else f"{self.part} in {what}"

    def told(self, number: int) -> str:
        """Return one operation in words: `1219 process 3 read -> 5 at 12.41 s`."""
        operation, step = self.kept[number], self.steps[number]
        text = f"{operation.call} process {operation.process} {described(step.action)}"
        completion = operation.completion
        if step.ret is None:
            return f"{text}{at(operation.invoke.time)}, outcome unknown"
        return f"{text}{at(completion.time if completion else -1)}"


def subjects(model: Model, keys: dict[str | None, list[Operation]]) -> list[Subject]:
    """Return the objects of a history, one for each key and each part that stands by itself.

    Raises `HistoryError` for an operation that is none of the model.
    """
    reading = Reading(model)
    found = []
    for key, operations in keys.items():
        whole = Subject(reading, operations, key)
        parts = None
        if isinstance(whole.outcome, NotApplicable):
            parts = model.parts(operations)
        if parts is None:
            found.append(whole)
        else:
            found += [Subject(reading, some, key, part) for part, some in parts]
    return found


def at(time_ns: int) -> str:
    """Return ` at 12.41 s`, or nothing when the time is not known."""
    return f" at {time_ns / 1e9:.2f} s" if time_ns >= 0 else ""
