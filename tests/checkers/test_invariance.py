"""What must not change a verdict: other names, another order of what is concurrent, less knowledge.

On tiny messy histories of every model, and on longer ones that a real object went through, as they
were and with one result changed.
"""

import random
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import pytest
from tests.checkers.generate import as_history, messy, messy_of
from tests.checkers.oracle import UNKNOWN, Act

import labrys.checkers
from labrys.checkers.models import MODELS
from labrys.checkers.verdict import Verdict

TINY_MESSY = 300
LONG = 40
FAMILIES = tuple(MODELS)


def judged(family: str, acts: Sequence[Act]) -> Verdict:
    result = labrys.checkers.check(as_history(list(acts)), family)
    if result.verdict is Verdict.UNKNOWN:  # nothing observed, then or now
        assert result.summary.startswith("vacuous"), result.summary
        return Verdict.VALID
    return result.verdict


class Object:
    """An object of a family that does what it should, one operation at a time."""

    def __init__(self, family: str, rng: random.Random) -> None:
        self.family, self.rng = family, rng
        self.items: list[Any] = []
        self.value: Any = 0 if family == "counter" else None
        self.keys: dict[str, Any] = {}
        self.holder: int | None = None
        self.token = 0

    def ask(self, process: int, number: int) -> tuple[str, Any]:
        """Return what to ask for next."""
        rng, some = self.rng, self.rng.randint(1, 3)
        match self.family:
            case "register":
                return rng.choice([("read", None), ("write", some)])
            case "cas-register":
                return rng.choice([("read", None), ("write", some), ("cas", [self.value, some])])
            case "kv":
                return rng.choice([("read", None), ("write", "a"), ("append", rng.choice("ab"))])
            case "multi-register" | "txn":
                return "txn", [self._micro(some) for _ in range(rng.randint(1, 2))]
            case "mutex" | "owned-mutex" | "fenced-lock":
                mine = self.holder is not None if self.family == "mutex" else self.holder == process
                return ("release" if mine else "acquire"), None
            case "fifo-queue" | "unordered-queue":
                return rng.choice([("enqueue", number % 40), ("dequeue", None)])
            case "stack":
                return rng.choice([("push", number), ("pop", None)])
            case "set":
                calls = [
                    ("add", some),
                    ("remove", some),
                    ("contains", [some, None]),
                    ("read", None),
                ]
                return rng.choice(calls)
            case "counter":
                return rng.choice([("add", rng.choice([1, 2, -1])), ("read", None)])
            case _:
                return rng.choice([("append", number), ("read", None)])

    def _micro(self, some: int) -> list[Any]:
        key = self.rng.choice("xy")
        update = "w" if self.family == "multi-register" else "append"
        return [update, key, some] if self.rng.random() < 0.5 else ["r", key, None]

    def do(self, f: str, asked: Any, process: int) -> tuple[bool, Any]:
        """Do it; return whether it happened, and the result (or argument)."""
        match f:
            case "read" if self.family == "set":
                return True, sorted(set(self.items))
            case "read":
                return True, list(self.items) if self.family == "append" else self.value
            case "write":
                self.value = asked
            case "cas":
                if self.value != asked[0]:
                    return False, asked
                self.value = asked[1]
            case "append" if self.family == "kv":
                self.value = (self.value or "") + asked
            case "txn":
                return True, tuple(self._do_micro(*micro) for micro in asked)
            case "acquire":
                if self.holder is not None:
                    return False, None
                self.holder, self.token = process, self.token + 1
                return True, self.token if self.family == "fenced-lock" else None
            case "release":
                if self.holder is None or (self.family != "mutex" and self.holder != process):
                    return False, None
                self.holder = None
            case "dequeue" | "pop":
                if not self.items:
                    return True, None
                last = f == "pop"
                some = self.rng.randrange(len(self.items)) if "unord" in self.family else 0
                return True, self.items.pop(-1 if last else some)
            case "remove":
                self.items = [item for item in self.items if item != asked]
            case "contains":
                return True, [asked[0], asked[0] in self.items]
            case "add" if self.family == "counter":
                self.value += asked
            case _:
                self.items.append(asked)
        return True, asked

    def _do_micro(self, kind: str, key: str, value: Any) -> tuple[str, str, Any]:
        if kind == "w":
            self.keys[key] = value
        elif kind == "append":
            self.keys[key] = (*self.keys.get(key, ()), value)
        else:
            value = self.keys.get(key)
        return kind, key, value


def played(family: str, rng: random.Random, count: int, clients: int) -> list[Act]:
    """Return what clients of a real object saw; all happens somewhere between call and return."""
    thing = Object(family, rng)
    running: list[dict[str, Any]] = []
    acts: list[Act] = []
    free = list(range(clients))
    event = 0
    while len(acts) < count or running:
        may_call = bool(free) and len(acts) + len(running) < count
        if may_call and (not running or rng.random() < 0.4):
            process = free.pop(rng.randrange(len(free)))
            f, asked = thing.ask(process, event)
            running.append({"f": f, "asked": asked, "call": event, "process": process})
            event += 1
            continue
        one = rng.choice(running)
        if "result" not in one:
            one["happened"], one["result"] = thing.do(one["f"], one["asked"], one["process"])
            continue
        running.remove(one)
        free.append(one["process"])
        if one["happened"]:  # else it failed, and is no part of the history
            acts.append(Act(one["f"], one["result"], one["call"], event, one["process"]))
            event += 1
    return acts


def renamed(family: str, rng: random.Random, acts: Sequence[Act]) -> list[Act]:
    """Give values and processes other names. Amounts mean something, tokens have an order."""
    numbers = list(range(-5, 500))
    rng.shuffle(numbers)
    letters = dict(zip("ab", rng.sample("mnopq", 2), strict=True))
    is_counted = family in ("counter", "fenced-lock")

    def of(value: Any) -> Any:
        if isinstance(value, bool) or value is None or value is UNKNOWN:
            return value
        if isinstance(value, str):
            return "".join(letters[letter] for letter in value)
        if isinstance(value, int):
            return value if is_counted else numbers[value]
        return type(value)(map(of, value))

    def micro(kind: str, key: str, value: Any) -> tuple[str, str, Any]:
        return kind, f"other {key}", of(value)

    processes = list(range(max((act.process or 0 for act in acts), default=0) + 1))
    rng.shuffle(processes)
    return [
        act._replace(
            value=tuple(micro(*one) for one in act.value) if act.f == "txn" else of(act.value),
            process=None if act.process is None else processes[act.process],
        )
        for act in acts
    ]


def reordered(family: str, rng: random.Random, acts: Sequence[Act]) -> list[Act]:
    """Swap calls that stand next to each other, and returns: nobody can tell them apart."""
    events = {act.call: (i, "call") for i, act in enumerate(acts)}
    events |= {act.ret: (i, "ret") for i, act in enumerate(acts) if act.ret is not None}
    order = [events[index] for index in sorted(events)]
    for _ in range(len(order)):
        place = rng.randrange(max(1, len(order) - 1))
        pair = order[place : place + 2]
        if len(pair) == 2 and pair[0][1] == pair[1][1]:
            order[place : place + 2] = pair[::-1]
    moved = list(acts)
    for index, (i, which) in enumerate(order):
        act = moved[i]
        moved[i] = act._replace(call=index) if which == "call" else act._replace(ret=index)
    return sorted(moved, key=lambda act: act.call)


def forgotten(family: str, rng: random.Random, acts: Sequence[Act]) -> list[Act]:
    """Forget the outcome of one operation, the last of its process: it does nothing any more."""
    last = {act.process: i for i, act in enumerate(acts) if act.process is not None}
    choice = [
        i
        for i, act in enumerate(acts)
        if act.ret is not None and (act.process is None or last[act.process] == i)
    ]
    if not choice:
        return list(acts)
    i = rng.choice(choice)
    act = acts[i]
    rest = [*acts[:i], *acts[i + 1 :]]
    if act.f in ("read", "contains"):
        return rest
    value = act.value
    if act.f in ("dequeue", "pop") or (family == "fenced-lock" and act.f == "acquire"):
        value = UNKNOWN
    if act.f == "txn":
        value = tuple((kind, key, UNKNOWN if kind == "r" else part) for kind, key, part in value)
    return sorted([*rest, act._replace(value=value, ret=None)], key=lambda one: one.call)


def spoiled(family: str, rng: random.Random, acts: Sequence[Act]) -> list[Act]:
    """Give one operation the result that another one of its kind had."""
    kinds = ("read", "cas", "dequeue", "pop", "contains", "txn")
    choice = [i for i, act in enumerate(acts) if act.f in kinds]
    if not choice:
        return list(acts)
    i = rng.choice(choice)
    other = acts[rng.choice([j for j in choice if acts[j].f == acts[i].f])]
    return [*acts[:i], acts[i]._replace(value=other.value), *acts[i + 1 :]]


Change = Callable[[str, random.Random, Sequence[Act]], list[Act]]


def histories(family: str, seed: int, *, long: bool) -> list[Act]:
    rng = random.Random(f"{family} {seed}")
    if not long:
        if family in ("register", "cas-register", "kv"):
            acts = messy(rng, family)
            return [act for act in acts if family != "register" or act.f != "cas"]
        return messy_of(rng, family)
    acts = played(family, rng, rng.randint(20, 60), rng.randint(2, 5))
    return spoiled(family, rng, acts) if seed % 2 else acts


@pytest.mark.parametrize("change", [renamed, reordered])
@pytest.mark.parametrize("family", FAMILIES)
def test_other_names_and_another_order_of_the_concurrent_change_no_verdict(
    family: str, change: Change
) -> None:
    seen: Counter[Verdict] = Counter()
    for long, count in ((False, TINY_MESSY), (True, LONG)):
        for seed in range(count):
            acts = histories(family, seed, long=long)
            before = judged(family, acts)
            after = judged(family, change(family, random.Random(seed), acts))
            assert after is before, f"seed {seed}: {acts}"
            seen[before] += 1
    assert min(seen[Verdict.VALID], seen[Verdict.INVALID]) > 10, seen


@pytest.mark.parametrize("family", FAMILIES)
def test_history_that_happened_is_valid_and_stays_so_when_an_outcome_is_forgotten(
    family: str,
) -> None:
    for seed in range(2 * LONG):
        rng = random.Random(f"{family} {seed}")
        acts = played(family, rng, rng.randint(20, 120), rng.randint(2, 6))
        assert judged(family, acts) is Verdict.VALID, f"seed {seed}: {acts}"
        for _ in range(3):
            acts = forgotten(family, rng, acts)
            assert judged(family, acts) is Verdict.VALID, f"seed {seed}: {acts}"


@pytest.mark.parametrize("family", FAMILIES)
def test_tiny_valid_history_stays_valid_when_an_outcome_is_forgotten(family: str) -> None:
    valid = 0
    for seed in range(TINY_MESSY):
        acts = histories(family, seed, long=False)
        if judged(family, acts) is Verdict.VALID:
            valid += 1
            less = forgotten(family, random.Random(seed), acts)
            assert judged(family, less) is Verdict.VALID, f"seed {seed}: {acts}"
    assert valid > 10
