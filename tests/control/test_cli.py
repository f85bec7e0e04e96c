"""The command line: every bad input gets one clear message and the documented exit code."""

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from tests import whole_runs

from labrys.checkers.history import encode_op
from labrys.checkers.op import Op, OpType
from labrys.control.cli import main
from labrys.control.environments import netns


class Said:
    """What a command printed, and its exit code."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code = code
        self.out = out
        self.err = err


@pytest.fixture
def labrys(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> "Labrys":
    monkeypatch.chdir(tmp_path)
    return Labrys(capsys)


class Labrys:
    """Calls the command line as a user does, in an empty folder."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys

    def __call__(self, *words: str) -> Said:
        with pytest.raises(SystemExit) as ended:
            main(words)
        said = self._capsys.readouterr()
        assert "Traceback" not in said.out + said.err
        assert isinstance(ended.value.code, int)
        return Said(ended.value.code, said.out, said.err)


def write_history(path: Path, ops: list[Op]) -> Path:
    path.write_bytes(b"".join(encode_op(op) + b"\n" for op in ops))
    return path


def op(index: int, kind: str, process: int, f: str, value: object) -> Op:
    return Op(
        index=index, time=index, type=OpType(kind), process=process, f=f, value=value, key="k"
    )


GOOD = [
    op(0, "invoke", 0, "write", 1),
    op(1, "ok", 0, "write", 1),
    op(2, "invoke", 1, "read", None),
    op(3, "ok", 1, "read", 1),
]
STALE = [
    *GOOD,
    op(4, "invoke", 0, "write", 2),
    op(5, "ok", 0, "write", 2),
    op(6, "invoke", 1, "read", None),
    op(7, "ok", 1, "read", 1),
]


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        (["tset"], "No such command"),
        (["test", "--wrkload", "register"], "--workload"),
        (["test", "--nodes", "five"], "--nodes"),
        (["test", "--nodes", "4"], "use 3 or 5"),
        (["test", "--nodes", "0"], "at least 1"),
        (["test", "--faults", "partion"], "did you mean 'partition'"),
        (["test", "--workload", "regster"], "did you mean 'register'"),
        (["test", "--bug", "stale-raed"], "did you mean 'stale-read'"),
        (["test", "--env", "ntens"], "did you mean 'netns'"),
        (["test", "--option", "values"], "KEY=VALUE"),
        (["test", "--option", "values=huge"], "values"),
        (["test", "--faults", "{kill: "], "not YAML"),
        (["test", "--faults", "{kill: {targets: [lader]}}"], "leader"),
        (["test", "--faults", "kill:lader"], "did you mean 'leader'"),
        (["test", "--faults", "kil:all"], "did you mean 'kill'"),
        (["test", "--faults", "kill:all,kill:leader"], "'kill' is there twice"),
        (["test", "--faults", "kill,kill"], "'kill' is there twice"),
        (["test", "--faults", "{kill: {hold_s: 10}}"], "do not fit into a round"),
        (["test", "absent.yaml"], "absent.yaml"),
        (["test", "--env", "netns", "--leave-cluster"], "--leave-cluster"),
        (["test", "--hosts", "a,b,c"], "--hosts: only with --env ssh"),
        (["test", "--env", "ssh", "--hosts", "a,,b"], "--hosts: '' is no host name"),
        (["doctor", "ssh", "--faults"], "add --hosts A,B,C"),
        (["doctor", "--hosts", "a,b,c"], "--hosts: only with --faults"),
        (["check", "absent.jsonl"], "absent.jsonl"),
        (["check", "--model", "registr", "x"], "did you mean 'register'"),
        (["check", "--format", "jsnl", "x"], "did you mean 'jsonl'"),
        (["check", "--initial", "{", "x"], "--initial"),
        (["check", "--model", "mutex", "--initial", '"locked"', "x"], '"free" or "held"'),
        (["check", "--timeout", "-1", "x"], "--timeout"),
        (["check"], "PATH"),
        (["show", "7"], "runs"),
        (["history", "latest"], "runs"),
        (["runs"], "runs"),
        (["doctor", "kubernetes"], "known: docker, netns, sim, ssh"),
    ],
)
def test_bad_command_line_is_a_usage_error_that_names_the_mend(
    labrys: Labrys, words: list[str], expected: str
) -> None:
    said = labrys(*words)
    assert said.code == 2
    assert expected in said.err
    assert said.out == ""
    assert not Path("runs").exists(), "a refused test must leave nothing behind"


def test_misspelt_key_of_a_spec_is_named_with_its_line(labrys: Labrys) -> None:
    Path("spec.yaml").write_text("workload: register\nnode: 5\n")
    said = labrys("test", "spec.yaml")
    assert said.code == 2
    assert "spec.yaml:2: unknown key 'node'; did you mean 'nodes'?" in said.err


@pytest.mark.netns
@pytest.mark.skipif(netns.probe() is not None, reason=f"no namespaces: {netns.probe()}")
def test_unwritable_runs_directory_is_a_machine_error(tmp_path: Path) -> None:
    # In a process of its own, for a test in namespaces leaves the world of its caller for good.
    (tmp_path / "file").write_text("in the way")
    said = whole_runs.labrys("test", "--env", "netns", "--runs-dir", str(tmp_path / "file/runs"))
    assert said.returncode == 4
    assert f"{tmp_path}/file/runs: cannot write a run here" in said.stderr
    assert "--runs-dir" in said.stderr


@pytest.mark.parametrize(
    "command",
    [
        "test",
        "suite",
        "check",
        "runs",
        "show",
        "history",
        "compare",
        "export",
        "serve",
        "doctor",
        "heal",
    ],
)
def test_every_command_has_help_with_an_example(labrys: Labrys, command: str) -> None:
    said = labrys(command, "--help")
    assert said.code == 0
    assert "Example:" in said.out
    assert "--json" in said.out


def test_check_judges_bare_histories(labrys: Labrys) -> None:
    good = write_history(Path("good.jsonl"), GOOD)
    stale = write_history(Path("stale.jsonl"), STALE)
    assert labrys("check", str(good), "--model", "register").code == 0
    said = labrys("check", str(stale), "--model", "register")
    assert said.code == 1
    assert "INVALID" in said.out
    assert labrys("check", str(good), str(stale), "--workload", "register").code == 1


def test_check_prints_one_json_object_a_line(labrys: Labrys) -> None:
    good = write_history(Path("good.jsonl"), GOOD)
    stale = write_history(Path("stale.jsonl"), STALE)
    said = labrys("check", str(good), str(stale), "--model", "cas-register", "--json")
    facts = [json.loads(line) for line in said.out.splitlines()]
    assert [fact["path"] for fact in facts] == ["good.jsonl", "stale.jsonl"]
    assert [fact["verdict"] for fact in facts] == ["valid", "invalid"]


def test_check_of_a_bare_history_needs_a_model(labrys: Labrys) -> None:
    good = write_history(Path("good.jsonl"), GOOD)
    said = labrys("check", str(good))
    assert said.code == 2
    assert "--model" in said.err


def test_broken_line_of_a_history_is_named(labrys: Labrys) -> None:
    path = write_history(Path("broken.jsonl"), GOOD)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([*lines[:1], "{broken", *lines[1:]]) + "\n")
    said = labrys("check", str(path), "--model", "register")
    assert said.code == 2
    assert "broken.jsonl:2" in said.err


def test_unreadable_file_does_not_hide_a_violation_in_another(labrys: Labrys) -> None:
    stale = write_history(Path("stale.jsonl"), STALE)
    said = labrys("check", "absent.jsonl", str(stale), "--model", "register")
    assert said.code == 1
    assert "absent.jsonl" in said.err


def test_empty_history_is_unknown_not_valid(labrys: Labrys) -> None:
    Path("empty.jsonl").write_text("")
    said = labrys("check", "empty.jsonl", "--model", "register")
    assert said.code == 3
    assert "vacuous" in said.out


def test_torn_last_line_is_tolerated(labrys: Labrys) -> None:
    path = write_history(Path("torn.jsonl"), GOOD)
    with path.open("a") as file:
        file.write('{"index":4,"ti')
    assert labrys("check", str(path), "--model", "register").code == 0


def test_help_starts_without_the_heavy_imports() -> None:
    code = (
        "import sys, labrys.control.cli\n"
        "heavy = {'docker', 'paramiko', 'rich', 'requests', 'yaml', 'starlette'}\n"
        "print(sorted(heavy & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_reader_that_goes_away_ends_the_command_as_the_signal_would(tmp_path: Path) -> None:
    run = tmp_path / "run"
    run.mkdir()
    # More than a pipe holds, so that writing fails for certain.
    pairs = [
        op(2 * i + half, ("invoke", "ok")[half], 0, "write", i)
        for i in range(3_000)
        for half in (0, 1)
    ]
    write_history(run / "history.jsonl", pairs)
    labrys_script = Path(sys.executable).with_name("labrys")
    with subprocess.Popen(
        [labrys_script, "history", str(run)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as reading:
        assert reading.stdout is not None
        assert reading.stderr is not None
        assert "index" in reading.stdout.readline()
        reading.stdout.close()
        assert "Traceback" not in reading.stderr.read()
    assert reading.returncode == 128 + signal.SIGPIPE


@pytest.mark.parametrize("number", [0, 1, 2])
def test_closed_standard_stream_is_no_error_and_no_file_takes_its_place(
    tmp_path: Path, number: int
) -> None:
    script = f'exec "$0" doctor --json --runs-dir "$1" {number}>&-'
    labrys_script = Path(sys.executable).with_name("labrys")
    done = subprocess.run(
        ["/bin/sh", "-c", script, str(labrys_script), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert "error" not in done.stderr
    assert ("runs" in done.stdout) == (number != 1)
    assert done.returncode in (0, 4)


def test_doctor_does_not_promise_a_test_that_could_not_write_its_run(labrys: Labrys) -> None:
    Path("file").write_text("in the way")
    said = labrys("doctor", "--runs-dir", "file/runs")
    assert said.code == 4
    assert "NO  runs" in said.out
    assert "no test can run here" in said.out


def test_run_is_named_by_a_negative_number(labrys: Labrys) -> None:
    runs: list[Path] = []
    for name in ("20260101T000000Z-1", "20260101T000001Z-2"):
        run = Path("runs/test") / name
        run.mkdir(parents=True)
        (run / "test.yaml").write_text("workload: register\nseed: 1\n")
        write_history(run / "history.jsonl", GOOD if not runs else STALE)
        runs.append(run)
    assert labrys("check", "-2").code == 3  # nothing was done in the main phase of so short a run
    assert labrys("check", "--json", "-1").code == 1
    assert len(labrys("history", "-1", "--json").out.splitlines()) == len(STALE)
    assert len(labrys("history", "--json", "-2").out.splitlines()) == len(GOOD)
    assert labrys("history", "-1", "--from", "-5", "--json").code == 0
    assert labrys("history", "-3").code == 2
    assert "No such option" in labrys("history", "-x").err
