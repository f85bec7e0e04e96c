"""`junit.xml` of a suite: one test case for each run, as `control/junit.py` does it for a run."""

from labrys.control.junit import Suite
from labrys.control.suite.summary import Result, Summary


def suite_junit_xml(summary: Summary) -> bytes:
    """Return the document; what was not started is skipped."""
    suite = Suite(
        summary.suite, {"seed": summary.seed, "rerun": summary.rerun, "shard": summary.shard}
    )
    for result in summary.runs:
        suite.case(
            result.id,
            result.verdict,
            result.why,
            result.told or result.why,
            seconds=result.seconds,
            output="\n".join(_output(result)),
        )
    for skipped in summary.skipped:
        suite.case(skipped.id, None, summary.stopped or "not started", "")
    return suite.document(seconds=summary.seconds, started_at=summary.started_at)


def _output(result: Result) -> list[str]:
    # A case has no properties in the schema of Jenkins, so what one needs for it stands here.
    lines = [f"seed       {result.seed}", f"re-run     {result.rerun}"]
    if result.recheck:
        lines.append(f"re-check   {result.recheck}")
    return [*lines, *result.notes]
