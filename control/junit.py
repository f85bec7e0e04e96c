"""`junit.xml`: the verdict of a run for CI systems, one test case for each checker.

`Suite` is the form that Jenkins and GitHub's readers know, for a run and for a suite of them.

`invalid` is a failure; `error` is an error; `unknown` is an error of the type `unknown`, since a
check that saw too little has not passed.
"""

import xml.etree.ElementTree as ET
from collections.abc import Mapping
from typing import Any

from labrys.checkers.verdict import CheckResult, Verdict

_OUTPUT_CHARS_MAX = 8192

_TAGS = {
    Verdict.VALID: None,
    Verdict.INVALID: "failure",
    Verdict.UNKNOWN: "error",
    Verdict.ERROR: "error",
    None: "skipped",
}
_COUNTED_AS = {"failure": "failures", "error": "errors", "skipped": "skipped"}


class Suite:
    """A `testsuite` that grows case by case."""

    def __init__(self, name: str, properties: Mapping[str, Any]) -> None:
        self._element = ET.Element("testsuite", name=_text(name))
        self._name = name
        self._counts = {"tests": 0, "failures": 0, "errors": 0, "skipped": 0}
        listed = ET.SubElement(self._element, "properties")
        for key, value in properties.items():
            if value is not None:
                ET.SubElement(listed, "property", name=key, value=_text(value))

    def case(
        self,
        name: str,
        verdict: Verdict | None,
        summary: str,
        detail: str,
        *,
        seconds: float | None = None,
        output: str = "",
    ) -> None:
        """Add a case; without a verdict it was skipped, and `summary` says why."""
        element = ET.SubElement(
            self._element, "testcase", classname=_text(self._name), name=_text(name)
        )
        if seconds is not None:
            element.set("time", f"{seconds:.3f}")
        self._counts["tests"] += 1
        tag = _TAGS[verdict]
        if tag is not None:
            self._counts[_COUNTED_AS[tag]] += 1
            kind = "skipped" if verdict is None else verdict.value
            problem = ET.SubElement(element, tag, type=kind, message=_text(summary))
            problem.text = _text(detail)[:_OUTPUT_CHARS_MAX]
        if output:
            ET.SubElement(element, "system-out").text = _text(output)[:_OUTPUT_CHARS_MAX]

    def document(self, *, seconds: float, started_at: str) -> bytes:
        """Return the whole as XML."""
        for name, count in self._counts.items():
            self._element.set(name, str(count))
        self._element.set("time", f"{seconds:.3f}")
        self._element.set("timestamp", _text(started_at))
        ET.indent(self._element)
        document: bytes = ET.tostring(self._element, encoding="utf-8", xml_declaration=True)
        return document + b"\n"


def junit_xml(results: Mapping[str, Any], checkers: Mapping[str, CheckResult]) -> bytes:
    """Return the document for the content of results.json and its checkers."""
    names = ("seed", "rerun", "environment", "workload", "bug")
    suite = Suite(results["name"], {name: results[name] for name in names})
    for name, result in checkers.items():
        told = [finding.message for finding in result.findings]
        detail = "\n".join([*told, result.hint or ""]).strip()
        suite.case(name, result.verdict, result.summary, detail)
    for number, error in enumerate(results["errors"], start=1):
        suite.case(f"rig-{number}", Verdict.ERROR, error.splitlines()[0], error)
    return suite.document(seconds=results["duration_s"], started_at=results["started_at"])


def _text(value: object) -> str:
    """Return `value` without the characters that XML 1.0 cannot hold at all."""
    return "".join(
        c if c in "\t\n" or " " <= c < "\ud800" or "\udfff" < c < "\ufffe" or c > "\uffff" else "�"
        for c in str(value)
    )
