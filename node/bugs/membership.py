"""Faults in how members come and go, and who counts meanwhile."""

import random
from collections.abc import Collection, Mapping

import msgspec

from labrys.node.bugs.careless import Careless
from labrys.node.bugs.variant import variant
from labrys.node.configuration import Configuration
from labrys.node.effects import Restored
from labrys.node.messages import NodeId
from labrys.node.raft import Config


class ChangeAtOnce(Careless):
    """Puts the new members in the place of the old ones in one step, several at a time.

    Majorities of the old and of the new members may have nobody in common.

    Seen in: a class of bugs, against which chapter 4 of the Raft dissertation has joint consensus.
    Seen by: raft (configuration safety)
    """

    def _enter(self, configuration: Configuration) -> None:
        if configuration.target:
            configuration = msgspec.structs.replace(
                configuration, voters=configuration.target, target=(), learners=()
            )
        super()._enter(configuration)


class _CountsEverybody(Configuration, frozen=True):
    def has_quorum(self, supporters: Collection[NodeId]) -> bool:
        return 2 * sum(n in supporters for n in self.members) > len(self.members)

    def agreed(self, values: Mapping[NodeId, int]) -> int:
        reached = sorted((values.get(node, 0) for node in self.members), reverse=True)
        return reached[len(reached) // 2]


class CountLearners(Careless):
    """Counts all members in one majority: learners, and both sides of a change together.

    Seen in: a class of bugs, against sections 4.2.1 and 4.3 of the Raft dissertation.
    Seen by: raft (durability, election safety)
    """

    @property
    def configuration(self) -> Configuration:
        return _CountsEverybody(**msgspec.structs.asdict(super().configuration))


class OldMembersIgnored(Careless):
    """Decides by the new members alone while a change is under way.

    Seen in: a class of bugs, against section 4.3 of the Raft dissertation.
    Seen by: raft (durability, election safety)
    """

    @property
    def configuration(self) -> Configuration:
        return msgspec.structs.replace(super().configuration, outgoing=())


class NextStepTooEarly(Careless):
    """Goes on with a change before the step before it is committed.

    Seen in: a class of bugs; Ongaro's correction of 2015 for changes of one member is about two
    changes from one base that overlap.
    Seen by: raft (configuration safety)
    """

    @property
    def is_configuration_committed(self) -> bool:
        return True


class RejoinAsVoter(Careless):
    """Votes and acknowledges at once when its data is new, as if it had never promised anything.

    Seen in: RethinkDB 2.2.3, whose reconfiguration let nodes forget; etcd #6982 warns of it.
    Seen by: raft (durability, leader completeness)
    """

    def __init__(self, config: Config, restored: Restored, rng: random.Random, now_ms: int) -> None:
        state = msgspec.structs.replace(restored.hard_state, is_observer=False)
        restored = msgspec.structs.replace(restored, hard_state=state)
        super().__init__(config, restored, rng, now_ms)


BUGS = {
    "change-at-once": variant("members change in one step, without joint consensus", ChangeAtOnce),
    "count-learners": variant("learners count in majorities", CountLearners),
    "old-members-ignored": variant("the old members have no say in a change", OldMembersIgnored),
    "next-step-too-early": variant(
        "a change of members goes on before its last step is committed", NextStepTooEarly
    ),
    "rejoin-as-voter": variant("a node that lost its data votes at once", RejoinAsVoter),
}
