"""A suite file as it is written: every key and value checked, with its place for messages.

name: nightly                    # by default the file's own name
seed: 1                          # the same night again; drawn if not given
test: {time_limit: 60}           # what all tests have in common: any fields of a test
matrix:                          # a test for each combination
  faults: [none, kill, "partition,kill:leader"]
  env: [sim, docker]
  nodes: [3, 5]
include: [{faults: power, env: docker, weight: 2}]     # more tests, each by itself
exclude: [{faults: none, nodes: 3}]                    # not these of the matrix
weights: [{env: sim, weight: 5}]                       # five runs of each for one of others
"""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final

import msgspec

from labrys.control.errors import UsageError
from labrys.control.faults_notation import parse_faults_notation
from labrys.control.names import known
from labrys.control.nemesis.nemesis import PACKAGES
from labrys.control.spec import NAME, Spec
from labrys.control.yaml_file import YamlFile

KEYS: Final = ("name", "seed", "test", "matrix", "include", "exclude", "weights")
WEIGHT_MAX: Final = 1_000

_FIELDS: Final = tuple(field for field in Spec.__struct_fields__ if field != "name")
_WEIGHT: Final = "weight"

Steps = tuple[str | int, ...]
"""Keys and places that lead to a part of the file: `matrix`, `faults`, 1."""


class Value(msgspec.Struct, frozen=True):
    """What a field of a test is to be, and where that stands."""

    value: Any
    where: Steps


Fields = dict[str, Value]


class SuiteFile:
    """The parts of a suite file. Each field is of the right type; what it means is not checked."""

    def __init__(self, file: YamlFile, path: Path) -> None:
        """Take the file apart. Raises UsageError naming the place."""
        self._file = file
        self._path = path
        content = self._mapping((), file.content)
        for key in content:
            self._assert_known((key,), KEYS)
        self.name = self._name(content.get("name", path.stem))
        self.seed = self._seed(content.get("seed"))
        self.test = self._fields(("test",), content.get("test", {}), _FIELDS)
        self.matrix = dict(self._axes(content.get("matrix", {})))
        self.include_weights: dict[Steps, int] = {}
        """The weights that included tests have of their own, by their places."""
        self.include: list[Fields] = []
        for steps, entry, weight in self._entries("include", content, ("name", *_FIELDS, _WEIGHT)):
            self.include.append(entry)
            if weight is not None:
                self.include_weights[steps] = weight
        self.exclude: list[Fields] = [
            entry for _, entry, _ in self._entries("exclude", content, _FIELDS)
        ]
        self.weights: list[tuple[Fields, int]] = []
        for steps, entry, weight in self._entries("weights", content, (*_FIELDS, _WEIGHT)):
            if weight is None:
                raise self.wrong(steps, "has no weight; write, e.g., {env: sim, weight: 5}")
            self.weights.append((entry, weight))

    def wrong(self, steps: Steps, message: str) -> UsageError:
        """Return the error that says `message` of a part of the file."""
        return UsageError(f"{self.place(steps)}: {message}")

    def place(self, steps: Steps) -> str:
        """Return file, line and path of a part: `nightly.yaml:7: matrix.faults[1]`."""
        path = ""
        for step in steps:
            path += f"[{step}]" if isinstance(step, int) else f"{'.' if path else ''}{step}"
        where = self._file.where(*steps)
        return f"{where}: {path}" if path else where

    def _name(self, name: Any) -> str:
        if not isinstance(name, str) or not NAME.fullmatch(name):
            raise self.wrong(
                ("name",),
                f"{name!r} cannot name a folder; use up to 80 letters, digits and . _ , + -",
            )
        return name

    def _seed(self, seed: Any) -> int | None:
        if seed is not None and (type(seed) is not int or seed < 0):
            raise self.wrong(("seed",), f"{seed!r}: must be a whole number, not negative")
        return seed

    def _axes(self, matrix: Any) -> Iterator[tuple[str, list[Value]]]:
        for field, values in self._mapping(("matrix",), matrix).items():
            steps: Steps = ("matrix", field)
            self._assert_known(steps, _FIELDS)
            if not isinstance(values, list):
                raise self.wrong(steps, f"write a list of values such as [{values}]")
            if not values:
                raise self.wrong(
                    steps, "an empty list leaves no test; name a value or leave it out"
                )
            yield (
                field,
                [self._value(field, value, (*steps, place)) for place, value in enumerate(values)],
            )

    def _entries(
        self, noun: str, content: Mapping[str, Any], allowed: tuple[str, ...]
    ) -> Iterator[tuple[Steps, Fields, int | None]]:
        entries = content.get(noun, [])
        if not isinstance(entries, list):
            raise self.wrong((noun,), "write a list such as [{env: sim, nodes: 3}]")
        for number, entry in enumerate(entries):
            steps: Steps = (noun, number)
            given = dict(self._mapping(steps, entry))
            if not given:
                raise self.wrong(steps, "is empty; write, e.g., {env: sim, nodes: 3}")
            for key in given:
                self._assert_known((*steps, key), allowed)
            weight = given.pop(_WEIGHT, None)
            if weight is not None and (type(weight) is not int or not 1 <= weight <= WEIGHT_MAX):
                raise self.wrong(
                    (*steps, _WEIGHT), f"{weight!r}: must be a whole number from 1 to {WEIGHT_MAX}"
                )
            yield steps, self._fields(steps, given, allowed), weight

    def _fields(self, steps: Steps, mapping: Any, allowed: tuple[str, ...]) -> Fields:
        fields: Fields = {}
        for field, value in self._mapping(steps, mapping).items():
            self._assert_known((*steps, field), allowed)
            fields[field] = self._value(field, value, (*steps, field))
        return fields

    def _value(self, field: str, value: Any, steps: Steps) -> Value:
        """Check that a field of a test can have this value; faults may be in the short form."""
        if field == "faults" and isinstance(value, str):
            value = parse_faults_notation(value, self.place(steps))
        try:
            checked = msgspec.convert({field: value}, Spec)
        except msgspec.ValidationError as error:
            raise self.wrong(steps, str(error).removesuffix(f" - at `$.{field}`")) from error
        for kind in value if field == "faults" else ():
            known("fault", kind, ("all", *PACKAGES), where=self.place(steps))
        return Value(msgspec.to_builtins(getattr(checked, field)), steps)

    def _mapping(self, steps: Steps, value: Any) -> Mapping[Any, Any]:
        if not isinstance(value, dict):
            raise self.wrong(steps, f"write a mapping of keys to values, not {repr(value)[:80]}")
        return value

    def _assert_known(self, steps: Steps, allowed: tuple[str, ...]) -> None:
        known("key", str(steps[-1]), allowed, where=self.place(steps), list_all=True)


def read_suite_file(path: Path) -> SuiteFile:
    """Return the parts of the file at `path`. Raises UsageError naming file, line and path."""
    return SuiteFile(YamlFile(path, "suite"), path)
