"""What an environment costs: set-up, tear-down, and one partition of five nodes.

    python -m benchmarks.environments --env netns --runs 10
    python -m benchmarks.environments --env ssh --runs 10 -- --hosts m1,m2,m3,m4,m5

Each figure is the median over short runs of the register workload. `nodes up` is what the
environment itself says, `set-up` ends with a write through every node, `tear-down` collects the
logs and removes everything, and a partition is the time from its plan to its rules in all nodes,
the ledger's two fsyncs included. Words behind `--` go to `labrys test` as they are.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any


def partition_ms(history: Path) -> list[float]:
    """How long each partition and each heal took."""
    found: list[float] = []
    begun: dict[str, Any] | None = None
    for line in history.read_text().splitlines():
        op = json.loads(line)
        if op["process"] != "nemesis" or not op["f"].endswith("-partition"):
            continue
        if begun is None:
            begun = op
        else:
            found.append((op["time"] - begun["time"]) / 1e6)
            begun = None
    return found


def told(name: str, values: Sequence[float], unit: str) -> None:
    """Print a median with what lies around it."""
    print(
        f"{name:<12} {statistics.median(values):8.3g} {unit}   "
        f"(from {min(values):.3g} to {max(values):.3g}, {len(values)} times)"
    )


def main() -> int:
    """Run, and print one line for each figure."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="netns")
    parser.add_argument("--runs", type=int, default=10)
    parser.add_argument("--nodes", type=int, default=5)
    parser.add_argument("words", nargs="*", help="more words for labrys test")
    options = parser.parse_args()
    up_s: list[float] = []
    set_up_s: list[float] = []
    tear_down_s: list[float] = []
    partitions_ms: list[float] = []
    for seed in range(1, options.runs + 1):
        with TemporaryDirectory(prefix="labrys-environments-") as folder:
            command = ["labrys", "test", "--json", "--env", options.env, "--seed", str(seed)]
            command += ["--nodes", str(options.nodes), "--runs-dir", folder, "--time-limit", "3"]
            command += ["--faults", "partition", "--fault-interval", "0.4", *options.words]
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            if not run.stdout.startswith("{"):
                print(run.stderr, file=sys.stderr)
                return 1
            facts = json.loads(run.stdout)
            for up, unit in re.findall(r"nodes (?:up|ready) in ([0-9.]+) (ms|s)", run.stderr):
                up_s.append(float(up) / (1000 if unit == "ms" else 1))
            set_up_s.append(facts["results"]["timings"]["setup_s"])
            tear_down_s.append(facts["results"]["timings"]["teardown_s"])
            partitions_ms += partition_ms(Path(facts["path"], "history.jsonl"))
    print(f"{options.env}, {options.nodes} nodes")
    told("nodes up", up_s, "s ")
    told("set-up", set_up_s, "s ")
    told("tear-down", tear_down_s, "s ")
    told("partition", partitions_ms, "ms")
    return 0


if __name__ == "__main__":
    sys.exit(main())
