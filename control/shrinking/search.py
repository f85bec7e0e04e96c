"""The search for the smallest test that still fails: which pieces are taken away, in which order.

What counts is, in this order, few faults, few operations, few nodes, a short time; nothing that
was taken away comes back. Only what makes the tests much faster is taken away before its turn: what
comes after the failure, most operations, and nodes. All is done over and over, each time with
more seeds for a test that does not seem to fail any more.
"""

from collections.abc import Sequence
from itertools import pairwise, product
from typing import Final

import msgspec

from labrys.control.nemesis.fault_plan import PlannedFault
from labrys.control.shrinking import smaller
from labrys.control.shrinking.ddmin import ddmin
from labrys.control.shrinking.trials import Found, Trials
from labrys.control.spec import Spec
from labrys.workloads.operation_plan import PlannedOperation

AFTER_S: Final = 0.05
"""How long a test goes on after the failure."""
SPAN_MIN_S: Final = 0.02
"""Shorter spans of time are not worth a try."""
MANY_OPERATIONS: Final = 50
"""More of them make tests slow."""
THINNED: Final = (50, 10, 3)
"""One of so many operations is kept, at first."""
GROWTH: Final = 3
"""So many times as many seeds in the next round."""


class Search:
    """Makes a failing test smaller, step by step. `best` is the smallest so far, at any time."""

    def __init__(self, found: Found, trials: Trials, *, tries_max: int) -> None:
        self.best = found
        self._trials = trials
        self._tries_max = tries_max
        self._tries = 1

    def run(self) -> None:
        """Take away what can be taken away, until no step finds anything with `tries_max` seeds.

        Raises Over when there is no time for that.
        """
        while True:
            before = self.best
            for step in (
                self._end_at_failure,
                self._keep_some_operations,
                self._drop_faults,
                self._drop_nodes,
                self._drop_operations,
                self._drop_workers,
                self._end_at_failure,
                self._drop_time,
                self._drop_options,
                self._spare_nodes,
            ):
                step()
            if self.best is before:
                if self._tries == self._tries_max:
                    return
                self._tries = min(self._tries_max, self._tries * GROWTH)

    def _attempt(self, spec: Spec) -> bool:
        """Whether the test fails, too: then it is the best from now on."""
        if msgspec.structs.replace(spec, seed=self.best.spec.seed) == self.best.spec:
            return False  # nothing was taken away
        found = self._trials.search(spec, self._tries)
        if found is None:
            return False
        self.best = found
        return True

    def _end_at_failure(self) -> None:
        end_s = round(self.best.sighting.ended_s + AFTER_S, 3)
        while 0 < end_s < self.best.spec.time_limit - SPAN_MIN_S:
            if not self._attempt(smaller.until(self.best.spec, end_s)):
                return
            end_s = round(self.best.sighting.ended_s + AFTER_S, 3)

    def _keep_some_operations(self) -> None:
        """Those on the key, or at a lower rate: of a failure without a key they may be no part."""
        spec, key = self.best.spec, self.best.sighting.key
        operations = smaller.operations_of(spec)
        if key is not None:
            self._attempt(smaller.of_key(spec, key))
        elif len(operations) > MANY_OPERATIONS:
            thinned = [[], *(operations[::step] for step in THINNED)]
            any(self._attempt(smaller.with_operations(spec, some)) for some in thinned)

    def _drop_faults(self) -> None:
        def fails(faults: Sequence[PlannedFault]) -> bool:
            return self._attempt(smaller.with_faults(self.best.spec, faults))

        ddmin(self.best.spec.fault_plan, fails)

    def _drop_operations(self) -> None:
        def fails(operations: Sequence[PlannedOperation]) -> bool:
            return self._attempt(smaller.with_operations(self.best.spec, operations))

        ddmin(smaller.operations_of(self.best.spec), fails)

    def _drop_workers(self) -> None:
        # Nodes with operations come first: the fewer workers, the fewer final reads.
        spec = self.best.spec
        for nodes, is_one_each in product(
            (smaller.by_mention(spec), spec.node_names), (True, False)
        ):
            candidate = smaller.on_nodes(spec, nodes, is_one_worker_each=is_one_each)
            if candidate.concurrency < spec.concurrency and self._attempt(candidate):
                return

    def _drop_nodes(self) -> None:
        for count in range(1, self.best.spec.nodes, 2):
            spec = self.best.spec
            nodes = smaller.by_mention(spec)
            for kept in (nodes[:count], list(spec.node_names)[:count]):
                if self._attempt(smaller.on_nodes(spec, kept)):
                    return

    def _drop_time(self) -> None:
        self._attempt(smaller.in_milliseconds(self.best.spec))
        # The last first: those before it stay where they are.
        times = smaller.moments(self.best.spec)
        for start_s, end_s in reversed(list(pairwise(times))):
            for rest in (0.0, 0.25, 0.5):
                from_s = start_s + max(rest * (end_s - start_s), SPAN_MIN_S / 2)
                if end_s - from_s < SPAN_MIN_S:
                    break
                if self._attempt(smaller.without_span(self.best.spec, from_s, end_s)):
                    break

    def _drop_options(self) -> None:
        for candidate in smaller.plainer(self.best.spec):
            self._attempt(candidate)

    def _spare_nodes(self) -> None:
        while any(self._attempt(candidate) for candidate in smaller.sparing(self.best.spec)):
            pass
