"""`labrys shrink`: the smallest faults and operations that still fail in the same way."""

import itertools
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from labrys.control.errors import UsageError
from labrys.control.interruption import Interruption
from labrys.control.lifecycle import run_test
from labrys.control.shrinking import smaller
from labrys.control.shrinking.command import shrink_and_print
from labrys.control.shrinking.ddmin import ddmin
from labrys.control.shrinking.failure import Failure, Sighting, failure_of, sighting_of
from labrys.control.shrinking.search import Search
from labrys.control.shrinking.story import story
from labrys.control.shrinking.trials import Attempt, Found, Over, Trials, simulated
from labrys.control.spec import Spec, read_spec, resolve
from labrys.control.store import RunDirectory

LABRYS = str(Path(sys.executable).with_name("labrys"))

# ---- Delta debugging -----------------------------------------------------------------------------

Part = frozenset[int]


def parts(items: Sequence[int]) -> list[Part]:
    return [
        frozenset(part)
        for size in range(len(items) + 1)
        for part in itertools.combinations(items, size)
    ]


def shrunk(items: list[int], fails: Callable[[Part], bool]) -> list[int]:
    asked = 0

    def counted(part: list[int]) -> bool:
        nonlocal asked
        asked += 1
        assert part == sorted(part), "the order is kept"
        return fails(frozenset(part))

    found = ddmin(items, counted)
    assert asked <= len(items) ** 2 + 3 * len(items) + 1
    return found


@settings(deadline=None)
@given(cores=st.lists(st.frozensets(st.integers(0, 6)), min_size=1, max_size=4))
def test_where_more_never_hides_a_failure_a_smallest_part_is_found(cores: list[Part]) -> None:
    items = list(range(7))

    def fails(part: Part) -> bool:
        return any(core <= part for core in cores)

    failing = [part for part in parts(items) if fails(part)]
    smallest = [part for part in failing if not any(other < part for other in failing)]
    assert frozenset(shrunk(items, fails)) in smallest


@settings(deadline=None)
@given(failing=st.sets(st.frozensets(st.integers(0, 4)), max_size=20), count=st.integers(1, 5))
def test_whatever_fails_no_single_item_of_the_result_can_be_left_out(
    failing: set[Part], count: int
) -> None:
    items = list(range(count))
    failing.add(frozenset(items))
    found = frozenset(shrunk(items, lambda part: part in failing))
    assert found in failing
    assert len(found) <= 1 or not any(found - {item} in failing for item in found)
    assert (found == frozenset()) == (frozenset() in failing)


def test_of_a_long_list_with_one_cause_few_parts_are_tried() -> None:
    asked: list[int] = []

    def fails(part: list[int]) -> bool:
        asked.append(len(part))
        return 700 in part

    assert ddmin(range(1000), fails) == [700]
    assert len(asked) < 40


# ---- Smaller tests -------------------------------------------------------------------------------


def spec_of(faults: list[dict[str, Any]], operations: list[dict[str, Any]], **fields: Any) -> Spec:
    given = {"env": "sim", "seed": 1, "time_limit": 10.0, **fields}
    return resolve({**given, "fault_plan": faults, "operations": operations})


def kill(at_s: float, *nodes: str, hold_s: float = 1.0) -> dict[str, Any]:
    plan = {"targets": "minority" if len(nodes) > 1 else "named", "nodes": list(nodes)}
    return {"at_s": at_s, "hold_s": hold_s, "kind": "kill", "plan": plan}


def write(at_s: float, worker: int, value: int = 1, key: str = "k0") -> dict[str, Any]:
    return {"at_s": at_s, "worker": worker, "f": "write", "key": key, "value": value}


def times(spec: Spec) -> list[tuple[float, float]]:
    return [(fault.at_s, fault.hold_s) for fault in spec.fault_plan]


def at(spec: Spec) -> list[float]:
    return [each.at_s for each in smaller.operations_of(spec)]


def test_a_test_can_be_cut_after_a_moment() -> None:
    spec = spec_of(
        [kill(1, "n1"), kill(4, "n2", hold_s=3), kill(8, "n1")], [write(1, 0), write(6, 0)]
    )
    cut = smaller.until(spec, 5.0)
    assert (times(cut), at(cut), cut.time_limit) == ([(1, 1), (4, 1)], [1], 5)
    resolve(msgspec.to_builtins(cut))


def test_a_span_of_time_is_taken_out_of_everything() -> None:
    spec = spec_of(
        [kill(1, "n1", hold_s=4), kill(7, "n2")], [write(2, 0), write(3.5, 0), write(9, 0)]
    )
    assert smaller.moments(spec) == [0, 1, 2, 3.5, 5, 7, 8, 9, 10]
    short = smaller.without_span(spec, 3.0, 4.0)
    assert times(short) == [(1, 3), (6, 1)]
    assert at(short) == [2, 3, 8]
    assert short.time_limit == 9


@settings(deadline=None)
@given(
    moments=st.lists(st.floats(0, 9), min_size=1, max_size=6, unique=True),
    span=st.tuples(st.floats(0, 10), st.floats(0, 10)),
)
def test_nothing_overtakes_anything_when_time_is_taken_out(
    moments: list[float], span: tuple[float, float]
) -> None:
    spec = spec_of([], [write(at_s, 0) for at_s in moments])
    short = smaller.without_span(spec, min(span), max(span))
    resolve(msgspec.to_builtins(short))
    before = sorted(range(len(moments)), key=lambda place: at(spec)[place])
    assert [at(short)[place] for place in before] == sorted(at(short))
    assert all(new <= round(old, 3) for old, new in zip(at(spec), at(short), strict=True))


def test_a_smaller_cluster_has_other_names_and_no_faults_of_nobody() -> None:
    grudge = {"n1": ["n2", "n5"], "n2": ["n1"], "n5": ["n1"]}
    faults = [
        kill(1, "n1", "n4"),
        kill(3, "n1"),
        {"at_s": 5, "hold_s": 1, "kind": "kill", "plan": {"targets": "leader", "fallback": "n3"}},
        {
            "at_s": 5,
            "hold_s": 1,
            "kind": "partition",
            "plan": {"shape": "halves", "grudge": grudge},
        },
    ]
    # Workers 3 and 8 talk to n4, 4 to n5, 0 to n1.
    operations = [write(1, 3), write(2, 8), write(3, 4), write(4, 0)]
    spec = spec_of(faults, operations)
    assert smaller.by_mention(spec)[:3] == ["n4", "n1", "n5"]
    small = smaller.on_nodes(spec, ["n4", "n5", "n2"])
    resolve(msgspec.to_builtins(small))
    assert (small.nodes, small.concurrency) == (3, 4)
    assert [each.worker for each in smaller.operations_of(small)] == [0, 3, 1]
    assert [fault.plan for fault in small.fault_plan] == [
        {"targets": "named", "nodes": ["n1"]},
        {"targets": "leader", "fallback": "n1"},
    ]
    merged = smaller.on_nodes(spec, spec.node_names, is_one_worker_each=True)
    assert merged.concurrency == 5
    assert [each.worker for each in smaller.operations_of(merged)] == [3, 3, 4, 0]


def test_a_fault_can_spare_a_node() -> None:
    spec = spec_of([kill(1, "n1", "n4"), kill(3, "n2")], [])
    spared = [[fault.plan for fault in each.fault_plan] for each in smaller.sparing(spec)]
    one, other, rest = (kill(1, node)["plan"] for node in ("n4", "n1", "n2"))
    assert spared == [[one, rest], [other, rest]]


# ---- Trials and search ---------------------------------------------------------------------------


def sees(fails: Callable[[Spec], bool], key: str | None = None) -> Attempt:
    return lambda spec: Sighting("it fails", key, 99.0) if fails(spec) else None


def test_seeds_are_tried_in_order_and_none_twice() -> None:
    tried: list[int | None] = []

    def fails(spec: Spec) -> bool:
        tried.append(spec.seed)
        return spec.seed == 7

    trials = Trials(sees(fails))
    spec = spec_of([], [])
    assert trials.search(spec, 3) is None
    found = trials.search(spec, 10)
    assert found is not None
    assert found.spec == msgspec.structs.replace(spec, seed=7)
    assert tried == [1, 2, 3, 4, 5, 6, 7]
    assert trials.count == 7


def test_several_at_once_find_the_same_seed() -> None:
    for at_once in (1, 2, 3, 50):
        trials = Trials(sees(lambda spec: spec.seed in (5, 6, 30)), at_once=at_once)
        found = trials.search(spec_of([], []), 20)
        assert found is not None
        assert found.spec.seed == 5


def test_nothing_is_tried_any_more_when_time_is_over() -> None:
    trials = Trials(sees(lambda spec: False), is_over=lambda: trials.count >= 3)
    with pytest.raises(Over):
        trials.search(spec_of([], []), 20)
    assert trials.count == 3
    with pytest.raises(Over):
        trials.search(spec_of([], [write(1, 0)]), 20)
    assert trials.count == 3


def test_what_its_faults_say_cannot_be_run_does_not_fail(tmp_path: Path) -> None:
    flap = {"at_s": 1, "hold_s": 1, "kind": "flap", "plan": {"targets": "all", "nodes": ["n1"]}}
    spec = msgspec.structs.replace(spec_of([flap], [], nodes=3), nodes=1)
    assert simulated(Failure("raft", "liveness"), tmp_path)(spec) is None


def test_what_cannot_be_run_is_not_tried() -> None:
    trials = Trials(sees(lambda spec: True))
    spec = spec_of([], [write(1, 3)])
    assert trials.search(msgspec.structs.replace(spec, concurrency=2), 5) is None
    assert trials.count == 0


def needs(spec: Spec) -> bool:
    """It takes a kill of n2 and a later write at n4, five nodes, and a third of all seeds."""
    hurt = [f.until_s for f in spec.fault_plan if "n2" in (f.plan or {}).get("nodes", [])]
    late = [o for o in smaller.operations_of(spec) if o.worker % spec.nodes == 3 and o.key == "k0"]
    is_late = any(o.at_s >= min(hurt, default=99) for o in late)
    return is_late and spec.nodes >= 5 and (spec.seed or 0) % 3 == 0


def busy() -> Spec:
    faults = [kill(2 * turn, "n1", f"n{turn + 1}", hold_s=1) for turn in range(5)]
    operations = [
        write(0.09 * turn, turn % 10, turn + 1, f"k{turn // 4 % 2}") for turn in range(110)
    ]
    return spec_of(faults, operations, seed=3, system_options={"snapshot-entries": 50})


def test_the_search_leaves_what_it_takes_and_no_more() -> None:
    found = Found(busy(), Sighting("it fails", "k0", 9.9))
    assert needs(found.spec)
    search = Search(found, Trials(sees(needs, "k0")), tries_max=9)
    search.run()
    best = search.best.spec
    assert needs(best)
    assert [fault.plan for fault in best.fault_plan] == [kill(0, "n2")["plan"]]
    assert [each.worker for each in smaller.operations_of(best)] == [3]
    assert (best.nodes, best.concurrency, best.system_options) == (5, 4, {})
    assert best.time_limit < 0.1
    assert resolve(msgspec.to_builtins(best)) == best


def limited(attempts: int) -> Trials:
    trials = Trials(sees(needs, "k0"), is_over=lambda: trials.count >= attempts)
    return trials


def test_the_search_can_end_at_any_time_with_the_smallest_so_far() -> None:
    sizes = []
    for attempts in (0, 1, 3, 10, 30, 100):
        trials = limited(attempts)
        search = Search(Found(busy(), Sighting("it fails", "k0", 9.9)), trials, tries_max=9)
        with suppress(Over):
            search.run()
        assert trials.count <= attempts
        assert needs(search.best.spec)
        best = search.best.spec
        sizes.append((len(best.fault_plan), len(smaller.operations_of(best))))
    assert sizes[0] == (5, 110)
    assert sizes == sorted(sizes, reverse=True)


# ---- Whole runs ----------------------------------------------------------------------------------


def run(folder: Path, **fields: Any) -> tuple[RunDirectory, dict[str, Any]]:
    spec = resolve({"env": "sim", "nodes": 3, "time_limit": 4.0, "rate": 20.0, "seed": 1, **fields})
    outcome = run_test(spec, folder, interruption=Interruption(), say=lambda line: None)
    return outcome.run, outcome.results


@pytest.fixture(scope="module")
def torn(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, dict[str, Any]]:
    """A run in which nodes lose the tails of their logs."""
    return run(
        tmp_path_factory.mktemp("runs"), bug="lose-tail",
        faults={"kill": {"targets": ["all"]}, "pause": {}}, fault_interval=1.0,
    )  # fmt: skip


@pytest.fixture(scope="module")
def stale(tmp_path_factory: pytest.TempPathFactory) -> tuple[RunDirectory, dict[str, Any]]:
    """A run with stale reads, which are what was asked for: no promise is broken."""
    options = {"consistency": "stale"}
    return run(tmp_path_factory.mktemp("runs"), workload_options=options, rate=100.0)


def labrys(*words: str) -> "subprocess.CompletedProcess[str]":
    return subprocess.run([LABRYS, *words], capture_output=True, text=True, check=False)


def test_a_failure_is_its_checker_and_its_kind(
    torn: tuple[RunDirectory, dict[str, Any]], stale: tuple[RunDirectory, dict[str, Any]]
) -> None:
    broken = failure_of(torn[1])
    assert broken is not None
    assert broken.checker == "raft"
    sighting = sighting_of(broken, *torn)
    assert sighting is not None
    assert f": {broken.kind}: " in sighting.message  # the name of a promise
    assert 0 < sighting.ended_s < torn[1]["duration_s"]
    assert sighting_of(broken, *stale) is None
    assert failure_of(stale[1]) == Failure("linearizable", "")
    seen = sighting_of(Failure("linearizable", ""), *stale)
    assert seen is not None
    assert seen.key is not None
    assert f'key "{seen.key}" is not linearizable' in seen.message
    assert failure_of({"checkers": {"stats": {"verdict": "unknown"}}}) is None


def test_a_broken_promise_is_shrunk_to_a_spec_that_breaks_it_again(
    torn: tuple[RunDirectory, dict[str, Any]], tmp_path: Path
) -> None:
    words = ("--tries", "3", "--jobs", "1", "--json", "--runs-dir", str(tmp_path))
    done = labrys("shrink", str(torn[0].path), *words)
    assert done.returncode == 0, done.stdout + done.stderr
    told = json.loads(done.stdout)
    failure = failure_of(torn[1])
    assert failure is not None
    assert told["failure"] == msgspec.to_builtins(failure)
    assert told["after"]["faults"] == 1
    assert told["before"]["faults"] > 1
    assert told["after"]["operations"] < told["before"]["operations"]
    assert [line for line in told["story"] if " kill: n1" in line and " (killed)" in line]
    assert (tmp_path / "latest").resolve() == Path(told["path"])
    assert (Path(told["path"]) / "report.html").exists()
    again = run_test(
        resolve(read_spec(Path(told["spec"]))),
        tmp_path / "again",
        interruption=Interruption(),
        say=lambda line: None,
    )
    assert failure_of(again.results) == failure
    assert (
        story(again.run, again.results, _seen(failure, again.run, again.results)) == told["story"]
    )


def _seen(failure: Failure, run: RunDirectory, results: dict[str, Any]) -> Sighting:
    sighting = sighting_of(failure, run, results)
    assert sighting is not None
    return sighting


def test_stale_reads_are_shrunk_to_few_operations_and_told_as_a_story(
    stale: tuple[RunDirectory, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = shrink_and_print(
        str(stale[0].path), tmp_path, tries=3, seconds=60, jobs=1, as_json=False
    )
    assert code == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[1] == "failure    linearizable"
    assert lines[3].startswith("after      0 faults, ")
    spec_file = Path(next(line for line in lines if line.startswith("re-run")).split()[-1])
    spec = resolve(read_spec(spec_file))
    assert len(smaller.operations_of(spec)) <= 4
    text = spec_file.read_text()
    assert "becomes leader in term" in text
    assert "read k" in text
    assert "is not linearizable" in text


def test_a_signal_keeps_the_smallest_so_far(
    torn: tuple[RunDirectory, dict[str, Any]],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    count = 0

    def interrupting(failure: Failure, folder: Path) -> Attempt:
        attempt = simulated(failure, folder)

        def interrupted(spec: Spec) -> Sighting | None:
            nonlocal count
            count += 1
            if count == 2:
                os.kill(os.getpid(), signal.SIGINT)
            return attempt(spec)

        return interrupted

    monkeypatch.setattr("labrys.control.shrinking.command.simulated", interrupting)
    code = shrink_and_print(str(torn[0].path), tmp_path, tries=3, seconds=60, jobs=1, as_json=False)
    assert code == 130
    assert count == 2
    assert "2 tries" in (told := capsys.readouterr().out)
    assert "interrupted: this is the smallest so far" in told
    assert len(list(tmp_path.glob("*/*Z-*/shrunk.yaml"))) == 1


def test_a_run_that_does_not_fail_again_is_told(
    torn: tuple[RunDirectory, dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As if the version of labrys that made it had the bug."""
    other = RunDirectory(tmp_path / "run")
    other.path.mkdir()
    for name in ("history.jsonl", "faults.jsonl", "results.json", "nodes"):
        (other.path / name).symlink_to(torn[0].path / name)
    text = (torn[0].path / "test.yaml").read_text()
    (other.path / "test.yaml").write_text(text.replace("bug: lose-tail", "bug: null"))
    code = shrink_and_print(str(other.path), tmp_path, tries=2, seconds=9, jobs=1, as_json=False)
    assert code == 3
    assert "it does not fail so again, with 2 seeds" in capsys.readouterr().err


def test_what_cannot_be_shrunk_is_refused(tmp_path: Path) -> None:
    fine, _ = run(tmp_path, time_limit=1.0)

    def refused(reference: str) -> str:
        with pytest.raises(UsageError) as caught:
            shrink_and_print(reference, tmp_path, tries=1, seconds=1, jobs=1, as_json=False)
        return str(caught.value)

    assert "only an invalid run is shrunk" in refused(str(fine.path))
    assert "no run there" in refused("nowhere")
    fine.results.unlink()
    assert "it has no verdict" in refused(str(fine.path))
    spec = fine.path / "test.yaml"
    spec.write_text(spec.read_text().replace("env: sim", "env: netns"))
    assert "only a simulated run can be shrunk" in refused(str(fine.path))
    spec.unlink()
    assert "this is a bare history" in refused(str(fine.path))
