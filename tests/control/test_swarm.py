"""Swarm: what a seed draws is a test that can be run, and differs from seed to seed."""

from labrys.control.sim.faults import SIM_PACKAGES
from labrys.control.spec import resolve
from labrys.control.swarm import NODES, vary

PLAIN = resolve({"env": "sim", "seed": 1})


def test_a_seed_draws_the_same_test_again() -> None:
    assert vary(PLAIN, 5, ()) == vary(PLAIN, 5, ())
    assert vary(PLAIN, 5, ()).seed == 5
    assert vary(PLAIN, 5, ()) != vary(PLAIN, 6, ())


def test_every_choice_comes_up_and_can_be_run() -> None:
    drawn = [vary(PLAIN, seed, ()) for seed in range(300)]
    assert {spec.nodes for spec in drawn} == {*NODES}
    assert {kind for spec in drawn for kind in spec.fault_kinds} == {*SIM_PACKAGES}
    assert all(spec.fault_kinds for spec in drawn)
    assert any("snapshot-entries" in spec.system_options for spec in drawn)
    assert not all("snapshot-entries" in spec.system_options for spec in drawn)
    assert min(spec.fault_interval for spec in drawn) < 0.6
    assert max(spec.fault_interval for spec in drawn) > 3


def test_what_was_asked_for_stays() -> None:
    fields = {"env": "sim", "seed": 1, "nodes": 5, "rate": 77, "faults": ["kill", "pause"]}
    for seed in range(50):
        spec = vary(resolve(fields), seed, frozenset(fields))
        assert (spec.nodes, spec.rate) == (5, 77)
        assert {*spec.fault_kinds} <= {"kill", "pause"}


def test_options_of_faults_stay_with_them() -> None:
    options = {"kill": {"targets": ["leader"]}, "pause": {"hold_s": 0.2}}
    fields = {"env": "sim", "seed": 1, "faults": options}
    seen = [vary(resolve(fields), seed, frozenset(fields)).faults for seed in range(50)]
    for faults in seen:
        assert isinstance(faults, dict)
        assert faults == {kind: options[kind] for kind in faults}
    assert {len(faults) for faults in seen} == {1, 2}
