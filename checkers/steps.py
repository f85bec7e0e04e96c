"""The operations of one object as columns: what every search works on.

A history of a million operations is too many objects. Here an operation is a number, its action one
of few numbered classes, and its interval two integers.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final, NamedTuple, overload

from labrys.checkers.history import FOREVER, Operation
from labrys.checkers.models.model import Action, Model
from labrys.checkers.op import OpType


class Step(NamedTuple):
    """One operation as a search sees it. `call` and `ret` are indices into the history."""

    action: Action
    call: int
    ret: int | None
    """None: crashed."""


class Classes:
    """The distinct actions of a history, numbered. Operations of one class are interchangeable."""

    def __init__(self) -> None:
        self.actions: list[Action] = []
        self._numbers: dict[Action, int] = {}

    def number(self, action: Action) -> int:
        """Return the number of `action`'s class."""
        known = self._numbers.setdefault(action, len(self.actions))
        if known == len(self.actions):
            self.actions.append(action)
        return known


class Steps(Sequence[Step]):
    """Operations of one object in order of call, as columns over numbered classes."""

    __slots__ = ("call", "classes", "of_class", "ret")

    def __init__(
        self, classes: Classes, of_class: list[int], call: list[int], ret: list[int]
    ) -> None:
        self.classes = classes
        self.of_class = of_class
        self.call = call
        self.ret = ret
        """`FOREVER` for a crashed one."""

    @classmethod
    def of(cls, steps: Iterable[Step], classes: Classes | None = None) -> "Steps":
        """Return `steps` as columns, in order of call."""
        classes = classes or Classes()
        ordered = sorted(steps, key=lambda step: step.call)
        return cls(
            classes,
            [classes.number(step.action) for step in ordered],
            [step.call for step in ordered],
            [FOREVER if step.ret is None else step.ret for step in ordered],
        )

    def __len__(self) -> int:
        return len(self.call)

    @overload
    def __getitem__(self, number: int) -> Step: ...
    @overload
    def __getitem__(self, number: slice) -> Sequence[Step]: ...
    def __getitem__(self, number: int | slice) -> Step | Sequence[Step]:
        if isinstance(number, slice):
            return [self[n] for n in range(*number.indices(len(self)))]
        ret = self.ret[number]
        action = self.classes.actions[self.of_class[number]]
        return Step(action, self.call[number], None if ret == FOREVER else ret)

    def __iter__(self) -> Iterator[Step]:
        return (self[number] for number in range(len(self)))

    def action(self, number: int) -> Action:
        """Return what step `number` does."""
        return self.classes.actions[self.of_class[number]]

    def chosen(self, numbers: Iterable[int]) -> "Steps":
        """Return only the steps `numbers`, which rise."""
        chosen = list(numbers)
        return Steps(
            self.classes,
            [self.of_class[n] for n in chosen],
            [self.call[n] for n in chosen],
            [self.ret[n] for n in chosen],
        )

    def actions(self, *, crashed: bool | None = None) -> list[Action]:
        """Return the distinct actions of these steps; only the (not) crashed ones if asked."""
        if crashed is None:
            found = set(self.of_class)
        else:
            found = {
                c
                for c, ret in zip(self.of_class, self.ret, strict=True)
                if (ret == FOREVER) is crashed
            }
        return [self.classes.actions[c] for c in sorted(found)]

    def events(self) -> list[int]:
        """Return calls and returns in order of time: `n` is the call of step n, `~n` its return."""
        count = len(self.call) + 1
        codes = [call * count + n for n, call in enumerate(self.call)]
        codes += [-(ret * count + n) for n, ret in enumerate(self.ret) if ret != FOREVER]
        codes.sort(key=abs)
        return [code % count if code > 0 or code == 0 else ~(-code % count) for code in codes]


class Compiler:
    """Turns operations into steps of a model; equal ones are looked at only once."""

    def __init__(self, model: Model) -> None:
        self.classes = Classes()
        self._model = model
        self._known: dict[Any, int] = {}
        self._pure: list[bool] = []

    def steps(self, operations: Iterable[Operation]) -> tuple[Steps, list[Operation]]:
        """Return what may have happened to the object, and the operation of each step.

        Failed operations did not happen unless the model says otherwise, and a crashed one without
        an effect has nothing to say. Raises `HistoryError` for an operation the model cannot have.
        """
        model, classes, known, pure = self._model, self.classes, self._known, self._pure
        asserts_failures = model.asserts_failures
        of_class: list[int] = []
        calls: list[int] = []
        returns: list[int] = []
        kept: list[Operation] = []
        for operation in operations:
            invoke = operation.invoke
            completion = operation.completion
            answered: Any = None
            ret = FOREVER
            if completion is not None:
                outcome = completion.type
                if outcome is OpType.OK:
                    answered, ret = completion.value, completion.index
                elif outcome is OpType.FAIL:
                    if not asserts_failures:
                        model.action(operation)  # what no operation of the model is, is an error
                        continue
                    answered, ret = _FAILED, completion.index
            asked = invoke.value
            # Only plain integers and texts are looked up as they are: 1, 1.0 and true are equal to
            # a dict, and lists cannot be hashed.
            key: Any = None
            kind = type(asked)
            if kind is list and len(asked) == 2 and type(asked[0]) is int is type(asked[1]):
                if answered is None or answered is _FAILED or answered == asked:
                    key = (invoke.f, asked[0], asked[1], answered is _FAILED, ret == FOREVER)
            elif (kind is int or asked is None or kind is str) and (
                type(answered) is int or answered is None or type(answered) is str
            ):
                key = (invoke.f, asked, answered, ret == FOREVER)
            number = None if key is None else known.get(key)
            if number is None:
                action = model.action(operation)
                number = -1 if action is None else classes.number(action)
                while len(pure) < len(classes.actions):
                    pure.append(classes.actions[len(pure)].f in model.pure)
                if key is not None and not model.by_process:
                    known[key] = number
            if number < 0 or (ret == FOREVER and pure[number]):
                continue
            of_class.append(number)
            calls.append(invoke.index)
            returns.append(ret)
            kept.append(operation)
        return Steps(classes, of_class, calls, returns), kept


_FAILED: Final = "\0failed"
