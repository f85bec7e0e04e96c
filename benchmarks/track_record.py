"""The track record: does labrys find each seeded bug, and does it leave the correct node alone?

    python -m benchmarks.track_record --env netns --seeds 10
    python -m benchmarks.track_record --env docker --seeds 10 --only stale-read,early-ack

Every row is a documented command, run once per seed. `found` counts the runs that ended with exit
code 1 within two minutes; for the correct node (`correct...`) it must be 0. Seconds are those of
the whole command, set-up, judging and tear-down included.
"""

import argparse
import json
import shlex
import statistics
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import NamedTuple

LIMIT_S = 120.0


class Row(NamedTuple):
    """One command, and whether it is expected to find something."""

    name: str
    arguments: str


LEASES = "--option consistency=lease --concurrency 30 --op-timeout 0.3 --time-limit 20"
SLOW_CLOCKS = (
    "--faults '{clock: {targets: [all], modes: [drift], clocks: [wall], rates: [0.1], hold_s: 9}, "
    "partition: {shapes: [isolate-leader], interval_s: 1}}'"
)
POWER = "'{power: {targets: [all, majority], unsynced: [lose], interval_s: 3}}'"

ROWS = (
    Row("correct", "--faults partition,kill,pause --time-limit 60"),
    Row("correct-power", f"--faults {POWER} --time-limit 20"),
    Row("skip-fsync", f"--bug skip-fsync --faults {POWER} --time-limit 20"),
    Row("stale-read", "--bug stale-read --faults partition --time-limit 15"),
    Row(
        "forget-vote",
        "--bug forget-vote --faults '{kill: {targets: [all], interval_s: 1, hold_s: 0.1}, "
        "partition: {shapes: [halves, minority, isolate-leader], interval_s: 1.5}}' "
        "--time-limit 100",
    ),
    Row(
        "early-ack",
        "--bug early-ack --faults partition:isolate-leader --fault-interval 2 --time-limit 20",
    ),
    Row(
        "commit-old-term",
        "--bug commit-old-term --faults '{kill: {targets: [leader], interval_s: 0.7}, "
        "partition: {shapes: [isolate-leader, halves, minority], interval_s: 1}}' "
        "--rate 50 --time-limit 90",
    ),
    Row(
        "lose-tail",
        "--bug lose-tail --faults kill:all+majority --fault-interval 3 --time-limit 60",
    ),
    Row("lease-wall-clock", f"--bug lease-wall-clock {LEASES} {SLOW_CLOCKS}"),
    Row("correct-same-clocks", f"{LEASES} {SLOW_CLOCKS}"),
    Row(
        "correct-lease",
        f"{LEASES} --faults clock,partition:isolate-leader --fault-interval 1",
    ),
    Row(
        "skip-checksum",
        "--bug skip-checksum --faults '{corrupt: {damages: [flip], files: [log], bits: [1, 4], "
        "interval_s: 1.5}}' --option ops_per_key=20 --time-limit 30",
    ),
    Row(
        "rejoin-as-voter",
        "--bug rejoin-as-voter --nodes 3 --system-option election-timeout-ms=600 --faults "
        "'{partition: {shapes: [isolate-leader], interval_s: 2, hold_s: 3.9}, corrupt: {damages: "
        "[lose-data], targets: [one], interval_s: 2, hold_s: 1}}' --time-limit 60",
    ),
)


def main() -> None:
    """Run the rows and print one line per run and a table at the end."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="netns")
    parser.add_argument("--seeds", type=int, default=10, help="runs per row")
    parser.add_argument("--first-seed", type=int, default=1)
    parser.add_argument("--only", help="rows, separated by commas")
    parser.add_argument("--runs-dir", type=Path, default=Path("runs"))
    options = parser.parse_args()
    wanted = options.only.split(",") if options.only else [row.name for row in ROWS]
    table = []
    for row in ROWS:
        if row.name not in wanted:
            continue
        codes: Counter[int] = Counter()
        found_s: list[float] = []
        every_s: list[float] = []
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            command = [
                *("labrys", "test", "--env", options.env, "--json", "--seed", str(seed)),
                *("--runs-dir", str(options.runs_dir)),
                *shlex.split(row.arguments),
            ]
            began = time.monotonic()
            run = subprocess.run(command, capture_output=True, text=True, check=False)
            seconds = time.monotonic() - began
            codes[run.returncode] += 1
            every_s.append(seconds)
            if run.returncode == 1 and seconds <= LIMIT_S:
                found_s.append(seconds)
            why = (
                json.loads(run.stdout)["path"] if run.stdout.startswith("{") else run.stderr[-300:]
            )
            print(f"{row.name} seed {seed}: exit {run.returncode} in {seconds:.1f} s  {why}")
            sys.stdout.flush()
        table.append((row, len(found_s), statistics.median(found_s or every_s), codes))
    print(f"\n| bug | command | found in k of {options.seeds} | median s | exit codes |")
    print("| --- | --- | --- | --- | --- |")
    for row, found, median, codes in table:
        counts = ", ".join(f"{code}: {count}" for code, count in sorted(codes.items()))
        print(
            f"| {row.name} | `labrys test --env {options.env} {row.arguments}` | {found} "
            f"| {median:.0f} | {counts} |"
        )


if __name__ == "__main__":
    main()
