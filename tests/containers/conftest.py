"""Containers for tests: skipped without an engine, except in CI, where that is a failure."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from labrys.control.environments import docker
from labrys.control.environments.docker import DockerEnvironment
from labrys.control.environments.image import ensure_image

MakeEnvironment = Callable[..., DockerEnvironment]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything here as needing Docker, with time for making a base image first."""
    for item in items:
        if Path(__file__).parent in item.path.parents:
            item.add_marker(pytest.mark.docker)
            item.add_marker(pytest.mark.timeout(1800))


@pytest.fixture(scope="session", autouse=True)
def image() -> str:
    """The tag of the node image, built if need be."""
    reason = docker.probe()
    if reason is not None:
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return ensure_image(print)


@pytest.fixture(scope="session")
def cluster(image: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[DockerEnvironment]:
    """Five nodes for all tests that do not break them."""
    env = DockerEnvironment(
        ("n1", "n2", "n3", "n4", "n5"), tmp_path_factory.mktemp("cluster"), print
    )
    try:
        env.provision()
        yield env
    finally:
        env.destroy()


@pytest.fixture
def make_environment(image: str, tmp_path: Path) -> Iterator[MakeEnvironment]:
    """Return a function that makes an environment, not provisioned; destroyed after the test."""
    made: list[DockerEnvironment] = []

    def make(*nodes: str, run_dir: Path = tmp_path) -> DockerEnvironment:
        made.append(DockerEnvironment(nodes, run_dir, print))
        return made[-1]

    yield make
    for env in made:
        env.destroy()
