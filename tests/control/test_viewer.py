"""The viewer over HTTP: what it shows, what it refuses, and that it stays closed to markup."""

import io
import json
import shutil
import signal
import socket
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import uvicorn
from starlette.testclient import TestClient
from starlette.types import Receive, Scope, Send
from tests.control.report_runs import HOSTILE
from tests.control.test_report_page import BROWSER_TIMEOUT_S, CHROMIUM, root_of
from tests.control.viewer_runs import (
    BARE,
    DIED,
    FOREIGN,
    HURT,
    INVALID,
    NEW,
    RUNNING,
    TORN,
    VALID,
    Runs,
    edit,
)

from labrys.control.viewer import app as viewer
from labrys.control.viewer.app import make_app
from labrys.control.viewer.command import is_loopback


@pytest.fixture
def runs(tmp_path: Path) -> Iterator[Runs]:
    made = Runs(tmp_path / "runs")
    yield made
    made.end()


@pytest.fixture
def client(runs: Runs) -> TestClient:
    return TestClient(make_app(runs.root))


def test_the_list_has_every_folder_with_its_verdict_and_reason(client: TestClient) -> None:
    answer = client.get("/")
    assert answer.status_code == 200
    for id_ in (INVALID, VALID, HURT, RUNNING, DIED, TORN, NEW, FOREIGN, BARE):
        assert f'<tr id="{id_}"' in answer.text
    row = answer.text.partition(f'<tr id="{INVALID}"')[2].partition("</tr>")[0]
    for told in ("INVALID", "2026-03-04 05:06:07", "register stale-read", "partition, kill",
                 "netns, 5 nodes", "8817", "1 of 20 keys is not linearizable"):  # fmt: skip
        assert told in row, told


def test_values_are_never_markup(client: TestClient) -> None:
    for path in ("/", f"/files/{HURT}", f"/compare?run={HURT}&run={VALID}", f"/run/{HOSTILE}",
                 f"/compare?run={HOSTILE}&run={HOSTILE}"):  # fmt: skip
        page = client.get(path).text
        assert "<img" not in page, path
    assert "&lt;/script&gt;&lt;img src=x" in client.get("/").text
    news = client.get("/live", params={"version": stale(client)}).json()
    assert "<img" not in news["rows"][HURT] + news["grid"]


def stale(client: TestClient) -> str:
    """The version of a list before anything was in it."""
    version = client.get("/").text.partition('data-version="')[2].partition('"')[0]
    return f"{version.partition('-')[0]}-0"


def test_what_is_new_since_a_version_is_told(client: TestClient, runs: Runs) -> None:
    first = client.get("/live", params={"version": stale(client)}).json()
    assert len(first["rows"]) == 9
    assert first["running"] == 1
    nothing = client.get("/live", params={"version": first["version"]}).json()
    assert (nothing["rows"], nothing["gone"]) == ({}, [])
    lines = (runs.root / INVALID / "history.jsonl").read_bytes().splitlines(keepends=True)
    runs.grow(lines[40:60])
    shutil.rmtree(runs.root / BARE)
    news = client.get("/live", params={"version": first["version"]}).json()
    assert list(news["rows"]) == [RUNNING]
    assert news["gone"] == [BARE]


@pytest.mark.parametrize("version", ["", "x", "0-0", "x-y"])
def test_a_list_of_another_server_is_to_be_loaded_anew(client: TestClient, version: str) -> None:
    assert client.get("/live", params={"version": version}).json() == {"reload": True}


def test_a_run_shows_its_report_with_links_above_it(client: TestClient) -> None:
    page = client.get(f"/run/{INVALID}")
    assert "<p>as left</p>" in page.text
    assert f'href="/zip/{INVALID}"' in page.text
    assert "sandbox allow-scripts;" in page.headers["content-security-policy"]
    before = client.get(f"/run/{VALID}").text
    assert f"/compare?run={INVALID}&amp;run={VALID}" in before


@pytest.mark.parametrize("id_", [VALID, RUNNING, DIED, TORN, NEW, BARE, HURT])
def test_a_run_without_a_report_is_drawn_from_what_is_there(client: TestClient, id_: str) -> None:
    page = client.get(f"/run/{id_}")
    assert page.status_code == 200
    assert page.text.startswith("<!doctype html>")
    assert '<script type="text/plain" id="data">' in page.text
    assert ("goes on" in page.text.partition("</nav>")[0]) == (id_ == RUNNING)


@pytest.mark.parametrize("odd", [None, 3, 1.5, "x", [], [3], {}, [{"kind": [1]}], [[]], True])
def test_a_spec_with_odd_fields_is_listed_drawn_and_compared(
    client: TestClient, runs: Runs, odd: Any
) -> None:
    fields = ("name", "env", "nodes", "system", "workload", "bug", "faults", "fault_plan",
              "time_limit", "concurrency", "seed")  # fmt: skip
    (runs.root / DIED / "test.yaml").write_text(json.dumps(dict.fromkeys(fields, odd)))
    for path in ("/", f"/run/{DIED}", f"/compare?run={DIED}&run={VALID}"):
        assert client.get(path).status_code == 200, path


def test_a_link_leads_to_the_run(client: TestClient) -> None:
    answer = client.get("/run/latest", follow_redirects=False)
    assert answer.headers["location"] == f"/run/{VALID}"


def test_what_is_no_run_shows_its_files(client: TestClient) -> None:
    page = client.get(f"/run/{FOREIGN}")
    assert page.url.path == f"/files/{FOREIGN}"
    assert f'href="/file/{FOREIGN}/readme"' in page.text
    assert client.get(f"/file/{FOREIGN}/readme").text == "nothing of ours"


def test_nothing_outside_the_runs_directory_is_served(client: TestClient, runs: Runs) -> None:
    secret = runs.root.parent / "secret"
    secret.mkdir()
    (secret / "history.jsonl").write_text("secret")
    (runs.root / "trap").symlink_to(secret)
    (runs.root / INVALID / "trap").symlink_to(secret / "history.jsonl")
    outside = ("../secret", "..%2fsecret", "%2e%2e/secret", "trap", f"/{secret}", "%2e%2e",
               "%2e", "", "a%00b", "x" * 5_000)  # fmt: skip
    for path in outside:
        for route in ("run", "files", "zip"):
            assert client.get(f"/{route}/{path}").status_code == 404, (route, path)
        for file in (f"{path}/history.jsonl", path):
            assert client.get(f"/file/{file}").status_code == 404, file
        two = client.get("/compare", params={"run": [path, VALID]})
        assert two.status_code == 404 or "secret" not in two.text
    assert client.get(f"/file/{INVALID}/trap").status_code == 404
    with zipfile.ZipFile(io.BytesIO(client.get(f"/zip/{INVALID}").content)) as archive:
        assert not [name for name in archive.namelist() if "trap" in name]
    assert client.get("/assets/..%2fapp.py").status_code == 404
    assert client.get("/assets/app.py").status_code == 404


def test_a_run_comes_as_a_zip(client: TestClient, runs: Runs) -> None:
    answer = client.get(f"/zip/{VALID}")
    expected = 'attachment; filename="register-partition-kill-20260305T050607Z-8818.zip"'
    assert answer.headers["content-disposition"] == expected
    folder = runs.root / VALID
    with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
        assert archive.testzip() is None
        found = {name: archive.read(name) for name in archive.namelist()}
    assert found == {
        f"{folder.name}/{path.relative_to(folder)}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def test_files_are_served_as_text_and_foreign_pages_in_a_sandbox(
    client: TestClient, runs: Runs
) -> None:
    log = client.get(f"/file/{VALID}/nodes/n1/log")
    assert log.headers["content-type"].startswith("text/plain")
    assert log.headers["x-content-type-options"] == "nosniff"
    (runs.root / FOREIGN / "page.html").write_text("<script>steal()</script>")
    page = client.get(f"/file/{FOREIGN}/page.html")
    assert page.headers["content-type"].startswith("text/html")
    policy = page.headers["content-security-policy"]
    assert policy.startswith("sandbox allow-scripts; default-src 'none'")
    assert "allow-same-origin" not in policy


def test_two_runs_are_compared(client: TestClient) -> None:
    page = client.get("/compare", params={"run": [INVALID, VALID]})
    assert page.status_code == 200
    for told in (INVALID, VALID, "8817", "8818", "The seeds differ", "p99 A", "kill n3"):
        assert told in page.text, told
    twice = client.get("/compare", params={"run": [INVALID, INVALID]}).text
    assert "All events are the same in both" in twice


@pytest.mark.parametrize(
    ("chosen", "status"), [([], 400), ([VALID], 400), ([VALID] * 3, 400), ([VALID, "x"], 404)]
)
def test_a_comparison_takes_two_runs(client: TestClient, chosen: list[str], status: int) -> None:
    assert client.get("/compare", params={"run": chosen}).status_code == status


def test_a_history_that_is_too_large_is_not_drawn(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(viewer, "HISTORY_BYTES_MAX", 100)
    answer = client.get(f"/run/{DIED}")
    assert answer.status_code == 413
    assert "too much for a page" in answer.text


def test_suites_are_linked_to_their_pages(client: TestClient, runs: Runs) -> None:
    folder = runs.root / "suites/nightly/20260305T010000Z-7"
    folder.mkdir(parents=True)
    (folder / "index.html").write_text('<a href="../../../x">')
    summary = {"verdict": "invalid", "counts": {"valid": 11, "invalid": 1}, "finished": True}
    (folder / "summary.json").write_text(json.dumps(summary))
    page = client.get("/").text
    assert '<a href="/file/suites/nightly/20260305T010000Z-7/index.html">' in page
    assert "11 valid, 1 invalid" in page
    assert '<tr id="suites' not in page
    edit(folder / "summary.json", finished=False)
    assert "UNFINISHED" in client.get("/").text.partition("Suites")[2].partition("</ul>")[0]
    (folder / "summary.json").write_text("{")
    assert "DAMAGED" in client.get("/").text.partition("Suites")[2].partition("</ul>")[0]


def test_an_empty_runs_directory_says_how_to_fill_it(tmp_path: Path) -> None:
    page = TestClient(make_app(tmp_path)).get("/").text
    assert "<code>labrys test</code>" in page


def test_a_runs_directory_that_is_gone_is_told(client: TestClient, runs: Runs) -> None:
    shutil.rmtree(runs.root)
    answer = client.get("/")
    assert answer.status_code == 500
    assert "cannot be listed" in answer.text


def test_a_name_that_is_not_of_this_machine_is_refused(runs: Runs) -> None:
    app = make_app(runs.root, hosts=("localhost", "127.0.0.1", "[::1]"))
    for host, status in (
        ("localhost:8642", 200),
        ("127.0.0.1:8642", 200),
        ("[::1]:8642", 200),
        ("evil.example:8642", 400),
        ("", 400),
    ):
        assert TestClient(app).get("/", headers={"host": host}).status_code == status, host


def test_our_pages_allow_no_script_but_ours(client: TestClient) -> None:
    answer = client.get("/")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "unsafe" not in policy
    assert "<script>" not in answer.text
    assert "style=" not in answer.text
    for name in ("theme.js", "list.js", "viewer.css"):
        assert client.get(f"/assets/{name}").status_code == 200


def test_addresses_of_this_machine_only_are_known() -> None:
    assert is_loopback("127.0.0.1")
    assert is_loopback("127.8.9.1")
    assert is_loopback("::1")
    assert not is_loopback("0.0.0.0")
    assert not is_loopback("::")
    assert not is_loopback("192.168.1.4")


LABRYS = str(Path(sys.executable).with_name("labrys"))


def test_the_command_tells_where_it_listens_and_ends_when_asked(runs: Runs) -> None:
    words = [LABRYS, "serve", "--runs-dir", str(runs.root), "--port", "0", "--json"]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as serving:
        assert serving.stdout is not None
        assert serving.stderr is not None
        facts = json.loads(serving.stdout.readline())
        assert facts["url"].startswith("http://127.0.0.1:")
        port = int(facts["url"].rstrip("/").rpartition(":")[2])
        with socket.create_connection(("127.0.0.1", port), timeout=30) as asking:
            asking.sendall(b"GET / HTTP/1.0\r\nHost: localhost\r\n\r\n")
            assert asking.makefile("rb").readline().startswith(b"HTTP/1.1 200")
        serving.send_signal(signal.SIGINT)
        assert b"Traceback" not in serving.stderr.read()
    assert serving.returncode == 130


def test_a_port_that_is_taken_is_a_machine_error(runs: Runs) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        words = [LABRYS, "serve", "--runs-dir", str(runs.root)]
        port = str(taken.getsockname()[1])
        done = subprocess.run([*words, "--port", port], capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert "cannot listen there" in done.stderr
    assert "--port" in done.stderr
    absent = subprocess.run(
        [LABRYS, "serve", "--runs-dir", "absent"], capture_output=True, text=True, check=False
    )
    assert absent.returncode == 2
    assert "no such runs directory" in absent.stderr


@contextmanager
def served(root: Path, *, after_list: Callable[[], None] = lambda: None) -> Iterator[str]:
    """The viewer on a port of its own, in a thread; `after_list` is called once it was shown."""
    app = make_app(root)

    async def watched(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, receive, send)
        if scope.get("path") == "/":
            after_list()

    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(watched, log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listening.getsockname()[1]}"
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def dom(url: str, tmp_path: Path) -> str:
    """Return the document after its scripts have run."""
    if CHROMIUM is None:
        pytest.skip("chromium is not installed: apt-get install chromium")
    command = [
        CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic",
        "--disable-background-networking", f"--user-data-dir={tmp_path / 'profile'}",
        "--virtual-time-budget=9000", "--window-size=1400,1000", "--dump-dom", url,
    ]  # fmt: skip
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=BROWSER_TIMEOUT_S, check=True
    )
    return done.stdout


def shown(document: str) -> set[str]:
    """Ids of the rows that are not hidden."""
    rows = document.partition('<table id="runs">')[2]
    heads = [part.partition(">")[0] for part in rows.split("<tr id=")[1:]]
    return {head.split('"')[1] for head in heads if "hidden" not in head}


@pytest.mark.browser
@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("", {INVALID, VALID, HURT, RUNNING, DIED, TORN, NEW, FOREIGN, BARE}),
        ("invalid -seed:8818 faults:partition name:register-partition", {INVALID}),
        ('faults="partition,kill" workload="register stale-read" env:netns', {INVALID, VALID}),
        ("started:2026-03-06 verdict:running", {RUNNING}),
    ],
)
def test_a_browser_filters_the_list(
    runs: Runs, tmp_path: Path, query: str, expected: set[str]
) -> None:
    with served(runs.root) as url:
        document = dom(f"{url}/?q={quote(query)}", tmp_path)
    assert shown(document) == expected
    assert "data-pwned" not in root_of(document)
    assert "<img" not in document


@pytest.mark.browser
def test_a_browser_keeps_up_with_what_goes_on(runs: Runs, tmp_path: Path) -> None:
    def go_on() -> None:
        shutil.copytree(runs.root / VALID, runs.root / f"{VALID}-2", dirs_exist_ok=True)
        shutil.rmtree(runs.root / BARE, ignore_errors=True)
        runs.end()

    with served(runs.root, after_list=go_on) as url:
        document = dom(url, tmp_path)
    rows = document.partition('<table id="runs">')[2]
    assert f'<tr id="{VALID}-2" class="s-valid new">' in rows
    assert f'<tr id="{BARE}"' not in rows
    assert f'<tr id="{RUNNING}" class="s-unfinished">' in rows
    assert rows.index(f'id="{RUNNING}"') < rows.index(f'id="{VALID}-2"') < rows.index(INVALID)


@pytest.mark.browser
def test_a_browser_draws_a_report_in_its_sandbox(runs: Runs, tmp_path: Path) -> None:
    with served(runs.root) as url:
        document = dom(f"{url}/run/{HURT}", tmp_path)
    assert 'data-state="ready"' in root_of(document)
    assert "data-pwned" not in root_of(document)
    assert f'href="/zip/{HURT}"' in document
