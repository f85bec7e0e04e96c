"""What faults that are aimed at nodes have in common: they draw targets and intensity alike."""

import pytest
from tests.control.nemesis_fakes import FakeEnvironment, FakeSystem

from labrys.control.nemesis.nemesis import build_packages


@pytest.mark.parametrize(
    ("kind", "intensity"),
    [
        ("delay", "delay_ms"),
        ("loss", "percent"),
        ("bandwidth", "kbit_s"),
        ("flap", "flap_ms"),
        ("restart-storm", "up_ms"),
        ("slow-cpu", "share"),
        ("oom", "room_mib"),
    ],
)
def test_plans_come_from_the_seed_alone_and_draw_every_intensity(kind: str, intensity: str) -> None:
    (fault,), (again,) = (build_packages([kind], FakeEnvironment(), FakeSystem()) for _ in range(2))
    plans = [fault.plan(turn, "seed") for turn in range(40)]
    assert plans == [again.plan(turn, "seed") for turn in range(40)]
    assert plans != [fault.plan(turn, "other") for turn in range(40)]
    assert len({plan[intensity] for plan in plans}) == 3
    assert {plan["targets"] for plan in plans} >= {"leader", "one", "minority"}
