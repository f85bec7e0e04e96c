"""How fast the viewer lists many runs, and how large its pages are.

`python -m benchmarks.viewer` simulates two runs, one of them with a bug, and lists copies of them
of many nights: their histories and reports are links to the same files, the rest is their own.
`--picture docs/viewer.png` draws the list with Chromium instead of measuring.
"""

import argparse
import itertools
import os
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
import uvicorn
from httpx2 import Response
from starlette.testclient import TestClient

from labrys.control.interruption import Interruption
from labrys.control.lifecycle import run_test
from labrys.control.report.page import write_report
from labrys.control.spec import resolve, to_yaml
from labrys.control.viewer.app import make_app

FAULTS: Final = (
    ["partition"], ["kill"], ["partition", "kill"], ["pause"], ["partition", "kill", "pause"],
    ["clock"], ["disk"], ["power"], [],
)  # fmt: skip
ENVIRONMENTS: Final = ("sim", "netns", "docker")


def main() -> None:
    """Make the runs and measure."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=2_000)
    parser.add_argument("--picture", type=Path, help="Draw the list into this PNG.")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        runs_dir = Path(folder) / "runs"
        make_runs(Path(folder) / "models", runs_dir, arguments.runs)
        if arguments.picture is None:
            measure(runs_dir, arguments.runs)
        else:
            draw(runs_dir, arguments.picture)


def draw(runs_dir: Path, picture: Path) -> None:
    """Let Chromium draw the run list. Raises if there is no Chromium."""
    listening = socket.create_server(("127.0.0.1", 0))
    server = uvicorn.Server(uvicorn.Config(make_app(runs_dir), log_level="error"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    try:
        subprocess.run(
            [
                *("chromium", "--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"),
                *("--virtual-time-budget=3000", "--window-size=1460,900"),
                f"--screenshot={picture.resolve()}",
                f"http://127.0.0.1:{listening.getsockname()[1]}/",
            ],
            check=True,
            capture_output=True,
        )
    finally:
        server.should_exit = True
        thread.join()
        listening.close()


def measure(runs_dir: Path, count: int) -> None:
    """Print what listing `count` runs costs."""
    client = TestClient(make_app(runs_dir))
    page = timed(f"list of {count} runs, nothing known", lambda: client.get("/"))
    page = timed("list again", lambda: client.get("/"), times=10)
    version = page.text.partition('data-version="')[2].partition('"')[0]
    timed("what is new", lambda: client.get("/live", params={"version": version}), times=10)


def timed(what: str, ask: Callable[[], Response], *, times: int = 1) -> Response:
    """Print the median time of asking, on the clock and of the processor, and return an answer."""
    walls, cpus = [], []
    for _ in range(times):
        wall, cpu = time.perf_counter(), time.process_time()
        answer = ask()
        walls.append(time.perf_counter() - wall)
        cpus.append(time.process_time() - cpu)
    print(
        f"{what}: {statistics.median(walls):.2f} s, {statistics.median(cpus):.2f} s of CPU, "
        f"{len(answer.content) / 1024:.0f} KiB"
    )
    return answer


def make_runs(models: Path, runs_dir: Path, count: int) -> None:
    """Make `count` runs of the last weeks, the newest of them today."""
    originals = [
        run_test(resolve(fields), models, interruption=Interruption(), say=lambda line: None).run
        for fields in (
            {"env": "sim", "seed": 1, "time_limit": 10.0, "faults": ["partition", "kill"]},
            {"env": "sim", "seed": 1, "time_limit": 10.0, "bug": "stale-read"},
        )
    ]
    for original in originals:
        write_report(original.path)
    now = datetime.now(UTC)
    kinds = itertools.cycle(itertools.product(FAULTS, ENVIRONMENTS))
    for number, (faults, env) in zip(range(count), kinds, strict=False):
        is_failed = number % 37 == 5
        original = originals[is_failed]
        moment = now - timedelta(minutes=9 * number)
        spec = msgspec.structs.replace(original.spec(), faults=faults, env=env, seed=number)
        name = "-".join(["register", *(["stale-read"] if is_failed else []), *faults])
        path = runs_dir / name / f"{moment:%Y%m%dT%H%M%SZ}-{number}"
        path.mkdir(parents=True)
        (path / "test.yaml").write_text(to_yaml(spec))
        results: dict[str, Any] = original.read_results() or {}
        changed = {"name": name, "seed": number, "faults": faults, "environment": env}
        started = {"started_at": f"{moment:%Y-%m-%dT%H:%M:%S.000000Z}"}
        (path / "results.json").write_bytes(msgspec.json.encode({**results, **changed, **started}))
        for file in (original.history, original.ledger, original.report, original.log):
            os.link(file, path / file.name)


if __name__ == "__main__":
    main()
