"""Pauses: the process stands still, with its connections open, and wakes up in a later world."""

from labrys.control.environments.base import on_nodes
from labrys.control.nemesis.processes import ProcessFault
from labrys.control.process import State


class Pause(ProcessFault):
    """SIGSTOP to some, SIGCONT to all."""

    kind = "pause"
    start_f = "pause"
    stop_f = "resume"
    undo_order = 1
    shade = "#a9cfe8"
    mechanism = "SIGSTOP to the database"
    evidence = "state of the process"
    cure_word = "SIGCONT"
    hurt_state = State.STOPPED
    hurt_word = "paused"

    def hurt(self, node: str) -> None:
        """Stop the process in its tracks."""
        self.system.pause(node)

    def cure(self, node: str) -> None:
        """Let the process go on if there is one."""
        self.system.resume(node)

    def set_up(self) -> None:
        """Wake up what an earlier run may have left asleep."""
        on_nodes(self.env.nodes, self.cure)

    def tear_down(self) -> None:
        """Leave nothing asleep."""
        on_nodes(self.env.nodes, self.cure)
