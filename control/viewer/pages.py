"""The pages of the viewer. Jinja escapes every value; nothing else makes markup of runs."""

import functools
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Any, Final

import jinja2
from markupsafe import Markup

from labrys.checkers.op import Op
from labrys.control.comparing import counts_text, fault_text
from labrys.control.comparison import Comparison
from labrys.control.report.labels import value_text
from labrys.control.report.page import asset
from labrys.control.report.text import OP_HEADER, op_line
from labrys.control.suite import index_page
from labrys.control.viewer.archive import files_of
from labrys.control.viewer.catalogue import Listing
from labrys.control.viewer.entry import Entry
from labrys.control.viewer.heat import Heat, heat
from labrys.control.viewer.suites import SuiteLine

ROWS_MAX: Final = 5_000
"""Runs in the list: the newest."""
FILES_MAX: Final = 1_000
MARKS: Final = {verdict.value: mark for verdict, mark in index_page.MARKS.items()}

_COLUMNS: Final = (
    *(("verdict", "text"), ("run", "text"), ("workload", "text"), ("faults", "text")),
    *(("environment", "text"), ("seed", "num"), ("ok", "num"), ("fail", "num"), ("info", "num")),
    *(("seconds", "num"), ("labrys", "text"), ("why", "text")),
)
"""Head of each column, and how it is sorted."""


class Pages:
    """Renders; the rows of runs that have not changed are kept."""

    def __init__(self) -> None:
        self._jinja = jinja2.Environment(
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            loader=jinja2.FunctionLoader(viewer_asset),
        )
        self._macros: Any = self._jinja.get_template("rows.html.jinja").module
        self._rows: dict[str, tuple[Entry, Markup]] = {}

    def run_list(
        self, listing: Listing, version: str, suites: Sequence[SuiteLine], root: Path
    ) -> str:
        """Return the run list."""
        entries = listing.entries[:ROWS_MAX]
        return self._render(
            "list.html.jinja",
            root=str(root),
            version=version,
            count=len(listing.entries),
            cut=len(listing.entries) - len(entries),
            columns=_COLUMNS,
            rows=[self.row(entry) for entry in entries],
            heat=heat(listing.entries),
            marks=MARKS,
            suites=suites,
        )

    def row(self, entry: Entry) -> Markup:
        """Return the row of a run in the list."""
        known = self._rows.get(entry.id)
        if known is None or known[0] is not entry:
            known = self._rows[entry.id] = (entry, self._macros.row(entry))
        return known[1]

    def grid(self, grid: Heat) -> Markup:
        """Return the heat grid."""
        made: Markup = self._macros.grid(grid, MARKS)
        return made

    def comparison(self, comparison: Comparison) -> str:
        """Return two runs side by side."""
        return self._render(
            "compare.html.jinja",
            c=comparison,
            header=f"  {OP_HEADER}",
            op_text=_op_text,
            counts=counts_text,
            fault_text=fault_text,
            words=lambda value: value if isinstance(value, str) else value_text(value),
        )

    def files(self, id_: str, folder: Path, reason: str, bar: Markup) -> str:
        """Return the list of the files of a run."""
        files = []
        paths = list(files_of(folder))
        for path in paths[:FILES_MAX]:
            name = path.relative_to(folder).as_posix().encode(errors="replace").decode()
            try:
                files.append((name, path.stat().st_size))
            except OSError:
                continue  # gone meanwhile
        cut = len(paths) > FILES_MAX
        return self._render(
            "files.html.jinja", id=id_, files=files, reason=reason, bar=bar, cut=cut
        )

    def bar(self, id_: str, previous: str | None, note: str = "") -> Markup:
        """Return the links of a run."""
        return Markup(self._render("bar.html.jinja", id=id_, previous=previous, note=note))

    def message(self, text: str) -> str:
        """Return a page that says one thing."""
        return self._render("message.html.jinja", message=text)

    def _render(self, name: str, **values: Any) -> str:
        return self._jinja.get_template(name).render(**values)


def _op_text(op: Op | None) -> str:
    return "has no more" if op is None else op_line(op)


@functools.cache
def viewer_asset(name: str) -> str:
    """Return a file that the pages are made of."""
    return resources.files("labrys.control.viewer").joinpath(name).read_text(encoding="utf-8")


@functools.cache
def style() -> str:
    """Return the style of all pages: that of reports and suites, and what the viewer adds."""
    return "\n".join((asset("page.css"), index_page.index_style(), viewer_asset("viewer.css")))
