"""Trials: does a test still fail in the same way, with one of a few seeds?

Whatever is taken away shifts what everything after it draws, so one seed says little about a
smaller test: several are tried before it is given up.
"""

from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path

import msgspec

from labrys.control.errors import UsageError
from labrys.control.interruption import Interruption
from labrys.control.pool import MapInOrder
from labrys.control.shrinking.failure import Failure, Sighting, sighting_of
from labrys.control.spec import Spec, resolve

Attempt = Callable[[Spec], Sighting | None]
"""Runs a test; returns how the failure shows that is looked for, None if it does not."""


class Found(msgspec.Struct, frozen=True):
    """A test that fails in the way that is looked for."""

    spec: Spec
    sighting: Sighting


class Over(Exception):
    """There is no time for another attempt."""


class Trials:
    """Runs tests until one fails in the same way, and remembers which it has run."""

    def __init__(
        self,
        attempt: Attempt,
        *,
        run_all: MapInOrder = map,
        at_once: int = 1,
        is_over: Callable[[], bool] = lambda: False,
        tell: Callable[[], None] = lambda: None,
    ) -> None:
        """`run_all` makes `at_once` attempts at a time, after which `tell` is called.

        None is made once `is_over`.
        """
        self._attempt = attempt
        self._run_all = run_all
        self._at_once = at_once
        self._is_over = is_over
        self._tell = tell
        self._passed: dict[bytes, set[int]] = {}
        """The seeds with which a test did not fail, by its digest."""
        self.count = 0
        """Of attempts."""

    def search(self, spec: Spec, tries: int) -> Found | None:
        """Return the test with the first of `tries` seeds, from its own on, with which it fails.

        Raises Over.
        """
        assert spec.seed is not None, "only a resolved spec can be run"
        self._assert_not_over()
        try:
            resolve(msgspec.to_builtins(spec))
        except UsageError:
            return None  # what was taken away cannot be done without
        passed = self._passed.setdefault(_digest(spec), set())
        seeds = [seed for seed in range(spec.seed, spec.seed + tries) if seed not in passed]
        for start in range(0, len(seeds), self._at_once):
            self._assert_not_over()
            some = seeds[start : start + self._at_once]
            specs = [msgspec.structs.replace(spec, seed=seed) for seed in some]
            self.count += len(some)
            sightings = list(self._run_all(self._attempt, specs))
            self._tell()
            for tried, sighting in zip(specs, sightings, strict=True):
                if sighting is not None:
                    return Found(tried, sighting)
            passed.update(some)
        return None

    def _assert_not_over(self) -> None:
        if self._is_over():
            raise Over


def simulated(failure: Failure, folder: Path) -> Attempt:
    """Return the attempt that runs a test in the simulation; `folder` has room for its files."""
    return partial(_simulate, failure, folder)


def _simulate(failure: Failure, folder: Path, spec: Spec) -> Sighting | None:
    from labrys.control.lifecycle import run_test

    try:
        outcome = run_test(
            spec,
            folder,
            interruption=Interruption(),
            say=lambda line: None,
            keep=lambda verdict: True,
            draw=False,
        )
    except UsageError:
        return None  # as in `search`: some faults only say when they are made that they cannot be
    try:
        return sighting_of(failure, outcome.run, outcome.results)
    finally:
        outcome.run.remove()


def _digest(spec: Spec) -> bytes:
    """What tells a test from all others, whatever its seed."""
    return sha256(msgspec.json.encode(msgspec.structs.replace(spec, seed=None))).digest()
