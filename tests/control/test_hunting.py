"""`labrys hunt`: many seeds, the findings kept, everything else only counted."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from labrys.checkers.verdict import Verdict
from labrys.control.nemesis.nemesis import PACKAGES
from labrys.control.tally import Tally
from labrys.control.trial import Hunted
from labrys.node.probes import Probe

LABRYS = Path(sys.executable).with_name("labrys")
SHORT = ("--nodes", "3", "--rate", "50", "--time-limit", "3", "--no-swarm")


def hunt(runs_dir: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    return bare_hunt(runs_dir, *SHORT, *words)


def bare_hunt(runs_dir: Path, *words: str) -> "subprocess.CompletedProcess[str]":
    argv = [str(LABRYS), "hunt", "--runs-dir", str(runs_dir), *words]
    return subprocess.run(argv, capture_output=True, text=True, check=False)


def runs(runs_dir: Path) -> list[str]:
    return sorted(path.parent.name.rpartition("-")[2] for path in runs_dir.glob("*/*Z-*/test.yaml"))


def test_valid_seeds_leave_nothing_behind(tmp_path: Path) -> None:
    done = hunt(tmp_path, "--seeds", "4", "--seed", "1")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "4 of 4 seeds" in done.stdout
    assert done.stdout.endswith("labrys: hunt VALID  exit 0\n")
    assert not runs(tmp_path)
    assert not (tmp_path / "latest").is_symlink()


def test_the_first_finding_ends_it_and_can_be_run_again(tmp_path: Path) -> None:
    done = hunt(tmp_path, "--bug", "early-ack", "--seeds", "50", "--seed", "1")
    assert done.returncode == 1, done.stdout + done.stderr
    (found,) = runs(tmp_path)
    assert f"seed {found}  INVALID  raft: 1 broken invariants: violation" in done.stdout
    again = f"--env sim --nodes 3 --bug early-ack --time-limit 3 --rate 50 --seed {found}"
    assert f"labrys test {again}" in done.stdout
    results = json.loads((tmp_path / "latest/results.json").read_text())
    assert (results["verdict"], results["seed"]) == ("invalid", int(found))
    assert (tmp_path / "latest/report.html").exists()
    shown = subprocess.run(
        [str(LABRYS), "check", "latest", "--runs-dir", str(tmp_path)],
        capture_output=True,
        text=True,
    )
    assert shown.returncode == 1, shown.stdout + shown.stderr


def test_all_seeds_with_a_line_for_each(tmp_path: Path) -> None:
    words = ("--bug", "early-ack", "--seeds", "3", "--seed", "7", "--findings", "0", "--json")
    done = hunt(tmp_path, *words, "--jobs", "1")
    assert done.returncode == 1
    *lines, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(line["seed"], line["verdict"]) for line in lines] == [
        (7, "invalid"), (8, "invalid"), (9, "invalid"),
    ]  # fmt: skip
    assert runs(tmp_path) == ["7", "8", "9"]
    assert (last["hunt"], last["exit"], last["done"]) == ("invalid", 1, 3)
    assert last["verdicts"] == {"invalid": 3}
    labels = {probe.label for probe in Probe}
    assert {*last["probes"], *last["never_reached"]} == labels
    for label, reached in last["probes"].items():
        by_seed = [line["probes"].get(label, 0) for line in lines]
        assert reached == {"seeds": sum(map(bool, by_seed)), "count": sum(by_seed)}


def test_a_bug_alone_is_a_swarm_whose_finding_tells_all_that_was_drawn(tmp_path: Path) -> None:
    done = bare_hunt(tmp_path, "--bug", "early-ack", "--seeds", "50", "--seed", "1", "--rate", "50")
    assert done.returncode == 1, done.stdout + done.stderr
    first = done.stdout.splitlines()[0]
    assert first == "labrys: seed 1  register  bug early-ack  50 seeds, swarm  sim"
    (rerun,) = re.findall(r"re-run     (.*)", done.stdout)
    for drawn in ("--faults", "--fault-interval", "--faults-at-once", "--time-limit"):
        assert drawn in rerun
    assert "--rate 50" in rerun
    spec = yaml.safe_load((tmp_path / "latest/test.yaml").read_text())
    assert spec["faults"]
    assert 10 <= spec["time_limit"] <= 40


def test_what_a_spec_file_says_does_not_vary_unless_asked(tmp_path: Path) -> None:
    path = tmp_path / "spec.yaml"
    path.write_text("nodes: 3\nrate: 50\ntime_limit: 3\nbug: early-ack\n")
    for words, varies in (((), False), (("--swarm",), True)):
        done = bare_hunt(tmp_path, str(path), "--seeds", "50", "--seed", "1", *words)
        assert done.returncode == 1, done.stdout + done.stderr
        spec = yaml.safe_load((tmp_path / "latest/test.yaml").read_text())
        assert (spec["nodes"], spec["time_limit"]) == (3, 3)
        assert bool(spec["faults"]) == varies


def test_all_kinds_of_faults_can_be_hunted_with(tmp_path: Path) -> None:
    done = hunt(tmp_path, "--faults", "all", "--seeds", "1", "--seed", "1")
    assert done.returncode in (0, 3), done.stdout + done.stderr
    assert "without" not in done.stdout
    assert ",".join(PACKAGES) in done.stdout


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--env", "netns"), "--env netns: a hunt is simulated"),
        (("--seeds", "0"), "0 is not in the range"),
        (("--faults", "kil"), "did you mean 'kill'"),
    ],
)
def test_what_cannot_be_hunted_is_refused(
    tmp_path: Path, words: tuple[str, ...], told: str
) -> None:
    done = hunt(tmp_path, *words)
    assert (done.returncode, told in done.stderr) == (2, True), done.stderr


def test_what_was_reached_and_what_was_not_is_told_at_the_end(tmp_path: Path) -> None:
    words = ("--faults", "partition", "--fault-interval", "0.5", "--seeds", "2", "--seed", "1")
    done = hunt(tmp_path, *words)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^  vote-refused-live-leader +2 of 2 seeds, \d+ times$", done.stdout, re.M)
    (never,) = re.findall(r"^never reached: (.*)$", done.stdout, re.M)
    assert "torn-tail" in never.split(", ")


def test_probes_are_counted_by_seed_and_those_of_most_seeds_come_first() -> None:
    tally = Tally(2)
    tally.add(Hunted(0, Verdict.VALID, 1.0, probes={"late-vote": 9}))
    tally.add(Hunted(1, Verdict.VALID, 1.0, probes={"torn-tail": 2, "late-vote": 1}))
    *reached, never = tally.probe_lines()
    assert [line.split(None, 1) for line in reached] == [
        ["late-vote", "2 of 2 seeds, 10 times"], ["torn-tail", "1 of 2 seeds, 2 times"],
    ]  # fmt: skip
    assert never.startswith("never reached: vote-refused-old-log, ")
    assert len(tally.never_reached) == len(Probe) - 2


def test_the_line_counts_verdicts_and_simulated_time() -> None:
    assert Tally(3).verdict is Verdict.UNKNOWN
    tally = Tally(3)
    tally.add(Hunted(0, Verdict.UNKNOWN, 0.0, "coverage: vacuous"))
    assert tally.verdict is Verdict.UNKNOWN
    tally.add(Hunted(1, Verdict.VALID, 1800.0))
    assert {tally.verdict} == {Verdict.VALID}
    tally.add(Hunted(2, Verdict.INVALID, 1800.0, "raft: broken", "runs/x"))
    assert {tally.verdict} == {Verdict.INVALID}
    assert [finding.seed for finding in tally.findings] == [2]
    assert tally.line().startswith("3 of 3 seeds, ")
    assert "1.000 simulated hours" in tally.line()
    assert tally.line().endswith("; 1 valid, 1 invalid, 1 unknown")
