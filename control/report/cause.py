"""Why a run ended as it did, in one sentence."""

from labrys.checkers.verdict import Verdict
from labrys.control.report.labels import error_text
from labrys.control.report.run_files import Results


def cause(results: Results) -> str:
    """Say in one sentence why the run ended as it did."""
    verdict = results.verdict
    if verdict is None:
        return "The run has no results: it was stopped before it was judged, or they are damaged."
    if results.interrupted and not results.checkers:
        return "The run was interrupted, and asked twice to stop it did not judge what it had."
    if verdict is Verdict.ERROR and results.errors:
        return f"The rig failed: {error_text(results.errors[0])}"
    for name, check in results.checkers.items():
        if check.verdict is verdict and verdict is not Verdict.VALID:
            if check.findings:
                return check.findings[0].message.splitlines()[0]
            return f"{name}: {check.summary}"
    if verdict is Verdict.VALID:
        summaries = [f"{name}: {check.summary}" for name, check in results.checkers.items()]
        found = f"No violation was found by {len(summaries)} checkers."
        return f"{found} {summaries[0]}" if summaries else found
    return "No checker says why."
