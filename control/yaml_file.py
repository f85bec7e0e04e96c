"""A YAML file that a user wrote: what is in it, and on which line each key stands."""

from pathlib import Path
from typing import Any

import yaml

from labrys.control.errors import UsageError


class YamlFile:
    """The content of a YAML file, and where its parts are."""

    def __init__(self, path: Path, noun: str) -> None:
        """Read the file, which is to hold a `noun`. Raises UsageError naming file and line."""
        self._path = path
        try:
            text = path.read_text()
        except OSError as error:
            raise UsageError(f"{path}: cannot read the {noun}: {error.strerror}") from error
        except UnicodeDecodeError as error:
            raise UsageError(f"{path}: not a text file: {error}") from error
        try:
            self.content: Any = yaml.load(text, _Loader)
            self._root = yaml.compose(text, _Loader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{path}:{mark.line + 1}:{mark.column + 1}" if mark else str(path)
            problem = getattr(error, "problem", None) or str(error)
            raise UsageError(f"{where}: not YAML: {problem}") from error
        except RecursionError as error:
            raise UsageError(f"{path}: nested too deeply") from error

    def where(self, *steps: str | int) -> str:
        """Return file and line of the part that keys and places lead to, as far as they do."""
        node, mark = self._root, None
        for step in steps:
            found = _child(node, step)
            if found is None:
                break
            node, mark = found
        return f"{self._path}:{mark.line + 1}" if mark is not None else str(self._path)


def _child(node: yaml.Node | None, step: str | int) -> tuple[yaml.Node, yaml.Mark] | None:
    if isinstance(node, yaml.MappingNode):
        for key, value in node.value:
            if isinstance(key, yaml.ScalarNode) and key.value == str(step):
                return value, key.start_mark
    elif isinstance(node, yaml.SequenceNode) and isinstance(step, int) and step < len(node.value):
        return node.value[step], node.value[step].start_mark
    return None


# That in C is six times as fast; it shows in a list of thousands of operations.
_SafeLoader: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_SafeLoader):  # type: ignore[misc]
    """Refuses a key that is there twice, where YAML itself would drop the first one in silence."""

    def get_single_node(self) -> yaml.Node | None:
        root: yaml.Node | None = super().get_single_node()
        left = [root] if root is not None else []
        known = set()
        while left:
            node = left.pop()
            if id(node) in known:  # named by an alias
                continue
            known.add(id(node))
            if isinstance(node, yaml.MappingNode):
                _assert_distinct(node)
                left += [part for pair in node.value for part in pair]
            elif isinstance(node, yaml.SequenceNode):
                left += node.value
        return root


def _assert_distinct(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode):
            if key.value in seen:
                raise yaml.composer.ComposerError(
                    None, None, f"{key.value!r} is there twice", key.start_mark
                )
            seen.add(key.value)
