"""How faults are written in few characters: `kill:all+leader,partition`, as `--faults` takes them.

A fault may be followed by its targets or shapes. What the short form cannot say is a YAML mapping
in one line, and the same faults in a file may be either of them, or a list.
"""

from typing import Any

import yaml

from labrys.control.errors import UsageError
from labrys.control.names import known
from labrys.control.nemesis.nemesis import PACKAGES

# That in C is six times as fast; it shows in a list of thousands of operations.
_Dumper: Any = getattr(yaml, "CSafeDumper", yaml.SafeDumper)


def parse_faults_notation(text: str, where: str) -> Any:
    """Return the `faults` of a spec: a list or a mapping. `none` are none, `all` stays a word.

    Raises UsageError that begins with `where`; the kinds of a list are checked with the spec.
    """
    if text.lstrip().startswith("{"):
        return yaml_value(text, where)
    words = [word.strip() for word in text.split(",")]
    words = [word for word in words if word and word != "none"]
    if not any(":" in word for word in words):
        return words
    faults: dict[str, Any] = {}
    for word in words:
        kind, colon, choices = word.partition(":")
        known("fault", kind, PACKAGES, where=where)
        if kind in faults:
            raise UsageError(f"{where}: {kind!r} is there twice; write {kind}:CHOICE+CHOICE")
        faults[kind] = {PACKAGES[kind].choices: choices.split("+")} if colon else {}
    return faults


def faults_notation(faults: list[str] | dict[str, dict[str, Any]]) -> str:
    """Return `faults` in the short form if that can say it all; no faults are an empty text."""
    if isinstance(faults, list):
        return "all" if faults == list(PACKAGES) else ",".join(faults)
    words = []
    for kind, options in faults.items():
        chosen = options.get(PACKAGES[kind].choices, [])
        if len(options) > bool(chosen) or not all(isinstance(one, str) for one in chosen):
            return in_one_line(faults)
        words.append(f"{kind}:{'+'.join(chosen)}" if chosen else kind)
    return ",".join(words)


def yaml_value(text: str, where: str) -> Any:
    """Return the value of a YAML text. Raises UsageError that begins with `where`."""
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise UsageError(f"{where}: not YAML: {error}") from error


def in_one_line(value: Any) -> str:
    """Return `value` as YAML without a line break."""
    text = yaml.dump(value, Dumper=_Dumper, default_flow_style=True, sort_keys=False, width=2**30)
    return str(text).strip()
