"""How fast the viewer lists many runs, and how large its pages are.

`python -m benchmarks.viewer` simulates two runs, one of them with a bug, and lists copies of them
of many nights: their histories and reports are links to the same files, the rest is their own.
"""

import argparse
import itertools
import os
import tempfile
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final

import msgspec
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
    parser.add_argument("--keep", type=Path, help="Make the runs there, and leave them there.")
    arguments = parser.parse_args()
    if arguments.keep is not None:
        measure(arguments.keep, arguments.runs)
        return
    with tempfile.TemporaryDirectory() as folder:
        measure(Path(folder), arguments.runs)


def measure(folder: Path, count: int) -> None:
    """Print what listing `count` runs costs."""
    runs_dir = folder / "runs"
    make_runs(folder / "models", runs_dir, count)
    client = TestClient(make_app(runs_dir))
    began = time.perf_counter()
    page = client.get("/")
    print(f"list of {count} runs, nothing known: {time.perf_counter() - began:.2f} s")
    times = []
    for _ in range(10):
        began = time.perf_counter()
        page = client.get("/")
        times.append(time.perf_counter() - began)
    print(f"list again: {sorted(times)[5]:.2f} s, {len(page.content) / 1024:.0f} KiB")
    version = page.text.partition('data-version="')[2].partition('"')[0]
    began = time.perf_counter()
    news = client.get("/live", params={"version": version})
    print(f"what is new: {time.perf_counter() - began:.3f} s, {len(news.content)} bytes")


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
