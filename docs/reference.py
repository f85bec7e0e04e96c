"""`docs/reference.md`: commands, fields, faults, workloads and checkers, as the code has them.

`python -m docs.reference` writes it; a test says when that has to be done again. Nothing in it
depends on the machine.
"""

import argparse
import ast
import inspect
import json
import re
import textwrap
from collections.abc import Iterable, Iterator, Mapping, Sequence
from enum import Enum
from pathlib import Path
from typing import Any, get_type_hints

import click
import msgspec

from labrys.checkers import catalogue
from labrys.checkers.formats import FORMATS
from labrys.checkers.models import MODELS
from labrys.control import judge
from labrys.control.cli import cli
from labrys.control.nemesis.nemesis import PACKAGES
from labrys.control.nemesis.package import FaultPackage, Options
from labrys.control.sim.faults import SIM_PACKAGES
from labrys.control.spec import ENVIRONMENTS, FLAGS, Spec
from labrys.control.systems.registry import SYSTEMS
from labrys.node.cli import parser
from labrys.workloads.registry import WORKLOADS

PAGE = Path(__file__).parent / "reference.md"
_INTRODUCTION = """\
# Reference

This page is generated from the code by `python -m docs.reference`: what stands here is what there
is.
"""


def main() -> None:
    """Write the page."""
    PAGE.write_text(page())


def page() -> str:
    """The whole page."""
    parts = (_INTRODUCTION, *_commands(), *_fields(), *_faults(), *_workloads(), *_checkers())
    return re.sub(r"\n{3,}", "\n\n", "\n".join(parts)).rstrip() + "\n"


# ---- commands -----------------------------------------------------------------------------------


def _commands() -> Iterator[str]:
    yield "## Commands\n"
    yield _told(cli.help or "")
    for name, command in sorted(cli.commands.items()):
        arguments = [
            each.metavar or each.human_readable_name
            for each in command.params
            if isinstance(each, click.Argument)
        ]
        usage = " ".join([f"labrys {name}", *arguments])
        yield f"### `{usage}`\n"
        yield _told(command.help or "")
        if command.epilog:
            yield f"{command.epilog}\n"
        yield from _table(
            ("option", "default", ""),
            (
                (f"`{_words(option)}`", _default_of(option), option.help or "")
                for option in command.params
                if isinstance(option, click.Option)
            ),
        )
    yield "### `labrys-node`\n"
    yield f"{parser().description}\n"
    yield from _table(
        ("option", ""),
        (
            (f"`{_argument(action)}`", action.help or "")
            for action in parser()._actions
            if action.dest != "help"
        ),
    )


def _told(help_text: str) -> str:
    """The help of a command: paragraphs that keep their lines are examples and tables."""
    parts = []
    for paragraph in inspect.cleandoc(help_text).split("\n\n"):
        if paragraph.startswith("\b\n"):
            parts.append(f"```\n{paragraph.removeprefix(chr(8)).strip()}\n```")
        else:
            parts.append(paragraph)
    return "\n\n".join(parts) + "\n"


def _words(option: click.Option) -> str:
    """The option as it is written, with what it takes."""
    names = ", ".join([*option.opts, *option.secondary_opts])
    return names if option.is_flag else f"{names} {_takes(option)}"


def _takes(option: click.Option) -> str:
    if option.metavar:
        return option.metavar
    if isinstance(option.type, click.Choice):
        return "|".join(map(str, option.type.choices))
    return {"integer range": "N", "integer": "N", "float": "X"}.get(
        option.type.name, option.type.name.upper()
    )


def _default_of(option: click.Option) -> str:
    default = option.default
    if option.is_flag or option.multiple or not isinstance(default, str | int | float | Path):
        return ""
    return f"`{default:g}`" if isinstance(default, float) else f"`{default}`"


def _argument(action: argparse.Action) -> str:
    names = ", ".join(action.option_strings)
    return f"{names} {action.metavar or action.dest.upper()}" if action.nargs != 0 else names


# ---- the fields of a test -----------------------------------------------------------------------


def _fields() -> Iterator[str]:
    yield "## The fields of a test\n"
    yield (
        "Of a spec file, of `test`, `matrix` and `include` in a suite, and of the mark `labrys` in "
        "pytest.\n"
    )
    rows = []
    for field, kind, default, told in _struct(Spec):
        flag = f"`{FLAGS[field]}`" if field in FLAGS else ""
        rows.append((f"`{field}`", flag, kind, default, told))
    yield from _table(("field", "flag", "type", "default", ""), rows)
    yield f"Environments: {_code(ENVIRONMENTS)}.\n"
    for name, system in sorted(SYSTEMS.items()):
        yield f"### System `{name}`\n"
        yield f"{_first(system)}\n"
        yield f"Options: {_code(system.option_names())}.\n"
        yield "[bugs.md](bugs.md) has its bugs.\n"


# ---- faults -------------------------------------------------------------------------------------


def _faults() -> Iterator[str]:
    yield "## Faults\n"
    yield (
        "[faults.md](faults.md) tells more of them. In `sim` all kinds can be had on any machine.\n"
    )
    yield "Every kind has these options:\n"
    yield from _table(("option", "type", "default", ""), _options(Options))
    for kind, package in PACKAGES.items():
        yield f"### `{kind}`\n"
        yield f"{_first(package)}\n"
        yield from _table(("", ""), _facts(kind, package))
        yield from _table(
            ("option", "type", "default", ""), _options(package.options_type, but=Options)
        )


def _facts(kind: str, package: type[FaultPackage]) -> Iterator[tuple[str, str]]:
    yield "by", package.mechanism
    if package.mechanism != SIM_PACKAGES[kind].mechanism:
        yield "in `sim`", SIM_PACKAGES[kind].mechanism
    yield "seen by", package.evidence
    yield "undone by", package.cure_word
    yield "operations", f"`{package.start_f}`, `{package.stop_f}`"
    if package.choices not in Options.__struct_fields__:
        yield f"`{kind}:...` sets", f"`{package.choices}`"
    lacking = [
        name
        for name in ENVIRONMENTS
        if name not in ("auto", "sim") and not package.is_offered(name)
    ]
    if lacking:
        yield "not in", f"{_code(lacking)}: {package.without}"
    if package.nodes_min > 1:
        yield "nodes", f"at least {package.nodes_min}"


def _options(
    options: type[msgspec.Struct], but: type[msgspec.Struct] | None = None
) -> Iterator[tuple[str, str, str, str]]:
    known = () if but is None else but.__struct_fields__
    for field, kind, default, told in _struct(options):
        if field not in known:
            yield f"`{field}`", kind, default, told


# ---- workloads and checkers ---------------------------------------------------------------------


def _workloads() -> Iterator[str]:
    yield "## Workloads\n"
    for name, workload in sorted(WORKLOADS.items()):
        yield f"### `{name}`\n"
        yield f"{workload.description[0].upper()}{workload.description[1:]}.\n"
        yield from _table(
            ("", ""),
            (
                ("reads", _code(sorted(workload.reads))),
                ("writes", _code(sorted(workload.writes))),
                ("model", f"`{workload.model}`"),
            ),
        )
        yield from _table(("option", "type", "default", ""), _options(workload.options))


def _checkers() -> Iterator[str]:
    yield "## Checkers\n"
    yield "These judge every run of `labrys test`:\n"
    checkers = judge.checkers_of(Spec())
    yield from _table(
        ("checker", ""), ((f"`{each.name}`", _first(type(each))) for each in checkers)
    )
    yield (
        "`labrys check --model` takes these for histories; [checkers.md](checkers.md) has their "
        f"operations. Files are {_code(FORMATS)}.\n"
    )
    rows = []
    for name in catalogue.names():
        made = MODELS[name] if name in MODELS else type(catalogue.checker_for(name))
        levels = _code(catalogue.levels_of(name)) if catalogue.levels_of(name) else ""
        rows.append((f"`{name}`", levels, _first(made)))
    yield from _table(("model", "levels, the default first", ""), rows)


# ---- how it is told -----------------------------------------------------------------------------


def _struct(struct: type[msgspec.Struct]) -> Iterator[tuple[str, str, str, str]]:
    """The fields of a struct: name, type, default and what is said of it."""
    sources = _annotated(struct)
    hints = get_type_hints(struct)
    for field in msgspec.structs.fields(struct):
        annotation, told = sources[field.name]
        hint = hints[field.name]
        if inspect.isclass(hint) and issubclass(hint, Enum):
            kind = " or ".join(f"`{member.value}`" for member in hint)
        else:
            kind = f"`{annotation}`"
        default = field.default
        if default is msgspec.NODEFAULT:
            default = field.default_factory()
        yield field.name, kind, f"`{json.dumps(msgspec.to_builtins(default))}`", told


def _annotated(struct: type[msgspec.Struct]) -> dict[str, tuple[str, str]]:
    """Annotation and docstring of each field, by name; those of a subclass come last and count."""
    found: dict[str, tuple[str, str]] = {}
    for base in reversed(struct.__mro__):
        if not issubclass(base, msgspec.Struct) or base is msgspec.Struct:
            continue
        (tree,) = ast.parse(textwrap.dedent(inspect.getsource(base))).body
        assert isinstance(tree, ast.ClassDef)
        for statement, after in zip(tree.body, [*tree.body[1:], None], strict=True):
            if isinstance(statement, ast.AnnAssign) and isinstance(statement.target, ast.Name):
                told = found.get(statement.target.id, ("", ""))[1]
                if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                    told = inspect.cleandoc(str(after.value.value))
                found[statement.target.id] = (ast.unparse(statement.annotation), told)
    return found


def _first(documented: Any) -> str:
    """The first paragraph of a docstring."""
    return (inspect.getdoc(documented) or "").split("\n\n")[0]


def _code(words: Iterable[str] | Mapping[str, Any]) -> str:
    return ", ".join(f"`{word}`" for word in words)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> Iterator[str]:
    """A table, if there are any rows."""
    lines = [_row(row) for row in rows]
    if lines:
        yield "\n".join([_row(head), _row(["---"] * len(head)), *lines, ""])


def _row(cells: Sequence[str]) -> str:
    inside = (" ".join(cell.split()).replace("|", "\\|") for cell in cells)
    return f"| {' | '.join(inside)} |"


if __name__ == "__main__":
    main()
