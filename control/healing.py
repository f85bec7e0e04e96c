"""`labrys heal`: finish what a dead run could not: remove its nodes, close its ledger."""

from collections.abc import Callable
from pathlib import Path

import click
import msgspec

from labrys.checkers.fault import FaultStage
from labrys.control.errors import LabrysError
from labrys.control.heal import Healed, heal
from labrys.control.heal_hosts import heal_hosts
from labrys.control.ledger import Ledger, in_force, read_ledger
from labrys.control.store import RunDirectory, touched_runs


def heal_and_print(runs_dir: Path, *, as_json: bool) -> int:
    """Heal, tell what was done, and return 0, or 4 if something could not be undone."""

    def say(line: str) -> None:
        click.echo(line, err=as_json)

    healed = heal(say)
    on_hosts = heal_hosts(runs_dir, say)

    def may_stand(run: RunDirectory) -> bool:
        return healed.may_stand(run) or on_hosts.may_stand(run)

    closed, failures = close_ledgers(runs_dir, may_stand, say)
    healed = msgspec.structs.replace(
        healed,
        removed=(*healed.removed, *on_hosts.removed),
        failures=(*healed.failures, *on_hosts.failures),
        standing=None if healed.standing is None else healed.standing + (on_hosts.standing or ()),
    )
    if as_json:
        facts = msgspec.to_builtins(healed) | {"closed": closed}
        facts["failures"] += failures
        click.echo(msgspec.json.encode(facts))
    else:
        _tell(healed, closed, failures)
    return LabrysError.exit_code if (*healed.failures, *failures) else 0


def close_ledgers(
    runs_dir: Path, may_stand: Callable[[RunDirectory], bool], say: Callable[[str], None]
) -> tuple[list[str], list[str]]:
    """Write `undone` for every fault that ended with the nodes of a dead run.

    Returns the ledgers that were closed and what went wrong. Runs that go on are left alone, and
    so are those whose nodes may still stand: their faults have not ended.
    """
    closed: list[str] = []
    failures: list[str] = []
    for run in touched_runs(runs_dir):
        try:
            open_faults = _close_ledger(run, may_stand)
        except LabrysError as error:
            failures.append(str(error))
            continue
        if open_faults:
            closed.append(str(run.ledger))
            say(f"heal: {open_faults} faults of {run.path} ended with its nodes")
    return closed, failures


def _close_ledger(run: RunDirectory, may_stand: Callable[[RunDirectory], bool]) -> int:
    """Return how many faults were still open in the ledger of a run that is over."""
    events = read_ledger(run.ledger)
    open_faults = in_force(events)
    if not open_faults or run.goes_on() or may_stand(run):
        return 0
    # The run's clock died with it; the last time that it wrote down is the best there is.
    last_ns = max(event.time for event in events)
    with Ledger(run.ledger, lambda: last_ns) as ledger:
        for fault in open_faults:
            ledger.record(fault.id, FaultStage.UNDONE, fault.kind)
    return len(open_faults)


def _tell(healed: Healed, closed: list[str], failures: list[str]) -> None:
    for line in healed.kept:
        click.echo(f"kept     {line}")
    for line in (*healed.failures, *failures):
        click.echo(f"failed   {line}", err=True)
    if not (healed.removed or closed or healed.kept or healed.failures or failures):
        click.echo("nothing to heal")
