"""`junit.xml` says to a CI system what the verdict says to people."""

import xml.etree.ElementTree as ET
from typing import Any

from labrys.checkers.verdict import CheckResult, Finding, Verdict
from labrys.control.junit import junit_xml

RESULTS: dict[str, Any] = {
    "name": "register-kill",
    "seed": 8817,
    "rerun": "labrys test --faults kill --seed 8817",
    "environment": "netns",
    "workload": "register",
    "bug": None,
    "errors": [],
    "duration_s": 61.5,
    "started_at": "2026-01-01T00:00:00.000000Z",
}
VALID = CheckResult(Verdict.VALID, "fine")


def parsed(checkers: dict[str, CheckResult], **changes: Any) -> ET.Element:
    return ET.fromstring(junit_xml({**RESULTS, **changes}, checkers))


def test_valid_run_has_only_passed_cases() -> None:
    suite = parsed({"linearizable": VALID, "stats": VALID})
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "0", "0")
    assert [case.get("name") for case in suite.iter("testcase")] == ["linearizable", "stats"]
    properties = {p.get("name"): p.get("value") for p in suite.iter("property")}
    assert properties["seed"] == "8817"
    assert properties["rerun"] == RESULTS["rerun"]


def test_invalid_is_a_failure_and_unknown_an_error_of_its_own_type() -> None:
    suite = parsed(
        {
            "linearizable": CheckResult(
                Verdict.INVALID, "1 of 2 keys", findings=(Finding("k7 is wrong"),)
            ),
            "stats": CheckResult(Verdict.UNKNOWN, "vacuous", hint="run longer"),
        }
    )
    assert (suite.get("tests"), suite.get("failures"), suite.get("errors")) == ("2", "1", "1")
    (failure,) = suite.iter("failure")
    assert failure.get("message") == "1 of 2 keys"
    assert failure.text == "k7 is wrong"
    (error,) = suite.iter("error")
    assert error.get("type") == "unknown"
    assert error.text == "run longer"


def test_failure_of_the_rig_is_an_error() -> None:
    suite = parsed({"linearizable": VALID}, errors=["set-up: n3 did not start"])
    (error,) = suite.iter("error")
    assert error.get("message") == "set-up: n3 did not start"
    assert suite.get("errors") == "1"


def test_hostile_values_stay_text() -> None:
    nasty = 'a<b>&"\x00\x1b]]>\ud800\ufffe\uffff\nsecond'
    suite = parsed({"logs": CheckResult(Verdict.INVALID, nasty, findings=(Finding(nasty),))})
    (failure,) = suite.iter("failure")
    assert failure.text is not None
    assert failure.text.startswith('a<b>&"')
    assert failure.text.endswith("second")
