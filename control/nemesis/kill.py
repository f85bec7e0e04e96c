"""Kills: the process loses its memory at once, the machine and its disk stay."""

from labrys.control.nemesis.processes import ProcessFault
from labrys.control.process import State


class Kill(ProcessFault):
    """SIGKILL to some, a new start for all."""

    kind = "kill"
    start_f = "kill"
    stop_f = "start"
    undo_order = 2
    """After pauses: a start leaves a paused process alone."""
    shade = "#b9a3e3"
    mechanism = "SIGKILL to the database"
    evidence = "state of the process"
    cure_word = "starting it"
    hurt_state = State.DEAD
    hurt_word = "killed"

    def hurt(self, node: str) -> None:
        """Kill the process and wait until it is gone."""
        self.system.kill(node)

    def cure(self, node: str) -> None:
        """Start the process if it is dead."""
        self.system.start(node)

    def set_up(self) -> None:
        """Nothing to prepare: whoever runs the test starts the processes."""

    def tear_down(self) -> None:
        """Nothing to put in order: whoever runs the test stops the processes."""
