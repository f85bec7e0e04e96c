"""The cells of a suite: the tests that a matrix with its includes and excludes stands for."""

import itertools
import re
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from labrys.control.errors import UsageError
from labrys.control.faults_notation import faults_notation, in_one_line
from labrys.control.spec import FLAGS, Spec, resolve
from labrys.control.suite.suite_file import SuiteFile, Value, read_suite_file

CELLS_MAX: Final = 10_000
NAME_CHARS_MAX: Final = 80
"""As long as the name of a test may be."""

_FIELD_OF: Final = {
    **{field: field for field in FLAGS},
    **{flag: field for field, flag in FLAGS.items()},
}
"""Which field an error is about that begins with a word."""

_NOT_IN_A_NAME: Final = re.compile(r"[^A-Za-z0-9._,+-]+")


class Cell(msgspec.Struct, frozen=True):
    """One test of the matrix."""

    name: str
    spec: Spec
    """Resolved, but for the seed, which is None unless the file pins it."""
    faults: str
    """As the file may have them, for tables."""
    weight: int
    """How many runs of it there are in each pass, compared with the others."""
    where: str
    """Where it stands, for messages: file, line and path."""
    places: dict[str, str] = {}
    """Where each of its fields stands."""

    def told(self, problem: str) -> str:
        """Return what is wrong with this test, and where in the file that which is wrong stands."""
        where, rest = _placed(problem, self.places)
        return f"{where or self.where}: {rest} (in the test {self.name})"


class Suite(msgspec.Struct, frozen=True):
    """What a suite file stands for."""

    name: str
    seed: int | None
    cells: tuple[Cell, ...]


class _Draft(msgspec.Struct, frozen=True):
    """A cell before it is resolved: its fields and where each was written."""

    fields: dict[str, Value]
    shared: Mapping[str, Value]
    where: tuple[str | int, ...]

    def plain(self) -> dict[str, Any]:
        return {field: value.value for field, value in (*self.shared.items(), *self.fields.items())}

    def places(self, file: SuiteFile) -> dict[str, str]:
        """Where each field stands."""
        values = {**self.shared, **self.fields}
        return {field: file.place(value.where) for field, value in values.items()}


def read_suite(path: Path) -> Suite:
    """Return the tests that the file at `path` stands for.

    Raises UsageError that names file, line, path and what may stand there.
    """
    file = read_suite_file(path)
    drafts = [*_product(file), *_included(file)]
    if not drafts:
        raise file.wrong((), "there is no test in it: give it a matrix or an include")
    used = [False] * len(file.exclude)
    kept = []
    for draft in drafts:
        matching = [n for n, entry in enumerate(file.exclude) if _matches(draft, entry)]
        for number in matching:
            used[number] = True
        # What is included by hand was meant.
        if not matching or draft.where[0] == "include":
            kept.append(draft)
    _assert_used(file, "exclude", used)
    if not kept:
        raise file.wrong(("exclude",), f"nothing is left of {len(drafts)} tests")
    used = [False] * len(file.weights)
    cells: list[Cell] = []
    taken: set[str] = set()
    for draft in kept:
        weight = 1
        for number, (entry, its_weight) in enumerate(file.weights):
            if _matches(draft, entry):
                used[number] = True
                weight = its_weight
        weight = file.include_weights.get(draft.where, weight)
        name = _unique(_name(draft), taken)
        cells.append(_resolved(file, draft, name, weight))
    _assert_used(file, "weights", used)
    return Suite(name=file.name, seed=file.seed, cells=tuple(cells))


def _product(file: SuiteFile) -> Iterator[_Draft]:
    if not file.matrix:
        return
    count = 1
    for values in file.matrix.values():
        count *= len(values)
    if count > CELLS_MAX:
        raise file.wrong(("matrix",), f"{count} tests; at most {CELLS_MAX} can be in a suite")
    for combination in itertools.product(*file.matrix.values()):
        yield _Draft(dict(zip(file.matrix, combination, strict=True)), file.test, ("matrix",))


def _included(file: SuiteFile) -> Iterator[_Draft]:
    for number, fields in enumerate(file.include):
        yield _Draft(fields, file.test, ("include", number))


def _matches(draft: _Draft, entry: Mapping[str, Value]) -> bool:
    """Whether all that the entry says is so in this cell; what that leaves out has its default."""
    spec = msgspec.convert(draft.plain(), Spec)
    wanted = msgspec.convert({field: value.value for field, value in entry.items()}, Spec)
    return all(getattr(spec, field) == getattr(wanted, field) for field in entry)


def _assert_used(file: SuiteFile, noun: str, used: Sequence[bool]) -> None:
    if not all(used):
        raise file.wrong((noun, used.index(False)), "matches none of the tests")


def _resolved(file: SuiteFile, draft: _Draft, name: str, weight: int) -> Cell:
    fields = draft.plain()
    where, places = file.place(draft.where), draft.places(file)
    cell = Cell(name, Spec(), "", weight, where, places)
    try:
        spec = resolve({**fields, "name": name})
    except UsageError as error:
        raise UsageError(cell.told(str(error))) from error
    return msgspec.structs.replace(
        cell,
        spec=msgspec.structs.replace(spec, seed=fields.get("seed")),
        faults=value_text("faults", spec.faults or list(spec.fault_kinds)),
    )


def _placed(problem: str, places: Mapping[str, str]) -> tuple[str | None, str]:
    """Return where the field stands that a problem begins with, and the rest of the problem."""
    subject, _, rest = problem.partition(":")
    field = _FIELD_OF.get(subject.split(" ")[0], "")
    return places.get(field), rest.strip() if subject in _FIELD_OF and rest else problem


def _name(draft: _Draft) -> str:
    """Name a cell by what it is: `register-kill-docker-5`, and what else is its own."""
    fields = draft.plain()
    if "name" in fields:
        return str(fields["name"])
    spec = msgspec.convert(fields, Spec)
    first = ("workload", "bug", "faults", "env", "nodes")
    parts = [_short(field, getattr(spec, field)) for field in first if getattr(spec, field)]
    parts += [
        f"{field}.{_short(field, value.value)}"
        for field, value in draft.fields.items()
        if field not in first
    ]
    name = "-".join(parts)
    if len(name) <= NAME_CHARS_MAX:
        return name
    return f"{name[: NAME_CHARS_MAX - 9]}-{zlib.crc32(name.encode()):08x}"


def _unique(name: str, taken: set[str]) -> str:
    """Tell cells apart that differ only in what a name does not say."""
    fresh = name
    for number in itertools.count(2):
        if fresh not in taken:
            break
        fresh = f"{name[: NAME_CHARS_MAX - 6]}-{number}"
    taken.add(fresh)
    return fresh


def value_text(field: str, value: Any) -> str:
    """Return the value of a field as the file may have it, in a line."""
    if field == "faults":
        return faults_notation(value) or "none"
    if isinstance(value, float):
        return f"{value:g}"
    return str(value) if isinstance(value, str | int) else in_one_line(value)


def _short(field: str, value: Any) -> str:
    """Return what a name says of the value of a field."""
    text = value_text(field, value)
    if field == "faults":
        # A mapping with all its options is no name.
        text = ",".join(value) if text.startswith("{") else text
        text = text.replace(",", "-").replace(":", ".")
    return _NOT_IN_A_NAME.sub("_", text).strip("_")
