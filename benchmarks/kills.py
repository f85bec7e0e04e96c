"""Is every killed run undone for certain? SIGKILL at random moments, and what is left afterwards.

    python -m benchmarks.kills --env docker --count 50
    python -m benchmarks.kills --env netns --count 50 --faults all

A run with all faults is killed at a moment drawn from its whole life, set-up and tear-down
included. With --env docker nothing else may use the engine meanwhile: what others make there would
be taken for its. Namespaces touch no engine, so what belongs to one is not looked at.
Then every other time `labrys heal` cleans up, and every other time the next run does it by itself.
What must be as it was before: containers, networks, network namespaces, mounts, loop devices, the
host's iptables rules and queues, and the processes that stem from the run, stopped ones above all.
The history of the killed run must still be there to be judged.
"""

import argparse
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory

MARK = "LABRYS_KILLS_MARK"
SETTLED_WITHIN_S = 15.0


def lines(*command: str) -> set[str]:
    """What a command lists; nothing where there is no such command."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except FileNotFoundError:
        return set()
    return set(done.stdout.splitlines())


def proc(path: str) -> set[str]:
    """The lines of a file below /proc; some are not there on every kernel."""
    try:
        return set(Path("/proc", path).read_text().splitlines())
    except OSError:
        return set()


def processes(mark: str) -> set[str]:
    """The processes of this machine that stem from a run, with their states."""
    found = set()
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            if f"{MARK}={mark}".encode() in (folder / "environ").read_bytes():
                state = (folder / "stat").read_text().rpartition(")")[2].split()[0]
                command = (folder / "cmdline").read_bytes().replace(b"\0", b" ").decode()
                if state != "Z":
                    found.add(f"{folder.name} {state} {command[:80]}")
        except OSError:
            continue  # gone meanwhile, or not ours
    return found


def machine(env: str) -> dict[str, set[str]]:
    """What a run in this environment may change on the machine, as it is now."""
    found = everything()
    if env == "netns":
        for what in ("container", "network", "volume", "interface"):
            found[what].clear()
        found["mount"] = {line for line in found["mount"] if "docker" not in line}
    return found


def everything() -> dict[str, set[str]]:
    """What there is on the machine now."""
    return {
        "container": lines("docker", "ps", "-a", "--format", "{{.Names}}"),
        "network": lines("docker", "network", "ls", "--format", "{{.Name}}"),
        "volume": lines("docker", "volume", "ls", "--format", "{{.Name}}"),
        "namespace": lines("ip", "netns", "list"),
        "interface": {line.split(":")[1].strip() for line in lines("ip", "-o", "link")},
        "mount": {" ".join(line.split()[3:]) for line in proc("self/mountinfo")},
        "loop device": {
            f"{path.parents[1].name}: {path.read_text().strip()}"
            for path in Path("/sys/block").glob("loop*/loop/backing_file")
        },
        "rule": {line for line in lines("iptables", "-w", "-S") if "LABRYS" in line},
        "queue": proc("net/netfilter/nfnetlink_queue"),
    }


def left_over(env: str, before: dict[str, set[str]], mark: str) -> list[str]:
    """What is there now and was not before."""
    found = [
        f"{what} {name}" for what, names in machine(env).items() for name in names - before[what]
    ]
    return found + [f"process {process}" for process in processes(mark)]


def settled(left: Callable[[], list[str]]) -> list[str]:
    """What is still left after the kernel has had time to take down what has ended."""
    deadline = time.monotonic() + SETTLED_WITHIN_S
    while (found := left()) and time.monotonic() < deadline:
        time.sleep(0.2)
    return found


def labrys(*words: str) -> "subprocess.CompletedProcess[str]":
    """Call a command and return what it said."""
    return subprocess.run(["labrys", *words], capture_output=True, text=True, check=False)


def killed(runs_dir: Path, words: Iterable[str], after_s: float, mark: str) -> str:
    """Start a run and kill it after so long; return the last thing it said."""
    with (runs_dir / "said").open("w+") as said:
        run = subprocess.Popen(
            ["labrys", "test", "--runs-dir", str(runs_dir), *words],
            stdin=subprocess.DEVNULL,
            stdout=said,
            stderr=subprocess.STDOUT,
            env={**os.environ, MARK: mark},
            start_new_session=True,
        )
        try:
            run.wait(after_s)
        except subprocess.TimeoutExpired:
            run.send_signal(signal.SIGKILL)
            run.wait()
        said.seek(0)
        return (said.read().strip().splitlines() or ["nothing yet"])[-1]


def main() -> int:
    """Kill, clean up and look, so many times; return 1 if anything stayed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--env", default="netns")
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--faults", default="all")
    parser.add_argument("--time-limit", type=float, default=20.0)
    parser.add_argument("--within", type=float, default=27.0, help="seconds of a run's life")
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    rng = random.Random(options.seed)
    failures = 0
    for number in range(1, options.count + 1):
        after_s = rng.uniform(0, options.within)
        mark = f"{options.seed}-{number}-{os.getpid()}"
        with TemporaryDirectory(prefix="labrys-kills-") as folder:
            runs_dir = Path(folder)
            before = machine(options.env)
            words = ["--env", options.env, "--faults", options.faults]
            words += ["--time-limit", f"{options.time_limit:g}", "--fault-interval", "2"]
            words += ["--seed", str(number)]
            last = killed(runs_dir, words, after_s, mark)
            if number % 2:
                how, done = "heal", labrys("heal", "--runs-dir", folder)
            else:
                how = "next run"
                next_run = ["test", "--env", options.env, "--time-limit", "1"]
                done = labrys(*next_run, "--runs-dir", str(runs_dir / "next"))
            wrong = settled(partial(left_over, options.env, before, mark))
            if done.returncode not in (0, 3):
                wrong.append(f"{how} ended with exit code {done.returncode}: {done.stderr[-500:]}")
            judged = None
            for history in runs_dir.glob("register*/*/history.jsonl"):
                judged = labrys("check", str(history.parent)).returncode
                if judged not in (0, 3):
                    wrong.append(f"its history is judged with exit code {judged}")
        failures += bool(wrong)
        outcome = "; ".join(wrong) or "nothing left"
        print(f"{number:3} after {after_s:5.1f} s ({last[:60]}), {how}: {outcome}")
        sys.stdout.flush()
    print(f"{options.env}: {options.count - failures} of {options.count} left nothing behind")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
