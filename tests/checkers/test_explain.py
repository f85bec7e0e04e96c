"""An invalid verdict explains itself, and every statement of the explanation is true."""

import random

import pytest
from tests.checkers.generate import (
    as_history,
    messy,
    mutated,
    simulated,
    with_stale_read,
)
from tests.checkers.oracle import Act, is_linearizable_wgl

from labrys.checkers.budget import Budget
from labrys.checkers.checker import Limits
from labrys.checkers.core import minimal_core
from labrys.checkers.decide import decide
from labrys.checkers.explain import explain, order
from labrys.checkers.models import CasRegister, Illegal, Kv, Model, Mutex
from labrys.checkers.search import DeadEnd, Stuck, Survived
from labrys.checkers.subject import Subject, subjects
from labrys.checkers.verdict import Finding

_MODELS: dict[str, Model] = {"register": CasRegister(), "kv": Kv(), "mutex": Mutex()}


def subject_of(acts: list[Act], family: str = "register") -> Subject:
    (subject,) = subjects(_MODELS[family], {"k7": list(as_history(acts).operations)})
    return subject


def failed(acts: list[Act], family: str = "register") -> tuple[Subject, Stuck] | None:
    subject = subject_of(acts, family)
    budget = Budget(Limits())
    outcome = decide(subject.search(budget), budget)
    return (subject, outcome) if isinstance(outcome, Stuck) else None


def explained(acts: list[Act], family: str = "register") -> Finding:
    failure = failed(acts, family)
    assert failure is not None
    return explain(*failure, Budget(Limits()))


def broken(seed: int) -> tuple[list[Act], str]:
    """A random history that is wrong as often as not."""
    rng = random.Random(f"broken {seed}")
    family = rng.choice(["register", "register", "kv", "mutex"])
    if rng.random() < 0.5:
        return messy(rng, family), family
    values = rng.randint(2, 5)
    acts = simulated(rng, 40, 5, values=values, crash_rate=0.1, mix=(1, 1, 2))
    return mutated(rng, acts, values), "register"


def test_prefix_is_a_real_order_of_all_that_returned_before_the_failure() -> None:
    seen = 0
    for seed in range(1500):
        acts, family = broken(seed)
        failure = failed(acts, family)
        if failure is None:
            continue
        subject, stuck = failure
        steps = subject.steps
        for end in stuck.dead_ends:
            prefix, leaves = order(_MODELS[family], steps, end, stuck.event)
            state = _MODELS[family].initial
            for place, number in enumerate(prefix):
                after = _MODELS[family].step(state, steps[number].action)
                assert not isinstance(after, Illegal), f"seed {seed}: {after}"
                state = after
                for later in prefix[place + 1 :]:
                    ret = steps[later].ret
                    assert ret is None or ret > steps[number].call, f"seed {seed}: against time"
            assert state == leaves
            returned = {n for n, s in enumerate(steps) if s.ret is not None and s.ret < stuck.event}
            assert returned <= set(prefix), f"seed {seed}: left out {returned - set(prefix)}"
            assert len(prefix) == len(set(prefix))
            assert stuck.step not in prefix
        seen += 1
    assert seen > 300


def test_valid_verdict_has_a_witness_that_replays() -> None:
    seen = 0
    for seed in range(1000):
        acts, family = broken(seed)
        model = _MODELS[family]
        subject, budget = subject_of(acts, family), Budget(Limits())
        steps = subject.steps
        outcome = decide(subject.search(budget), budget)
        if not isinstance(outcome, Survived):
            continue
        end = max([0, *(act.ret or 0 for act in acts)]) + 1
        state = model.initial
        witness, _ = order(model, steps, DeadEnd(None, outcome.path, ()), end)
        for number in witness:
            state = model.step(state, steps[number].action)
            assert not isinstance(state, Illegal), f"seed {seed}: {state}"
        assert {n for n, step in enumerate(steps) if step.ret is not None} <= set(witness)
        seen += 1
    assert seen > 200


def test_core_is_a_contradiction_whatever_else_happened() -> None:
    seen = 0
    for seed in range(400):
        acts, family = broken(seed)
        failure = failed(acts, family)
        if failure is None or family != "register":
            continue
        subject, stuck = failure
        core = minimal_core(subject, stuck, Budget(Limits()))
        calls = {subject.steps[number].call for number in core.numbers}
        weaker = [
            act if act.call in calls else act._replace(ret=None)
            for act in acts
            if act.call in calls
            or (act.f != "read" and (core.start is None or (act.ret or 10**9) >= core.start))
        ]
        anything = [None] if core.start is None else [None, -1, *range(6)]
        for initial in anything:
            assert not is_linearizable_wgl(initial, weaker), f"seed {seed}, from {initial}"
        seen += 1
    assert seen > 80


def test_core_of_a_stale_read_is_a_handful_of_operations() -> None:
    sizes = []
    for seed in range(20):
        acts = with_stale_read(simulated(random.Random(seed), 200, 10, crash_rate=0.1), 10)
        assert acts is not None
        failure = failed(acts)
        assert failure is not None
        sizes.append(len(minimal_core(*failure, Budget(Limits())).numbers))
    assert max(sizes) <= 5, sizes


def test_value_that_comes_from_the_future_is_named_with_its_writer() -> None:
    finding = explained([Act("write", 4, 0, 1), Act("read", 5, 2, 3), Act("write", 5, 1304, 1305)])
    assert finding.key == "k7"
    assert finding.data["rejected"] == [
        {
            "op": 2,
            "reason": "the register holds 4; 5 was first left by op 1304, invoked at 0.00 s",
        }
    ]
    assert finding.message.splitlines()[0] == (
        'key "k7" is not linearizable: 2 process 1 read -> 5 at 0.00 s fits nowhere'
    )


def test_value_that_was_replaced_is_named_with_what_replaced_it() -> None:
    finding = explained([Act("write", 1, 0, 1), Act("cas", [1, 2], 2, 3), Act("read", 1, 4, 5)])
    (rejected,) = finding.data["rejected"]
    assert rejected["reason"] == (
        "the register holds 2; 1 was left by op 0 and replaced by op 2 (cas 1 -> 2)"
    )
    assert finding.data["prefix"] == [0, 2]
    assert finding.data["state"] == 2
    assert finding.data["window"] == [2, 5]


def test_value_that_nobody_wrote_is_said_to_be_so() -> None:
    finding = explained([Act("write", 1, 0, 1), Act("read", "x", 2, 3)])
    (rejected,) = finding.data["rejected"]
    assert rejected["reason"] == 'the register holds 1; no operation ever leaves "x"'
    assert finding.data["core"] == [2]


def test_values_are_shown_as_json() -> None:
    finding = explained([Act("write", {"b": None, "a": True}, 0, 1), Act("read", "</td>", 2, 3)])
    assert 'the register holds {"a":true,"b":null}' in finding.message
    assert finding.data["state"] == {"a": True, "b": None}


@pytest.mark.parametrize("family", ["kv", "mutex"])
def test_other_models_are_explained_too(family: str) -> None:
    told = 0
    for seed in range(200):
        acts = messy(random.Random(f"told {seed}"), family)
        failure = failed(acts, family)
        if failure is not None:
            finding = explained(acts, family)
            assert "whatever became of the other operations" in finding.message
            told += 1
    assert told > 50
