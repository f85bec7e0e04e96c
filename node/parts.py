"""The classes that a node is made of."""

import msgspec

from labrys.node.api import Api
from labrys.node.audit import Audit
from labrys.node.machine import Machine
from labrys.node.raft import Raft
from labrys.node.service import Service
from labrys.node.storage import Storage


class Parts(msgspec.Struct, frozen=True):
    """One class for each part; another one may be put in its place."""

    raft: type[Raft] = Raft
    storage: type[Storage] = Storage
    machine: type[Machine] = Machine
    service: type[Service] = Service
    api: type[Api] = Api
    audit: type[Audit] = Audit
