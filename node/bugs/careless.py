"""What all faulty nodes have in common: they go on where a correct one would stop."""

from labrys.node.audit import Audit
from labrys.node.messages import Diverged
from labrys.node.raft import Raft


class Careless(Raft):
    """A core that goes on after the impossible has happened."""

    def _violated(self, what: str) -> None:
        pass


class Unguarded(Careless):
    """A core without pre-vote and leader stickiness, which repair much of what a lost term does."""

    def _start_pre_vote(self) -> None:
        self._start_election()

    def _hears_a_leader(self) -> bool:
        return False


class Unwatched(Audit):
    """Goes on with another state than the others have."""

    def check(self, told: Diverged) -> None:
        pass
