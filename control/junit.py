"""`junit.xml`: the verdict of a run for CI systems, one test case for each checker.

`invalid` is a failure; `error` is an error; `unknown` is an error of the type `unknown`, since a
check that saw too little has not passed.
"""

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from labrys.checkers.verdict import CheckResult, Verdict

_OUTPUT_CHARS_MAX = 8192


def junit_xml(results: Mapping[str, Any], checkers: Mapping[str, CheckResult]) -> bytes:
    """Return the document for the content of results.json and its checkers."""
    suite = ET.Element("testsuite", name=_text(results["name"]))
    properties = ET.SubElement(suite, "properties")
    for name in ("seed", "rerun", "environment", "workload", "bug"):
        if results[name] is not None:
            ET.SubElement(properties, "property", name=name, value=_text(results[name]))
    counts = {"tests": 0, "failures": 0, "errors": 0}

    def case(name: str, verdict: Verdict, summary: str, detail: str) -> None:
        element = ET.SubElement(suite, "testcase", classname=suite.get("name", ""), name=name)
        counts["tests"] += 1
        if verdict is Verdict.VALID:
            return
        is_failure = verdict is Verdict.INVALID
        counts["failures" if is_failure else "errors"] += 1
        tag = "failure" if is_failure else "error"
        problem = ET.SubElement(element, tag, type=verdict.value, message=_text(summary))
        problem.text = _text(detail)[:_OUTPUT_CHARS_MAX]

    for name, result in checkers.items():
        told = [finding.message for finding in result.findings]
        case(name, result.verdict, result.summary, "\n".join([*told, result.hint or ""]).strip())
    for number, error in enumerate(results["errors"], start=1):
        case(f"rig-{number}", Verdict.ERROR, error.splitlines()[0], error)
    for name, count in counts.items():
        suite.set(name, str(count))
    suite.set("time", f"{results['duration_s']:.3f}")
    suite.set("timestamp", _text(results["started_at"]))
    ET.indent(suite)
    document: bytes = ET.tostring(suite, encoding="utf-8", xml_declaration=True)
    return document + b"\n"


def _text(value: object) -> str:
    """Return `value` without the characters that XML 1.0 cannot hold at all."""
    return "".join(
        c if c in "\t\n" or " " <= c < "\ud800" or "\udfff" < c < "\ufffe" or c > "\uffff" else "�"
        for c in str(value)
    )
