"""`labrys suite`: run a suite in front of somebody, and leave behind what CI reads."""

import secrets
import shlex
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import msgspec

from labrys.checkers.verdict import Verdict
from labrys.control.environments import registry as environments
from labrys.control.errors import MachineError, UsageError
from labrys.control.interruption import Interruption
from labrys.control.lifecycle import describe
from labrys.control.running import without_impossible
from labrys.control.spec import Spec
from labrys.control.store import fresh_folder, point
from labrys.control.suite.attempt import Forked, wait_forked
from labrys.control.suite.cells import Cell, read_suite
from labrys.control.suite.flags import Flags
from labrys.control.suite.night import Night
from labrys.control.suite.plan import (
    SEED_BELOW,
    assert_shard_has_runs,
    passes,
    read_owed,
    still_owed,
    write_owed,
)
from labrys.control.suite.record import Record
from labrys.control.suite.telling import Teller, tell_github
from labrys.control.suite.writing import write_all

SUITES: Final = "suites"
"""The folder of all suites in a runs directory."""
OWED: Final = "owed.json"
"""Which cells go first the next time, beside the folders of a suite."""


def suite_and_print(
    path: Path, runs_dir: Path, flags: Flags, *, environ: Mapping[str, str], as_json: bool
) -> int:
    """Run the suite of the file at `path`, print how each run ended, and return the exit code.

    `environ` tells whether a CI system listens. Raises UsageError and MachineError only before
    the first run.
    """
    told = Teller(as_json=as_json)
    say = told.say
    suite = read_suite(path)
    count = flags.count or (None if flags.policy.until_fail else 1)
    assert_shard_has_runs(suite.cells, count, flags.shard)
    cells = _possible(suite.cells, say)
    seed = next((s for s in (flags.seed, suite.seed) if s is not None), None)
    seed = secrets.randbelow(SEED_BELOW) if seed is None else seed
    home = runs_dir / SUITES / suite.name
    folder = _make_folder(home, seed)
    owed = read_owed(home / OWED)
    if owed is None:
        say(f"{home / OWED}: cannot be read, so no cell goes first")
    keep = _keep_all if flags.keep_all else _keep_failed

    def start(spec: Spec) -> Forked:
        told.started(str(spec.name))
        return Forked(spec, runs_dir, keep)

    with Interruption().installed() as interruption:
        night = Night(
            passes(cells, seed, count=count, shard=flags.shard, owed=owed or ()),
            flags.policy,
            start=start,
            wait=wait_forked,
            asked=lambda: interruption.count,
            clock=time.monotonic,
        )
        record = Record(
            night,
            folder,
            suite=suite.name,
            seed=seed,
            shard=flags.shard,
            count=count,
            rerun=_rerun(path, seed, flags),
        )
        record.begin()
        told.begin(suite.name, seed, flags.shard, cells, count)
        try:
            for case in night.cases():
                told.result(record.add(case), folder)
        except Exception as error:  # whatever it is, what was run is summed up
            record.fail(describe(error))
        summary = record.finish(was_interrupted=interruption.count > 0)
        left = still_owed(cells, owed or (), record.ran, [*record.cut_short, *night.skipped()])
        failures = [*write_all(summary, folder, say), *_write_owed(home / OWED, left)]
        for failure in failures:
            say(f"not written: {failure}")
        if failures:
            summary = msgspec.structs.replace(summary, failures=failures)
        tell_github(summary, folder, environ, say)
        told.end(summary, folder)
    return summary.exit_code


def _possible(cells: Sequence[Cell], say: Callable[[str], None]) -> tuple[Cell, ...]:
    """Return the cells with their environments chosen. Raises for what cannot be had here."""
    chosen: dict[str, str] = {}
    told: set[str] = set()

    def say_once(line: str) -> None:
        if line not in told:
            told.add(line)
            say(line)

    possible = []
    for cell in cells:
        env = cell.spec.env
        try:
            if env not in chosen:
                chosen[env] = environments.choose(env, say_once)
            spec = msgspec.structs.replace(cell.spec, env=chosen[env])
            spec = without_impossible(spec, say_once)
        except (UsageError, MachineError) as error:
            raise type(error)(f"{cell.told(str(error))}; 'exclude' leaves it out") from error
        possible.append(msgspec.structs.replace(cell, spec=spec))
    return tuple(possible)


def _make_folder(home: Path, seed: int) -> Path:
    stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
    try:
        home.mkdir(parents=True, exist_ok=True)
        folder = fresh_folder(home, f"{stamp}-{seed}")
        point(home / "latest", folder)
    except OSError as error:
        raise MachineError(
            f"{home}: cannot write a suite here: {error.strerror}; "
            "choose another place with --runs-dir"
        ) from error
    return folder


def _write_owed(path: Path, owed: Sequence[str]) -> Iterator[str]:
    try:
        write_owed(path, owed)
    except MachineError as error:
        yield str(error)


def _keep_all(verdict: Verdict) -> bool:
    return True


def _keep_failed(verdict: Verdict) -> bool:
    return verdict is not Verdict.VALID


def _rerun(path: Path, seed: int, flags: Flags) -> str:
    """Return the command for the same runs with the same seeds."""
    words = ["labrys", "suite", str(path), "--seed", str(seed)]
    if flags.count is not None:
        words += ["--count", str(flags.count)]
    if flags.shard.of > 1:
        words += ["--shard", f"{flags.shard.number}/{flags.shard.of}"]
    return shlex.join([*words, *(["--until-fail"] if flags.policy.until_fail else [])])
