"""The wheel holds every package, and the layers are what they are said to be."""

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
FOLDERS = ("node", "checkers", "workloads", "control")


def test_every_package_is_listed_for_the_wheel() -> None:
    """A nested package that is not listed works in a checkout and is missing from the wheel."""
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join(("labrys", *init.parent.relative_to(ROOT).parts))
        for folder in FOLDERS
        for init in (ROOT / folder).rglob("__init__.py")
    }
    assert set(listed) == found


@pytest.mark.parametrize("folder", FOLDERS)
def test_type_checkers_find_the_package_by_its_full_name(folder: str) -> None:
    assert (ROOT / "typings" / "labrys" / folder).resolve() == (ROOT / folder).resolve()
    assert (ROOT / folder / "py.typed").is_file()


def test_docker_folder_does_not_shadow_the_sdk() -> None:
    assert not list((ROOT / "docker").rglob("*.py"))


@pytest.mark.parametrize("package", ["report", "nemesis", "suite", "viewer"])
def test_files_that_are_no_python_are_in_the_wheel(package: str) -> None:
    data = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]
    patterns = data["package-data"][f"labrys.control.{package}"]
    folder = ROOT / "control" / package
    assets = {path.suffix for path in folder.iterdir() if path.is_file()} - {".py", ".typed"}
    assert assets == {pattern.lstrip("*") for pattern in patterns}


@pytest.mark.parametrize(
    ("imported", "heavy"),
    [
        ("labrys.node.cli", {"labrys.control", "labrys.checkers", "labrys.workloads", "requests"}),
        ("labrys.checkers.linearizable", {"labrys.control", "labrys.workloads", "labrys.node"}),
        ("labrys.workloads.register", {"labrys.control", "labrys.node", "requests"}),
        ("labrys.control.pytest_plugin", {"labrys.control.testing", "msgspec", "requests"}),
    ],
)
def test_lower_layers_load_nothing_from_above(imported: str, heavy: set[str]) -> None:
    code = f"import sys, {imported}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert heavy.isdisjoint(done.stdout.split())
