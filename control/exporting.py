"""`labrys export`: a run in the words of other tools, or as a page by itself."""

import shlex
import sys
from pathlib import Path
from typing import Final

import click
import msgspec

from labrys.checkers.history import HistoryError
from labrys.checkers.jepsen_edn import jepsen_lines
from labrys.control.errors import MachineError, UsageError
from labrys.control.report.page import report_page
from labrys.control.report.run_files import read_run
from labrys.control.report.trace import trace
from labrys.control.store import RunDirectory, find_run, write_atomically

FORMATS: Final = ("edn", "trace", "html")


def export_run(
    reference: str,
    runs_dir: Path,
    *,
    form: str,
    key: str | None,
    output: Path | None,
    as_json: bool,
) -> None:
    """Write a run in one of `FORMATS` to `output`, or to standard output without one."""
    if as_json and output is None:
        raise UsageError("--json: what is told would mix with what is exported; add --output FILE")
    if key is not None and form != "edn":
        raise UsageError("--key: only with --format edn; the other formats show all keys")
    run = find_run(reference, runs_dir)
    content = _CONTENT[form](run, key)
    if output is None:
        _print(content)
        return
    if not output.parent.is_dir():
        raise MachineError(f"{output}: cannot be written: there is no directory {output.parent}")
    write_atomically(output, content)
    recheck = _recheck(run, output, key) if form == "edn" else None
    if as_json:
        facts = {"run": str(run.path), "path": str(output), "format": form, "bytes": len(content)}
        click.echo(msgspec.json.encode({**facts, "recheck": recheck}))
        return
    click.echo(f"{output}: {len(content)} bytes")
    if recheck is not None:
        click.echo(f"re-check   {recheck}")


def _print(content: bytes) -> None:
    try:
        sys.stdout.buffer.write(content)
        sys.stdout.flush()
    except BrokenPipeError:
        raise  # the reader has gone: the command line knows what that means
    except OSError as error:
        raise MachineError(f"standard output: cannot be written: {error.strerror}") from error


def _edn(run: RunDirectory, key: str | None) -> bytes:
    history = run.read_history()
    keys = history.operations_by_key()
    if key is not None and key not in keys:
        raise UsageError(f"--key {key}: there is no operation on it in {run.history}")
    try:
        return "".join(f"{line}\n" for line in jepsen_lines(history.ops, key=key)).encode()
    except HistoryError as error:
        raise UsageError(f"{run.history}: {error}") from error
    except RecursionError as error:
        raise UsageError(f"{run.history}: a value is nested too deeply") from error


def _trace(run: RunDirectory, key: str | None) -> bytes:
    return msgspec.json.encode(trace(read_run(run.path))) + b"\n"


def _html(run: RunDirectory, key: str | None) -> bytes:
    return report_page(run.path).encode()


_CONTENT: Final = {"edn": _edn, "trace": _trace, "html": _html}


def _recheck(run: RunDirectory, output: Path, key: str | None) -> str:
    """Return the command that judges the file as the run was judged.

    A read of nil is one of nothing, which Knossos cannot know: for it, that matches anything.
    """
    words = ["labrys", "check", str(output), "--format", "jepsen-edn", "--nil-read", "absent"]
    if run.has_spec:
        words += ["--workload", run.spec().workload]
    if key is None and None not in run.read_history().operations_by_key():
        words.append("--keyed")
    return shlex.join(words)
