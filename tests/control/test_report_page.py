"""The page itself: one file, closed to markup from the run, drawn by a real browser."""

import base64
import gzip
import hashlib
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import msgspec
import pytest
from tests.control.report_runs import HOSTILE, RERUN, make_run

from labrys.control.report.page import write_report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
BROWSER_TIMEOUT_S = 90


def found(pattern: str, text: str) -> str:
    """Return the first group of the first match."""
    match = re.search(pattern, text, re.DOTALL)
    assert match is not None, f"{pattern} is not in the page"
    return match[1]


def embedded(page: str) -> Any:
    packed = found(r'<script type="text/plain" id="data">([A-Za-z0-9+/=]*)</script>', page)
    return msgspec.json.decode(gzip.decompress(base64.b64decode(packed)))


def test_the_page_carries_its_data_and_asks_for_nothing_else(tmp_path: Path) -> None:
    path = write_report(make_run(tmp_path / "run"))
    page = path.read_text()
    assert path == tmp_path / "run" / "report.html"
    assert len(embedded(page)["ops"]["index"]) == 1205
    assert not re.search(r"""(src|href)\s*=|url\(|import\s|fetch\(""", page)


def test_the_policy_knows_exactly_our_script_and_style(tmp_path: Path) -> None:
    page = write_report(make_run(tmp_path / "run", operation_count=50)).read_text()
    for kind in ("script", "style"):
        source = found(rf"<{kind}>(.*?)</{kind}>", page)
        digest = base64.b64encode(hashlib.sha256(source.encode()).digest()).decode()
        assert f"{kind}-src 'sha256-{digest}'" in page
    assert "default-src 'none'" in page


def test_values_of_a_run_are_never_markup(tmp_path: Path) -> None:
    page = write_report(make_run(tmp_path / "run", hostile=True)).read_text()
    assert "<img" not in page
    assert page.count("</script>") == 2
    assert "&lt;img src=x" in page
    assert HOSTILE in embedded(page)["ops"]["keys"]


def test_without_scripts_the_verdict_and_its_findings_are_there(tmp_path: Path) -> None:
    page = write_report(make_run(tmp_path / "run")).read_text()
    words = found(r"<pre>(.*?)</pre>", page)
    assert words.startswith("labrys: seed 8817  register  bug stale-read  partition,kill")
    assert "cannot be explained" in words
    assert f"re-run     {RERUN}" in words
    assert words.endswith("labrys: seed 8817  INVALID  exit 1")


def test_an_empty_directory_still_gets_a_page(tmp_path: Path) -> None:
    page = write_report(tmp_path).read_text()
    assert "notice: results.json is missing" in page
    assert "NO VERDICT" in page


def test_the_page_is_replaced_whole_and_nothing_else_is_left(tmp_path: Path) -> None:
    run = make_run(tmp_path / "run", operation_count=50)
    (run / "report.html").write_text("old")
    before = {path.name for path in run.iterdir()}
    write_report(run)
    assert {path.name for path in run.iterdir()} == before
    assert (run / "report.html").read_text().startswith("<!doctype html>")


def test_a_thousand_operations_make_a_small_page(tmp_path: Path) -> None:
    path = write_report(make_run(tmp_path / "run", operation_count=1000))
    assert path.stat().st_size < 150_000


def dom(path: Path, tmp_path: Path, *, link: str = "") -> str:
    """Return the document after the page's script has run."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=8000", "--window-size=1400,1000", "--dump-dom",
        path.as_uri() + link,
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=BROWSER_TIMEOUT_S, check=True
    )
    return done.stdout


def root_of(document: str) -> str:
    return found(r"(<html[^>]*>)", document)


@pytest.mark.browser
def test_a_browser_draws_the_page(tmp_path: Path) -> None:
    document = dom(write_report(make_run(tmp_path / "run")), tmp_path)
    assert 'data-state="ready"' in root_of(document)
    assert 'data-ops="1205"' in root_of(document)
    assert "data-error" not in root_of(document)
    assert document.count("<canvas") == 5
    assert "1205 operations match" in document
    assert '<section id="fallback" hidden' in document
    assert "the state is 1202; the read needs 1201" in document


@pytest.mark.browser
def test_a_browser_shows_hostile_values_as_text(tmp_path: Path) -> None:
    document = dom(write_report(make_run(tmp_path / "run", hostile=True)), tmp_path)
    assert 'data-state="ready"' in root_of(document)
    assert "data-pwned" not in root_of(document)
    assert "<img" not in document
    assert "&lt;img src=x" in document


@pytest.mark.browser
def test_a_link_opens_the_page_at_an_operation(tmp_path: Path) -> None:
    path = write_report(make_run(tmp_path / "run"))
    document = dom(path, tmp_path, link="#op=2409")
    detail = found(r'id="detail"(.*?)</section>', document)
    assert "r→1201" in detail
    assert "2409" in detail


@pytest.mark.browser
def test_a_browser_draws_a_run_that_left_nothing(tmp_path: Path) -> None:
    run = tmp_path / "empty"
    run.mkdir()
    document = dom(write_report(run), tmp_path)
    assert 'data-state="ready"' in root_of(document)
    assert "results.json is missing" in document


@pytest.mark.browser
def test_a_link_may_carry_a_filter_and_a_span_of_time(tmp_path: Path) -> None:
    path = write_report(make_run(tmp_path / "run"))
    document = dom(path, tmp_path, link="#t=1.0-2.0&q=type:info")
    assert "25 of 1205 operations match" in document
