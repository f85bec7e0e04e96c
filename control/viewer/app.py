"""The web application: run list, runs, comparisons, files. It reads and never writes.

What it must withstand: paths that lead out of the runs directory (resolved, then compared with
it), values with markup in them (escaped by Jinja), pages in the runs directory that somebody else
wrote (served into a sandbox, where they are of no origin), and other sites that a browser is
talked into asking in its user's name (by a name that resolves to this machine: the Host header is
looked at).
"""

import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Final
from urllib.parse import quote

import msgspec
from markupsafe import Markup
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import Request
from starlette.responses import (
    FileResponse,
    HTMLResponse,
    RedirectResponse,
    Response,
    StreamingResponse,
)
from starlette.routing import Route

from labrys.control.comparison import compare
from labrys.control.errors import UsageError
from labrys.control.report.page import report_page
from labrys.control.report.run_files import read_run
from labrys.control.store import HISTORY, REPORT
from labrys.control.viewer.archive import zipped
from labrys.control.viewer.catalogue import Catalogue
from labrys.control.viewer.entry import Entry, State
from labrys.control.viewer.heat import heat
from labrys.control.viewer.pages import Pages, style, viewer_asset
from labrys.control.viewer.suites import suite_lines

HISTORY_BYTES_MAX: Final = 128 << 20
"""Of a history that is read to draw or to compare; larger ones are for the command line."""
REPORT_BYTES_MAX: Final = 64 << 20

_OURS: Final = (
    "default-src 'none'; style-src 'self'; script-src 'self'; connect-src 'self'; img-src data:; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
_SANDBOX: Final = (
    "sandbox allow-scripts; default-src 'none'; style-src 'unsafe-inline'; "
    "script-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
"""For pages that lie in the runs directory: they may draw, and reach nothing."""

_TYPES: Final = {".html": "text/html", ".json": "application/json"}
_SCRIPTS: Final = ("theme.js", "list.js")


def make_app(
    runs_dir: Path, *, hosts: Sequence[str] = ("*",), catalogue: Catalogue | None = None
) -> Starlette:
    """Return the viewer over `runs_dir`; it answers to these host names only (`*`: to any).

    `catalogue`: one of this directory, if there is one already.
    """
    root = runs_dir.resolve()
    viewer = _Viewer(root, catalogue or Catalogue(root))
    return Starlette(
        routes=[
            Route("/", viewer.run_list),
            Route("/live", viewer.live),
            Route("/compare", viewer.compare),
            Route("/run/{id:path}", viewer.run),
            Route("/files/{id:path}", viewer.files),
            Route("/zip/{id:path}", viewer.zip),
            Route("/file/{path:path}", viewer.file),
            Route("/assets/{name}", viewer.asset),
        ],
        middleware=[
            Middleware(TrustedHostMiddleware, allowed_hosts=list(hosts), www_redirect=False),
        ],
        exception_handlers={HTTPException: viewer.failed, UsageError: viewer.refused},
    )


class _Viewer:
    def __init__(self, root: Path, catalogue: Catalogue) -> None:
        self._root = root
        self._catalogue = catalogue
        self._pages = Pages()
        self._life = secrets.token_hex(4)
        """Versions of another life, before the server was started anew, mean nothing now."""

    def run_list(self, request: Request) -> Response:
        listing = self._catalogue.listing()
        version = f"{self._life}-{listing.version}"
        page = self._pages.run_list(listing, version, suite_lines(self._root), self._root)
        return _page(page)

    def live(self, request: Request) -> Response:
        """What is new since a version of the list."""
        life, _, number = request.query_params.get("version", "").partition("-")
        if life != self._life or not number.isdecimal():
            return _json({"reload": True})
        listing = self._catalogue.listing()
        since = int(number)
        rows = {
            entry.id: str(self._pages.row(entry))
            for entry in listing.entries[::-1]
            if listing.changed_at[entry.id] > since
        }
        grid = self._pages.grid(heat(listing.entries)) if listing.version > since else ""
        return _json(
            {
                "version": f"{self._life}-{listing.version}",
                "rows": rows,
                "gone": [id_ for id_, at in listing.removed_at.items() if at > since],
                "grid": str(grid),
                "running": sum(entry.state is State.RUNNING for entry in listing.entries),
            }
        )

    def run(self, request: Request) -> Response:
        """The report of a run: as it was left, or drawn from what there is so far."""
        folder = self._run_folder(request.path_params["id"])
        id_ = self._id(folder)
        if request.path_params["id"] != id_:  # a link such as `latest`
            return RedirectResponse(f"/run/{quote(id_)}")
        report = folder / REPORT
        if report.is_file() and report.stat().st_size > REPORT_BYTES_MAX:
            return RedirectResponse(f"/file/{quote(id_)}/{REPORT}")
        entry, previous = self._listed(id_)
        if entry is None or entry.state is State.FOREIGN:
            return RedirectResponse(f"/files/{quote(id_)}")
        if report.is_file():
            note = ""
            page = report.read_text(encoding="utf-8", errors="replace")
        else:
            self._assert_readable(folder)
            is_running = entry.state is State.RUNNING
            note = "this run goes on: reload for more" if is_running else entry.reason
            page = report_page(folder)
        return _foreign_page(page, self._pages.bar(id_, previous, note))

    def files(self, request: Request) -> Response:
        """What lies in the folder of a run."""
        folder = self._run_folder(request.path_params["id"])
        id_ = self._id(folder)
        entry, previous = self._listed(id_)
        bar = self._pages.bar(id_, previous)
        return _page(self._pages.files(id_, folder, entry.reason if entry else "no run", bar))

    def zip(self, request: Request) -> Response:
        """The folder of a run as one file."""
        folder = self._run_folder(request.path_params["id"])
        name = self._id(folder).replace("/", "-").encode("ascii", "replace").decode()
        safe = "".join(c if c.isalnum() or c in "._,+-" else "_" for c in name)
        return StreamingResponse(
            zipped(folder),
            media_type="application/zip",
            headers={"Content-Disposition": f'attachment; filename="{safe}.zip"', **_HEADERS},
        )

    def compare(self, request: Request) -> Response:
        """Two runs side by side."""
        ids = request.query_params.getlist("run")
        if len(ids) != 2:
            raise HTTPException(400, f"Choose two runs to compare, not {len(ids)}.")
        sides = []
        for id_ in ids:
            folder = self._run_folder(id_)
            self._assert_readable(folder)
            run = read_run(folder, with_logs=False)
            sides.append(msgspec.structs.replace(run, path=Path(self._id(folder))))
        return _page(self._pages.comparison(compare(*sides)))

    def file(self, request: Request) -> Response:
        """A file in the runs directory, as it is."""
        path = self._inside(request.path_params["path"])
        if path is None or not path.is_file():
            raise HTTPException(404, "There is no such file.")
        kind = _TYPES.get(path.suffix, "text/plain")
        policy = {"Content-Security-Policy": _SANDBOX}
        return FileResponse(path, media_type=kind, headers={**_HEADERS, **policy})

    def asset(self, request: Request) -> Response:
        """Style and scripts of our own pages."""
        name = request.path_params["name"]
        if name == "viewer.css":
            return Response(style(), media_type="text/css", headers=_HEADERS)
        if name in _SCRIPTS:
            return Response(viewer_asset(name), media_type="text/javascript", headers=_HEADERS)
        raise HTTPException(404, "There is no such file.")

    async def failed(self, request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return _page(self._pages.message(error.detail), error.status_code)

    async def refused(self, request: Request, error: Exception) -> Response:
        return _page(self._pages.message(str(error)), 500)

    def _run_folder(self, id_: str) -> Path:
        """Return the folder of that id, or that a link there leads to. Raises HTTPException."""
        folder = self._inside(id_)
        if folder is None or folder == self._root or not folder.is_dir():
            raise HTTPException(404, f"There is no run {id_}.")
        return folder

    def _inside(self, path: str) -> Path | None:
        """Return what is at `path` below the runs directory, links followed; None if nothing is."""
        try:
            found = (self._root / path).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # absent, a NUL in it, a loop of links
            return None
        return found if found.is_relative_to(self._root) else None

    def _id(self, folder: Path) -> str:
        return folder.relative_to(self._root).as_posix()

    def _listed(self, id_: str) -> tuple[Entry | None, str | None]:
        """Return what the list says of a run, and the id of the run of the same test before it."""
        entries = self._catalogue.listing().entries
        place = next((p for p, entry in enumerate(entries) if entry.id == id_), None)
        if place is None:
            return None, None
        test = f"{id_.rpartition('/')[0]}/"
        older = (entry.id for entry in entries[place + 1 :] if entry.id.startswith(test))
        return entries[place], next(older, None)

    def _assert_readable(self, folder: Path) -> None:
        history = folder / HISTORY
        if history.exists() and not history.is_file():
            raise HTTPException(422, f"{HISTORY} of {self._id(folder)} is no file.")
        size = history.stat().st_size if history.exists() else 0
        if size > HISTORY_BYTES_MAX:
            raise HTTPException(
                413,
                f"The history of {self._id(folder)} has {size >> 20} MiB: too much for a page. "
                f"On the command line there is 'labrys show', 'history' and 'compare'.",
            )


_HEADERS: Final = {
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}


def _page(content: str, status: int = 200) -> Response:
    headers = {**_HEADERS, "Content-Security-Policy": _OURS}
    return HTMLResponse(content, status, headers=headers)


def _foreign_page(page: str, bar: Markup) -> Response:
    """Return a page of the runs directory with our links above it."""
    links = f'<body>\n<nav class="viewer no-print"><a href="/">labrys</a> {bar}</nav>'
    headers = {**_HEADERS, "Content-Security-Policy": _SANDBOX}
    return HTMLResponse(page.replace("<body>", links, 1), headers=headers)


def _json(value: object) -> Response:
    return Response(msgspec.json.encode(value), media_type="application/json", headers=_HEADERS)
