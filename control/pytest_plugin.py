"""The pytest plugin: runs as tests, and clusters for tests that are written by hand.

pytest loads this module in every session, so it costs nothing until a test asks for labrys: all
else is imported then. docs/pytest.md tells how it is used.
"""

import os
import re
import shlex
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NoReturn

import pytest

if TYPE_CHECKING:
    from labrys.control.testing.cluster import Cluster, Judged
    from labrys.control.testing.marked import Run, Wishes

MARK: Final = "labrys"
_RUN, _CLUSTER = "labrys_run", "cluster"
_MADE: Final = pytest.StashKey["Cluster"]()
_NAME_CHARS_MAX: Final = 80
_HELP: Final = (
    "labrys(workload=..., faults=..., time_limit=..., env=..., nodes=..., ...): run this test of "
    "labrys, all of whose fields can be given, and fail unless its verdict is valid; on a test "
    "that takes the fixture `cluster`: what that is to be."
)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the options, all of which begin with `--labrys-`."""
    group = parser.getgroup("labrys", "labrys: fault injection")
    group.addoption(
        "--labrys-env",
        metavar="ENV",
        help="where the nodes live, whatever marks say: auto, docker, netns, ssh or sim "
        "(of tests that do not say: netns where it works, else sim)",
    )
    group.addoption(
        "--labrys-seed",
        type=int,
        metavar="N",
        help="the seed, whatever marks say (of tests that do not say: drawn)",
    )
    group.addoption(
        "--labrys-runs-dir", default="runs", metavar="DIR", help="where runs are kept (runs)"
    )
    group.addoption(
        "--labrys-unknown",
        choices=("fail", "xfail", "skip"),
        default="fail",
        help="what a test is whose verdict is unknown (fail); never passed",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Make the mark known."""
    config.addinivalue_line("markers", _HELP)


def pytest_itemcollected(item: pytest.Item) -> None:
    """Let a marked test have its run without asking for it, unless it takes a cluster."""
    if isinstance(item, pytest.Function) and item.get_closest_marker(MARK) is not None:
        names = item.fixturenames
        if _CLUSTER not in names and _RUN not in names:
            names.append(_RUN)


@pytest.fixture
def labrys_run(request: pytest.FixtureRequest) -> "Run":
    """The run of a test with the mark `labrys`: its verdict, results, history and directory."""
    from labrys.checkers.verdict import Verdict
    from labrys.control.errors import LabrysError
    from labrys.control.testing.marked import run_marked

    try:
        run = run_marked(_name(request.node), _given(request.node), _wishes(request.config))
    except LabrysError as error:
        pytest.fail(f"labrys: error: {error}", pytrace=False)
    if run.verdict is Verdict.ERROR:
        # In the set-up, so that pytest calls it an error and not a failure.
        _fail(run)
    return run


@pytest.fixture
def cluster(request: pytest.FixtureRequest) -> "Iterator[Cluster]":
    """A running cluster to be hurt by hand; what its clients saw is judged after the test."""
    from labrys.control.errors import LabrysError
    from labrys.control.testing.marked import make_cluster

    node = request.node
    try:
        made = make_cluster(_name(node), _given(node), _wishes(node.config), _command(node))
        try:
            made.begin()
        except BaseException as error:
            made.end()
            if isinstance(error, LabrysError):
                error.add_note(f"what the nodes said is in {made.run.path}/nodes")
            raise
    except LabrysError as error:
        notes = "".join(f"\n  {note}" for note in getattr(error, "__notes__", ()))
        pytest.fail(f"labrys: error: {error}{notes}", pytrace=False)
    node.stash[_MADE] = made
    try:
        yield made
    finally:
        made.end()
        if made.failures:
            pytest.fail(f"labrys: error: {'; '.join(made.failures)}", pytrace=False)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, None, None]:
    """Fail before the test for the verdict of its run, after it for that of its cluster."""
    __tracebackhide__ = True  # tests that have nothing to do with labrys pass here, too
    run: Run | None = getattr(item, "funcargs", {}).get(_RUN)
    if run is not None:
        _conclude(item, run)
    made = item.stash.get(_MADE, None)
    try:
        yield
    except (Exception, pytest.fail.Exception) as error:
        if made is None:
            raise
        made.end()
        judged = made.judge()
        if judged.verdict == "invalid":
            # What was seen to be wrong is worth more than that the test did not bear it.
            _fail(judged, f"The test failed, too: {type(error).__name__}: {error}")
        item.add_report_section("call", "labrys", judged.told)
        raise
    if made is not None:
        made.end()
        judged = made.judge()
        if not (made.failures and judged.verdict == "error"):  # the fixture tells those
            _conclude(item, judged)


def _conclude(item: pytest.Item, judged: "Run | Judged") -> None:
    from labrys.checkers.verdict import Verdict

    if judged.verdict is Verdict.VALID:
        return
    how = item.config.getoption("--labrys-unknown")
    if judged.verdict is Verdict.UNKNOWN and how == "xfail":
        pytest.xfail(judged.reason)
    if judged.verdict is Verdict.UNKNOWN and how == "skip":
        pytest.skip(f"unknown: {judged.reason}")
    _fail(judged)


def _fail(judged: "Run | Judged", *more: str) -> NoReturn:
    # The first line is what pytest's summary shows.
    first = f"{judged.verdict.upper()}: {judged.reason}"
    pytest.fail("\n".join([first, *more, judged.told]), pytrace=False)


def _name(item: pytest.Item) -> str:
    """The name of the folder of a test's runs."""
    return re.sub(r"[^A-Za-z0-9._,+-]+", "-", item.name).strip("-")[:_NAME_CHARS_MAX]


def _command(item: pytest.Item) -> str:
    """The command that runs a test, from where pytest was started."""
    file = os.path.relpath(item.path, item.config.invocation_params.dir)
    return shlex.join(["pytest", f"{file}::{item.nodeid.partition('::')[2]}"])


def _given(item: pytest.Item) -> dict[str, Any]:
    """What the marks of a test say; what stands nearer to it overrides."""
    given: dict[str, Any] = {}
    for mark in reversed(list(item.iter_markers(MARK))):
        if mark.args:
            from labrys.control.errors import UsageError

            raise UsageError(f"labrys mark: write field=value, not {mark.args[0]!r}")
        given |= mark.kwargs
    return given


def _wishes(config: pytest.Config) -> "Wishes":
    from labrys.control.testing.marked import Wishes

    return Wishes(
        runs_dir=config.invocation_params.dir / Path(config.getoption("--labrys-runs-dir")),
        env=config.getoption("--labrys-env"),
        seed=config.getoption("--labrys-seed"),
    )
