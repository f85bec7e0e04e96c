"""What the command line says of a node, as a value."""

from collections.abc import Mapping
from pathlib import Path

import msgspec

from labrys.node.configuration import Configuration
from labrys.node.messages import NodeId
from labrys.node.parts import Parts
from labrys.node.raft import Config
from labrys.node.snapshotter import Thresholds
from labrys.node.storage import CLUSTER, SEGMENT_BYTES
from labrys.node.surroundings import Address
from labrys.node.telling import shown


class Settings(msgspec.Struct, frozen=True):
    """What the command line says."""

    config: Config
    peers: Mapping[NodeId, Address]
    """Where each first member listens for peers, this node among them; none when it joins."""
    listen: Address
    http: Address
    data: Path
    request_timeout_ms: int
    cluster: str = CLUSTER
    thresholds: Thresholds = Thresholds()
    segment_bytes: int = SEGMENT_BYTES
    """The log goes on in another file after so much."""
    seed: int | None = None
    parts: Parts = Parts()

    @property
    def initial(self) -> Configuration:
        """The configuration where neither log nor snapshot says another."""
        addresses = {node: shown(address) for node, address in self.peers.items()}
        return Configuration(voters=tuple(self.peers), addresses=addresses)
