"""`labrys suite` as a user starts it, on the simulation: what it prints and leaves behind."""

import errno
import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests import whole_runs
from tests.control.test_suite_outputs import SCHEMA

from labrys.checkers.verdict import Verdict
from labrys.control.cli import main
from labrys.control.environments import netns
from labrys.control.spec import Spec
from labrys.control.suite.attempt import Ended, Forked

LABRYS = Path(sys.executable).with_name("labrys")
SHORT = "test: {env: sim, nodes: 3, rate: 50, time_limit: 2, fault_interval: 0.5}\n"
WRONG = "{name: wrong, bug: early-ack}"
ENDLESS = "{name: endless, time_limit: 100000}"


class Suite:
    """A suite file in a folder of its own, and what became of it."""

    def __init__(self, folder: Path, text: str) -> None:
        self.file = folder / "short.yaml"
        self.file.write_text(text)
        self.runs_dir = folder / "runs"
        self.home = self.runs_dir / "suites" / "short"

    def argv(self, *words: str) -> list[str]:
        return [str(LABRYS), "suite", str(self.file), "--runs-dir", str(self.runs_dir), *words]

    def run(self, *words: str, **environ: str) -> "subprocess.CompletedProcess[str]":
        github = ("GITHUB_ACTIONS", "GITHUB_STEP_SUMMARY")
        clean = {name: value for name, value in os.environ.items() if name not in github}
        done = subprocess.run(
            self.argv("--jobs", "1", *words),
            capture_output=True,
            text=True,
            env={**clean, **environ},
            check=False,
        )
        assert "Traceback" not in done.stdout + done.stderr
        return done

    def summary(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads((self.home / "latest/summary.json").read_text())
        return found

    def owed(self) -> list[str]:
        found: list[str] = json.loads((self.home / "owed.json").read_text())["owed"]
        return found

    def kept(self) -> list[str]:
        return sorted(path.parents[1].name for path in self.runs_dir.glob("*/*Z-*/test.yaml"))


def test_valid_suite_keeps_every_run_and_the_same_seed_repeats_it(tmp_path: Path) -> None:
    suite = Suite(tmp_path, SHORT + "matrix: {faults: [none, kill]}")
    done = suite.run()
    assert done.returncode == 0, done.stdout + done.stderr
    first, *_, last = done.stdout.splitlines()
    seed = re.search(r"seed (\d+)", first)
    assert seed is not None
    assert first == f"labrys: suite short  seed {seed[1]}  2 cells, 2 runs"
    assert last == f"labrys: suite short  seed {seed[1]}  VALID  exit 0"
    assert suite.kept() == ["register-kill-sim-3", "register-sim-3"]
    seeds = [run["seed"] for run in suite.summary()["runs"]]
    assert f"re-run     labrys suite {suite.file} --seed {seed[1]}\n" in done.stdout
    assert suite.run("--seed", seed[1], "--keep", "failed").returncode == 0
    assert [run["seed"] for run in suite.summary()["runs"]] == seeds
    assert len(suite.kept()) == 2


def test_invalid_run_is_told_confirmed_kept_and_decides(tmp_path: Path) -> None:
    text = f"{SHORT}seed: 7\nmatrix: {{faults: [none]}}\ninclude: [{WRONG}]\n"
    suite = Suite(tmp_path, text)
    done = suite.run("--keep", "failed", "--confirm", "2")
    assert done.returncode == 1, done.stdout + done.stderr
    assert done.stdout.endswith("labrys: suite short  seed 7  INVALID  exit 1\n")
    assert "  confirmed 2 of 2 times with the same seed\n" in done.stdout
    assert suite.kept() == ["wrong"] * 3
    good, wrong = suite.summary()["runs"]
    assert (good["verdict"], good["path"]) == ("valid", None)
    assert (wrong["verdict"], wrong["confirmed"]["invalid"]) == ("invalid", 2)
    folder = (suite.home / "latest").resolve()
    assert (folder / wrong["report"]).is_file()
    assert all((folder / path / "results.json").is_file() for path in wrong["confirmed"]["paths"])
    assert (suite.runs_dir / "wrong/latest").resolve() == (folder / wrong["path"]).resolve()
    SCHEMA.validate((folder / "junit.xml").read_text())
    assert "../../../wrong/" in (folder / "index.html").read_text()
    again = subprocess.run(
        [str(LABRYS), *wrong["rerun"].split()[1:], "--runs-dir", str(tmp_path / "again")],
        capture_output=True,
        check=False,
    )
    assert again.returncode == 1


def test_every_line_is_json_if_asked_for(tmp_path: Path) -> None:
    suite = Suite(tmp_path, f"{SHORT}include: [{{faults: kill}}, {WRONG}]")
    done = suite.run("--json", "--seed", "7")
    *runs, last = [json.loads(line) for line in done.stdout.splitlines()]
    assert [(run["cell"], run["verdict"]) for run in runs] == [
        ("register-kill-sim-3", "valid"), ("wrong", "invalid"),
    ]  # fmt: skip
    assert (last["verdict"], last["exit"], done.returncode) == ("invalid", 1, 1)
    assert Path(last["path"]) == suite.home / (suite.home / "latest").resolve().name


def test_what_a_budget_leaves_over_goes_first_the_next_time(tmp_path: Path) -> None:
    suite = Suite(tmp_path, SHORT + "matrix: {faults: [none, kill, partition]}")
    done = suite.run("--time-budget", "0.000001")
    # Nothing was run, and nothing is no proof.
    assert done.returncode == 3, done.stdout + done.stderr
    names = ["register-sim-3", "register-kill-sim-3", "register-partition-sim-3"]
    assert suite.owed() == names
    assert [skipped["cell"] for skipped in suite.summary()["skipped"]] == names
    assert re.search(r"3 skipped in [0-9.]+ s: the time budget is spent", done.stdout)
    (suite.home / "owed.json").write_text('{"version":1,"owed":["register-partition-sim-3"]}')
    assert suite.run().returncode == 0
    assert [run["cell"] for run in suite.summary()["runs"]] == [names[2], *names[:2]]
    assert suite.owed() == []


def test_state_that_cannot_be_read_stops_nothing(tmp_path: Path) -> None:
    suite = Suite(tmp_path, SHORT + "matrix: {faults: [none]}")
    suite.home.mkdir(parents=True)
    (suite.home / "owed.json").write_text("{")
    done = suite.run()
    assert done.returncode == 0
    assert "owed.json: cannot be read, so no cell goes first\n" in done.stdout


def test_until_fail_ends_with_the_first_failure(tmp_path: Path) -> None:
    suite = Suite(tmp_path, f"{SHORT}include: [{WRONG}, {{faults: kill}}]")
    done = suite.run("--until-fail", "--seed", "7")
    assert done.returncode == 1
    assert [run["cell"] for run in suite.summary()["runs"]] == ["wrong"]
    assert suite.summary()["stopped"] == "a run failed"
    assert suite.owed() == ["register-kill-sim-3"]


def test_shards_are_parts_of_one_night(tmp_path: Path) -> None:
    suite = Suite(tmp_path, SHORT + "matrix: {faults: [none, kill, partition]}")
    ran = []
    for shard in ("1/2", "2/2"):
        assert suite.run("--seed", "5", "--shard", shard).returncode == 0
        ran.append([run["cell"] for run in suite.summary()["runs"]])
    assert ran == [["register-sim-3", "register-partition-sim-3"], ["register-kill-sim-3"]]


def test_github_gets_a_summary_and_annotations_and_others_do_not(tmp_path: Path) -> None:
    suite = Suite(tmp_path, f"{SHORT}include: [{WRONG}]")
    target = tmp_path / "step-summary"
    target.write_text("before\n")
    done = suite.run("--seed", "7", GITHUB_ACTIONS="true", GITHUB_STEP_SUMMARY=str(target))
    assert "\n::error title=INVALID wrong::" in done.stdout
    summed_up = (suite.home / "latest/summary.md").read_text()
    assert target.read_text() == f"before\n{summed_up}"
    assert "::error" not in suite.run("--seed", "7").stdout
    elsewhere = suite.run("--seed", "7", GITHUB_STEP_SUMMARY=str(tmp_path / "absent/file"))
    assert elsewhere.returncode == 1
    assert "the job summary cannot be written" in elsewhere.stdout


def test_suite_that_fails_itself_sums_up_what_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    class Known(Forked):
        """A run that was invalid; the one after it cannot be started."""

        def __init__(self, spec: Spec, *how: Any) -> None:
            if spec.bug is None:
                raise OSError(errno.EAGAIN, "no more processes")

        def ended(self) -> Ended:
            return Ended(Verdict.INVALID, "wrong", "wrong")

    monkeypatch.setattr("labrys.control.suite.running.Forked", Known)
    monkeypatch.setattr("labrys.control.suite.running.wait_forked", lambda going, seconds: going)
    suite = Suite(tmp_path, f"{SHORT}include: [{WRONG}, {{faults: kill}}]")
    with pytest.raises(SystemExit) as ended:
        main([*suite.argv()[1:], "--jobs", "1"])
    assert ended.value.code == 1
    assert capsys.readouterr().out.endswith("INVALID  interrupted  exit 1\n")
    found = suite.summary()
    assert [run["verdict"] for run in found["runs"]] == ["invalid"]
    assert found["failures"] == ["BlockingIOError: [Errno 11] no more processes"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_signal_keeps_what_was_run_and_sums_it_up(tmp_path: Path, number: int) -> None:
    suite = Suite(tmp_path, f"{SHORT}include: [{{faults: kill}}, {ENDLESS}, {{faults: loss}}]")
    with subprocess.Popen(
        suite.argv("--jobs", "1", "--seed", "5"), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        out = [process.stdout.readline(), process.stdout.readline()]
        whole_runs.eventually(
            lambda: any(suite.runs_dir.glob("endless/*/history.jsonl")), "the second goes on"
        )
        process.send_signal(number)
        out += process.stdout.readlines()
    assert process.returncode == 130, out
    assert out[-1].endswith("interrupted  exit 130\n")
    found = suite.summary()
    assert (found["interrupted"], found["finished"], found["exit"]) == (True, True, 130)
    assert [(run["cell"], run["interrupted"]) for run in found["runs"]] == [
        ("register-kill-sim-3", False), ("endless", True),
    ]  # fmt: skip
    assert (suite.runs_dir / "endless/latest/results.json").exists()
    # It was not run to its end, so it is to be run again.
    assert suite.owed() == ["endless", "register-loss-sim-3"]


def test_run_whose_process_dies_is_an_error_and_hides_nothing(tmp_path: Path) -> None:
    suite = Suite(tmp_path, f"{SHORT}include: [{ENDLESS}, {WRONG}]")
    with subprocess.Popen(
        suite.argv("--jobs", "1", "--seed", "7"), stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        whole_runs.eventually(
            lambda: any(suite.runs_dir.glob("endless/*/history.jsonl")), "the first goes on"
        )
        (child,) = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
        os.kill(int(child), signal.SIGKILL)
        out = process.stdout.read()
    assert process.returncode == 1, out
    assert "ERROR    endless  seed" in out
    assert "the process of the run died: signal SIGKILL" in out
    endless, wrong = suite.summary()["runs"]
    assert (endless["verdict"], wrong["verdict"]) == ("error", "invalid")
    assert endless["recheck"].startswith("labrys check ")
    assert endless["report"] is None


def test_suite_that_dies_takes_its_runs_along_and_leaves_what_it_knew(tmp_path: Path) -> None:
    suite = Suite(tmp_path, f"{SHORT}include: [{WRONG}, {ENDLESS}]")
    with subprocess.Popen(
        suite.argv("--jobs", "1", "--seed", "7"), stdout=subprocess.PIPE, text=True
    ) as process:
        whole_runs.eventually(
            lambda: any(suite.runs_dir.glob("endless/*/history.jsonl")), "the second goes on"
        )
        process.kill()
    found = suite.summary()
    assert (found["finished"], found["verdict"]) == (False, "invalid")
    whole_runs.eventually(
        lambda: any(suite.runs_dir.glob("endless/*/results.json")), "the run ends in order"
    )


def test_full_disk_ends_it_in_order(tmp_path: Path) -> None:
    suite = Suite(tmp_path, SHORT + "matrix: {faults: [none]}")
    # Room for what is kept back and some runs; a mount that only the command sees.
    suite.runs_dir.mkdir()
    script = f"""mount -t tmpfs -o size=2400k none {suite.runs_dir} || exit 77
{" ".join(suite.argv("--jobs", "1", "--count", "50", "--seed", "5"))}
echo "code $?"
cat {suite.home}/latest/summary.json
"""
    done = subprocess.run(
        ["unshare", "--map-root-user", "--mount", "bash", "-c", script],
        capture_output=True,
        text=True,
        check=False,
    )
    if "code" not in done.stdout:
        pytest.skip(f"no mount here: {done.stderr.strip()}")
    out, _, written = done.stdout.partition("code ")
    code, _, content = written.partition("\n")
    assert (code, "Traceback" in out + done.stderr) == ("4", False), done.stderr
    assert "ERROR  interrupted  exit 4" in out
    found = json.loads(content)
    assert (found["finished"], found["interrupted"], found["verdict"]) == (True, True, "error")
    assert "No space left on device" in found["failures"][0]
    assert found["counts"]["valid"] > 0
    assert found["passes"] < 50


@pytest.mark.parametrize(
    ("text", "words", "told"),
    [
        (
            "matrix: {env: [dokcer]}",
            (),
            "short.yaml:1: matrix.env[0]: unknown environment 'dokcer'",
        ),
        ("matrix: {env: [sim]}", ("--shard", "0/3"), "--shard 0/3: write I/N with I from 1 to N"),
        ("matrix: {env: [sim]}", ("--shard", "2/3"), "--shard 2/3: there are only 1 runs"),
        (
            "matrix: {env: [sim]}",
            ("--time-budget", "45x"),
            "--time-budget 45x: write a time above 0",
        ),
        ("matrix: {env: [sim]}", ("--count", "0"), "--count"),
        ("matrix: {env: [sim]}", ("--keep", "some"), "--keep"),
        ("matrix: {env: [sim]}", ("--seed", "-1"), "--seed"),
        ("matrix: {}", (), "short.yaml: there is no test in it"),
    ],
)
def test_what_cannot_be_run_is_refused_before_anything_is_done(
    tmp_path: Path, text: str, words: tuple[str, ...], told: str
) -> None:
    suite = Suite(tmp_path, text)
    done = suite.run(*words)
    assert (done.returncode, done.stdout) == (2, ""), done.stdout
    assert told in done.stderr
    assert not suite.runs_dir.exists()


@pytest.mark.parametrize(
    ("registry", "reason", "code", "told"),
    [
        (
            "environments.registry",
            lambda env: "no engine answers" if env == "docker" else None,
            4,
            "short.yaml:1: matrix.env[1]: --env docker: no engine answers "
            "(in the test register-kill-docker-5); 'exclude' leaves it out",
        ),
        (
            "nemesis.nemesis",
            lambda kind, env: "no such thing" if (kind, env) == ("oom", "sim") else None,
            2,
            "short.yaml:2: include[0].faults: --faults oom: not with --env sim here: no such thing "
            "(in the test register-oom-sim-5); 'exclude' leaves it out",
        ),
    ],
)
def test_what_this_machine_cannot_do_is_refused_before_anything_is_done(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    registry: str,
    reason: Callable[..., str | None],
    code: int,
    told: str,
) -> None:
    text = "matrix: {env: [sim, docker], faults: [kill]}\ninclude: [{env: sim, faults: oom}]"
    suite = Suite(tmp_path, text)
    for each in ("environments.registry", "nemesis.nemesis"):
        monkeypatch.setattr(
            f"labrys.control.{each}.obstacle", reason if each == registry else lambda *words: None
        )
    with pytest.raises(SystemExit) as ended:
        main(suite.argv()[1:])
    assert (ended.value.code, told in capsys.readouterr().err) == (code, True)
    assert not suite.runs_dir.exists()


def test_absent_file_is_refused(tmp_path: Path) -> None:
    suite = Suite(tmp_path, "")
    suite.file.unlink()
    done = suite.run()
    assert done.returncode == 2
    assert f"{suite.file}: cannot read the suite: No such file" in done.stderr


def test_place_that_cannot_be_written_is_a_machine_error(tmp_path: Path) -> None:
    suite = Suite(tmp_path, SHORT + "matrix: {faults: [none]}")
    suite.runs_dir.mkdir()
    (suite.runs_dir / "suites").write_text("in the way")
    done = suite.run()
    assert done.returncode == 4
    assert "cannot write a suite here" in done.stderr
    assert "--runs-dir" in done.stderr


@pytest.mark.netns
@pytest.mark.skipif(netns.probe() is not None, reason=f"no namespaces: {netns.probe()}")
def test_real_runs_have_namespaces_of_their_own(tmp_path: Path) -> None:
    suite = Suite(
        tmp_path,
        "test: {nodes: 3, time_limit: 2, rate: 50}\n"
        "matrix: {env: [netns]}\ninclude: [{env: sim}]\nweights: [{env: netns, weight: 2}]",
    )
    done = suite.run("--seed", "5")
    assert done.returncode == 0, done.stdout + done.stderr
    assert [run["cell"] for run in suite.summary()["runs"]] == [
        "register-netns-3", "register-sim-3", "register-netns-3",
    ]  # fmt: skip
