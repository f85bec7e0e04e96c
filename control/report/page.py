"""The page of a run: `report.html`, one file that opens anywhere, without a network, for ever.

Python computes (`data.py`), the script only draws. The data travels as gzip in base64, since that
is what a browser can unpack without any library. Two walls keep values of a run from becoming
markup: nothing but base64 and escaped text is ever pasted into the shell, and the script writes
text nodes only. A content security policy that knows the hash of our own script and style backs
them up.
"""

import base64
import gzip
import hashlib
import html
from importlib import resources
from pathlib import Path
from typing import Final

import msgspec

from labrys.control.report.data import report_data
from labrys.control.report.run_files import read_run
from labrys.control.report.schema import ReportData
from labrys.control.report.text import page_text
from labrys.control.store import REPORT, write_atomically

SCRIPTS: Final = ("base.js", "panels.js", "timeline.js", "main.js")
"""The parts of the one script, in order."""


def write_report(run_dir: Path) -> Path:
    """Write `report.html` into `run_dir`, whole or not at all, and return its path.

    A missing or damaged file of the run becomes a notice on the page. Raises MachineError when
    the page cannot be written.
    """
    path = run_dir / REPORT
    write_atomically(path, report_page(run_dir).encode())
    return path


def report_page(run_dir: Path) -> str:
    """Return the page of the run in `run_dir`, from what is there now."""
    run = read_run(run_dir)
    data = report_data(run)
    return render_page(data, page_text(run, data))


def render_page(data: ReportData, fallback: str) -> str:
    """Return the page that shows `data`, with `fallback` for readers without scripts."""
    script = "\n".join(asset(name) for name in SCRIPTS)
    style = asset("page.css")
    packed = gzip.compress(msgspec.json.encode(data), compresslevel=6, mtime=0)
    verdict = data.verdict.value if data.verdict is not None else "none"
    parts = {
        "title": html.escape(f"{verdict}: {data.title}"),
        "script-hash": csp_hash(script),
        "style-hash": csp_hash(style),
        "style": style,
        "script": script,
        "fallback": html.escape(fallback),
        "data": base64.b64encode(packed).decode(),
    }
    page = asset("page.html")
    # One pass over the shell: a value that looks like a placeholder is not one.
    pieces = page.split("{{")
    out = [pieces[0]]
    for piece in pieces[1:]:
        name, rest = piece.split("}}", 1)
        out += [parts[name], rest]
    return "".join(out)


def asset(name: str) -> str:
    """Return the text of a file that a page is made of."""
    return resources.files("labrys.control.report").joinpath(name).read_text(encoding="utf-8")


def csp_hash(source: str) -> str:
    """Return how a content security policy names a script or style that may be used."""
    digest = hashlib.sha256(source.encode()).digest()
    return f"sha256-{base64.b64encode(digest).decode()}"
