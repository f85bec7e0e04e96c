"""How `labrys check` reads bare files: what it takes for granted and what it refuses."""

from pathlib import Path
from typing import Any

import pytest

from labrys.checkers.verdict import Verdict
from labrys.control.checking import Reading, check_paths, parse_reading
from labrys.control.errors import UsageError

KV = """\
{:process 0, :type :invoke, :f :get, :key "7", :value nil}
{:process 0, :type :ok, :f :get, :key "7", :value ""}
{:process 0, :type :invoke, :f :append, :key "7", :value "x"}
{:process 0, :type :ok, :f :append, :key "7", :value "x"}
"""


def reading(**flags: Any) -> Reading:
    """Return what the command line says when only `flags` are given."""
    given = {"model": None, "workload": None, "file_format": "auto", "initial": None}
    rest = {"keyed": False, "nil_read": "absent", "timeout": 60.0, "memory": 4096}
    return parse_reading(**{**given, **rest, **flags})


@pytest.mark.parametrize(("initial", "verdict"), [(None, Verdict.VALID), ('"y"', Verdict.INVALID)])
def test_porcupine_kv_begins_with_empty_strings_unless_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], initial: str | None, verdict: Verdict
) -> None:
    path = tmp_path / "kv.txt"
    path.write_text(KV)
    how = reading(model="kv", initial=initial)
    check_paths([str(path)], tmp_path, how, as_json=False)
    shown = initial or '""'
    first = capsys.readouterr().out.splitlines()[0]
    assert first.startswith(
        f"{path}: {verdict.upper()}  (format=porcupine-kv  model=kv  initial={shown}  "
    )


def test_mutex_in_no_state_is_a_usage_error_that_names_the_flag() -> None:
    with pytest.raises(UsageError, match='--initial "locked": a mutex is "free" or "held"'):
        reading(model="mutex", initial='"locked"')


def test_history_of_another_model_is_refused_with_its_path(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text('\n{"type":"invoke","process":0,"f":"read","index":7}\n')
    code = check_paths([str(path)], tmp_path, reading(model="mutex"), as_json=False)
    assert code == UsageError.exit_code
    assert f"{path}:2: op 7: 'read' is not one of acquire, release" in capsys.readouterr().err


@pytest.mark.parametrize("model", ["register", "set-full", "append", "sessions", "rw-register"])
def test_values_nested_as_deeply_as_can_be_read_are_no_crash(
    tmp_path: Path, model: str, capsys: pytest.CaptureFixture[str]
) -> None:
    f = {"set-full": "add", "append": "append", "rw-register": "txn"}.get(model, "write")
    path = tmp_path / "h.jsonl"
    codes = set()
    for depth in range(800, 1_010, 5):
        value = "[" * depth + "]" * depth
        value = f'[["w", "x", {value}]]' if f == "txn" else value
        event = f'"process":0,"f":"{f}","value":{value}}}\n'
        path.write_text(f'{{"type":"invoke",{event}{{"type":"ok",{event}')
        codes.add(check_paths([str(path)], tmp_path, reading(model=model), as_json=False))
    assert UsageError.exit_code in codes
    assert codes <= {UsageError.exit_code, 3, 4}
    assert "bug in labrys" not in capsys.readouterr().out


def test_clients_without_numbers_are_refused_rather_than_passed_over(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "h.jsonl"
    events = ('"invoke","process":"c1"', '"ok","process":"c1"')
    path.write_text("".join(f'{{"type":{event},"f":"write","value":1}}\n' for event in events))
    code = check_paths([str(path)], tmp_path, reading(model="register"), as_json=False)
    assert code == UsageError.exit_code
    assert f'{path}:2: op 1: process "c1" ended in ok' in capsys.readouterr().err


def test_file_that_is_not_there_is_no_run_either(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    code = check_paths(["missing.jsonl"], tmp_path, reading(model="mutex"), as_json=False)
    assert code == UsageError.exit_code
    assert "missing.jsonl: no such file: name a history file, a run" in capsys.readouterr().err


def test_error_about_a_long_value_can_be_read(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "h.jsonl"
    path.write_text(f'{{"type":"invoke","process":0,"f":"{"x" * 100_000}"}}\n')
    check_paths([str(path)], tmp_path, reading(model="mutex"), as_json=False)
    assert len(capsys.readouterr().err) < 1_100
