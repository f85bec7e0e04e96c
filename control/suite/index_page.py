"""The page of a suite: `index.html`, beside `summary.json`, with links to the reports of its runs.

It looks like those, opens from a file or a CI artifact, and needs no network. Jinja escapes every
value; a content security policy that knows the hash of our own style and script backs that up.
"""

from importlib import resources
from typing import Final

from labrys.checkers.verdict import Verdict
from labrys.control.report.page import asset, csp_hash
from labrys.control.suite.summary import WORST_FIRST, Summary, counts_text, grid

MARKS: Final = {
    Verdict.INVALID: "✗",
    Verdict.ERROR: "!",
    Verdict.UNKNOWN: "?",
    Verdict.VALID: "✓",
}
"""Verdicts differ in more than colour."""

_SCRIPT: Final = (
    "if (matchMedia('(prefers-color-scheme: dark)').matches)"
    " document.documentElement.dataset.theme = 'dark';"
)


def index_page(summary: Summary) -> str:
    """Return the page."""
    import jinja2

    style = f"{asset('page.css')}\n{index_style()}"
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(_asset("index.html.jinja")).render(
        summary=summary,
        counts=counts_text(summary.counts),
        heat=grid(summary.runs),
        runs=sorted(summary.runs, key=lambda result: WORST_FIRST.index(result.verdict)),
        marks=MARKS,
        style=style,
        style_hash=csp_hash(style),
        script=_SCRIPT,
        script_hash=csp_hash(_SCRIPT),
    )


def index_style() -> str:
    """Return what the page adds to the style of reports."""
    return _asset("index.css")


def _asset(name: str) -> str:
    return resources.files("labrys.control.suite").joinpath(name).read_text(encoding="utf-8")
