"""Scripts: output apart, a bounded end, and the same over a pipe."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from labrys.control.environments import scripts
from labrys.control.environments.base import output
from labrys.control.environments.scripts import Ended, run_script
from labrys.control.errors import ClusterError


def test_code_output_and_errors_come_apart() -> None:
    assert run_script("echo out; echo err >&2; exit 3", 10) == Ended(3, "out\n", "err\n")


def test_a_death_by_signal_is_a_negative_code() -> None:
    assert run_script("kill -9 $$", 10).code == -signal.SIGKILL


def test_a_script_out_of_time_is_ended_with_its_children() -> None:
    began = time.monotonic()
    ended = run_script("echo so far; sleep 1000; echo never", 1)
    assert ended == Ended(None, "so far\n", "")
    assert time.monotonic() - began < 30


def test_a_process_that_left_the_script_outlives_it_and_does_not_hold_it(tmp_path: Path) -> None:
    ended = run_script("setsid sleep 1000 & echo $!", 10)
    os.kill(int(ended.out), signal.SIGKILL)  # raises if it did not outlive the script
    assert ended.code == 0


def test_what_is_no_text_is_replaced_not_raised() -> None:
    assert run_script(r"printf 'a\377b\000c'", 10).out == "a\N{REPLACEMENT CHARACTER}b\0c"


def test_many_open_files_are_no_obstacle() -> None:
    # With a thousand clients the controller's descriptors pass what select() can take.
    code = (
        "import os, resource, sys; from labrys.control.environments.scripts import run_script;"
        "hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1];"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (2000, hard));"
        "held = [os.dup(0) for _ in range(1100)]; print(run_script('exit 3', 10).code)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("3\n", "")


def test_standard_input_is_empty() -> None:
    assert run_script("cat; echo end", 10).out == "end\n"


def test_programs_in_sbin_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/usr/bin:/bin")
    assert run_script("echo $PATH", 10).out == "/usr/bin:/bin:/usr/local/sbin:/usr/sbin:/sbin\n"


def test_the_server_answers_line_by_line_until_its_input_ends() -> None:
    requests = [["echo a; echo b", 10], ["sleep 1000", 0.1], ["exit 7", 10]]
    done = subprocess.run(
        [sys.executable, scripts.__file__],
        input="".join(json.dumps(request) + "\n" for request in requests),
        capture_output=True,
        text=True,
        check=True,
    )
    answers = [Ended(*json.loads(line)) for line in done.stdout.splitlines()]
    assert answers == [Ended(0, "a\nb\n", ""), Ended(None, "", ""), Ended(7, "", "")]


def test_an_unfinished_script_is_an_error_that_tells_its_last_words() -> None:
    with pytest.raises(ClusterError, match=r"n1: .*did not end within 2 s: 'x y'; it said 'z'"):
        output("n1", " x y ", 2.0, Ended(None, "z\n", ""))
