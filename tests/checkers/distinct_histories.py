"""Random histories of one register in which no value is written twice."""

import random

from tests.checkers.generate import mutated, simulated
from tests.checkers.oracle import Act


def distinct_register(rng: random.Random) -> list[Act]:
    """Tiny and messy, or simulated with many cas and then spoilt as often as not."""
    if rng.random() < 0.5:
        return _tiny(rng)
    acts = simulated(
        rng,
        rng.randint(8, 40),
        rng.randint(2, 6),
        crash_rate=rng.choice([0, 0.05, 0.2]),
        mix=rng.choice([(1, 1, 1), (1, 1, 4)]),
        smart=0.8,
    )
    return mutated(rng, acts, max(3, len(acts) // 2)) if rng.random() < 0.5 else acts


def _tiny(rng: random.Random) -> list[Act]:
    crash_rate = rng.choice([0, 0.1, 0.3])
    width, count = rng.randint(2, 5), rng.randint(3, 9)
    running: list[tuple[str, int, int]] = []
    acts: list[Act] = []
    event = fresh = 0
    while len(acts) + len(running) < count or running:
        may_call = len(running) < width and len(acts) + len(running) < count
        if may_call and (not running or rng.random() < 0.5):
            fresh += 1
            running.append((rng.choice(["read", "write", "cas", "cas"]), fresh, event))
        else:
            f, value, call = running.pop(rng.randrange(len(running)))
            crashed = rng.random() < crash_rate
            some = rng.choice([None, *range(1, 1 + rng.randint(1, 6))])
            what = some if f == "read" else [some, value] if f == "cas" else value
            if f != "read" or not crashed:
                acts.append(Act(f, what, call, None if crashed else event))
        event += 1
    return acts
