"""All workloads by name."""

from typing import Any, Final

from labrys.workloads.register import REGISTER
from labrys.workloads.workload import Workload

WORKLOADS: Final[dict[str, Workload[Any]]] = {workload.name: workload for workload in (REGISTER,)}
