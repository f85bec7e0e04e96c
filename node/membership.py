"""How a configuration becomes another: the steps of `configuration`, as functions of values."""

from collections.abc import Collection, Mapping, Sequence

import msgspec

from labrys.node.configuration import Configuration
from labrys.node.errors import Refused
from labrys.node.messages import NodeId


def first_step(
    current: Configuration,
    voters: Sequence[NodeId],
    learners: Sequence[NodeId],
    addresses: Mapping[NodeId, str],
) -> Configuration | None:
    """The first configuration on the way to these voters and learners, None when already there.

    Raises Refused when the way is not open: a change is under way, nobody would be left to vote,
    or a voter is to become a learner at once.
    """
    if current.is_joint:
        raise Refused("refused-change", "another change of members is under way; wait for its end")
    if not voters:
        raise Refused("refused-change", "the cluster would have no voter left")
    both = {*voters} & {*learners}
    if both:
        raise Refused("refused-change", f"{', '.join(sorted(both))} cannot be voter and learner")
    demoted = {*learners} & {*current.voters}
    if demoted:
        names = ", ".join(sorted(demoted))
        raise Refused("refused-change", f"{names} votes: remove it first, then add it as a learner")
    newcomers = {*voters} - {*current.voters}
    wanted = Configuration(
        voters=current.voters,
        learners=tuple(sorted({*learners} | newcomers)),
        target=tuple(sorted(voters)) if {*voters} != {*current.voters} else (),
        addresses=dict(current.addresses) | dict(addresses),
    )
    wanted = _trimmed(wanted)
    return None if wanted == _trimmed(current) else wanted


def next_step(current: Configuration, caught_up: Collection[NodeId]) -> Configuration | None:
    """The configuration to follow one that is committed, None when there is nothing to do yet.

    The voters to be begin to decide only when the newcomers among them and a majority of all hold
    what is committed: else the cluster could stand still until they do (dissertation 4.2.1).
    """
    if current.is_joint:
        return _trimmed(msgspec.structs.replace(current, outgoing=()))
    newcomers = {*current.target} - {*current.voters}
    if not current.target or not newcomers.issubset(caught_up):
        return None
    if not Configuration(current.target).has_quorum(caught_up):
        return None
    learners = tuple(node for node in current.learners if node not in newcomers)
    return msgspec.structs.replace(
        current, voters=current.target, outgoing=current.voters, learners=learners, target=()
    )


def _trimmed(configuration: Configuration) -> Configuration:
    members = {*configuration.members, *configuration.target}
    addresses = {n: a for n, a in sorted(configuration.addresses.items()) if n in members}
    return msgspec.structs.replace(
        configuration, voters=tuple(sorted(configuration.voters)), addresses=addresses
    )
