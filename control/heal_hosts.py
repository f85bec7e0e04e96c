"""Finish dead runs on hosts that were reached by ssh.

A run that may hold hosts says so in its directory (see `held`), so only those are asked, however
many runs are stored. A host that another run has taken meanwhile was cleaned by that one.
"""

from collections.abc import Callable
from pathlib import Path

from labrys.control.environments.held import Held, forget_held, read_held
from labrys.control.errors import LabrysError
from labrys.control.heal import Healed
from labrys.control.nemesis.package import each
from labrys.control.store import RunDirectory, touched_runs


def heal_hosts(runs_dir: Path, say: Callable[[str], None]) -> Healed:
    """Clean the hosts that dead runs below `runs_dir` still hold; tell each by `say`.

    A host that cannot be reached is told as a failure and stays for the next time; the others are
    cleaned all the same.
    """
    removed: list[str] = []
    failures: list[str] = []
    standing: list[str] = []
    for run in touched_runs(runs_dir):
        try:
            held = read_held(run.path)
            if held is None or run.goes_on():
                continue
            cleaned, errors = _finish(run, held, say)
        except (LabrysError, OSError) as error:
            cleaned, errors = [], [str(error)]
        removed += cleaned
        failures += errors
        if errors:
            standing.append(str(run.path.resolve()))
    return Healed(removed=tuple(removed), failures=tuple(failures), standing=tuple(standing))


def _finish(
    run: RunDirectory, held: Held, say: Callable[[str], None]
) -> tuple[list[str], list[str]]:
    """Return what was cleaned and what went wrong."""
    from labrys.control.environments.ssh import SshEnvironment

    nodes = tuple(held.hosts)
    env = SshEnvironment(nodes, run.path, say, tuple(held.hosts.values()), token=held.token)
    found, errors = each(nodes, env.finish)
    env.close()
    cleaned = [f"{node} on {held.hosts[node]}" for node, was_there in found.items() if was_there]
    if cleaned:
        say(f"heal: cleaned {', '.join(cleaned)}, left by the dead run {run.path}")
    if not errors:
        forget_held(run.path)
    return cleaned, [f"{run.path}: {node}: {error}" for node, error in errors.items()]
