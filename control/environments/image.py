"""The image that nodes run in: built once, also where no registry can be reached.

The recipe lies in docker/. A base is pulled, or where that fails made from Debian packages by
docker/make-base-image; on top go the node's Python dependencies. Those come as wheels that pip
fetches here, on the host, where proxies and certificates are set up; the build itself needs no
network. The node's own code is not in the image, so images are rebuilt only when the Dockerfile or
the dependencies change: both are part of the tag. A base is kept; after a change of make-base-image
remove it and the image by hand (docker rmi).
"""

import fcntl
import hashlib
import os
import shutil
import subprocess
import sysconfig
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import docker
import requests
from docker.errors import APIError, DockerException, ImageNotFound

from labrys.control.environments import wheels
from labrys.control.environments.engine import connect, labels
from labrys.control.errors import MachineError

PULLED_BASE = "python:3.12-slim-bookworm"
MADE_BASE = "labrys-base:bookworm"
_REPOSITORY = "labrys-node"
_PLACE = Path("/var/tmp")  # on a disk, where a base system of 300 MB fits
_WORK_PREFIX = "labrys-image-"
_BASE_MADE_WITHIN_S = 1800
_SAID_AT_MOST = 1500  # characters of a failed program's output in a message

Say = Callable[[str], None]


def ensure_image(say: Say) -> str:
    """Return the tag of the node image, after building it if it is not there.

    The first build takes a few seconds on a pulled base, and about a minute where the base must be
    made; `say` gets a line at each step. Raises MachineError with the reason and the mend.
    """
    recipe = _recipe()
    tag = f"{_REPOSITORY}:{_fingerprint(recipe)}"
    with closing(connect()) as client:
        try:
            if not _exists(client, tag):
                _make(client, recipe, tag, say)
        except (DockerException, OSError) as error:  # requests' errors are OSErrors
            raise MachineError(f"image: {tag} cannot be had: {error}") from error
    return tag


def remove_stale_work() -> list[str]:
    """Remove the work folders of builds that were killed, unless one goes on; return their names.

    Raises OSError for what cannot be removed.
    """
    mine = [f for f in _PLACE.glob(f"{_WORK_PREFIX}*/") if f.stat().st_uid == os.getuid()]
    if not mine:
        return []
    with open(_lock_path(), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return []
        for folder in mine:
            shutil.rmtree(folder)
    return [str(folder) for folder in mine]


def _recipe() -> Path:
    """Return the folder with Dockerfile and make-base-image: in the checkout, or as installed."""
    checkout = Path(__file__).resolve().parents[2] / "docker"
    installed = Path(sysconfig.get_path("data")) / "share" / "labrys" / "docker"
    for folder in (checkout, installed):
        if (folder / "Dockerfile").is_file():
            return folder
    raise MachineError(
        f"the image recipe is neither at {checkout} nor at {installed}; "
        "install labrys again, or choose --env netns"
    )


def _fingerprint(recipe: Path) -> str:
    parts = [(recipe / "Dockerfile").read_text(), *wheels.requirements()]
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:12]


def _make(client: docker.DockerClient, recipe: Path, tag: str, say: Say) -> None:
    with _one_at_a_time(say), TemporaryDirectory(prefix=_WORK_PREFIX, dir=_PLACE) as work:
        if not _exists(client, tag):
            started = time.monotonic()
            base = _ensure_base(client, recipe, Path(work), say)
            _build(client, recipe, base, tag, Path(work), say)
            say(f"image: {tag} is ready after {time.monotonic() - started:.0f} s")


def _exists(client: docker.DockerClient, tag: str) -> bool:
    try:
        client.images.get(tag)
    except ImageNotFound:
        return False
    return True


@contextmanager
def _one_at_a_time(say: Say) -> Iterator[None]:
    """Keep two runs from building at once; the second then finds what the first has built."""
    with open(_lock_path(), "w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("image: another run is building it; waiting")
            fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _lock_path() -> Path:
    return _PLACE / f"labrys-image.{os.getuid()}.lock"


def _ensure_base(client: docker.DockerClient, recipe: Path, work: Path, say: Say) -> str:
    for base in (MADE_BASE, PULLED_BASE):
        if _exists(client, base):
            return base
    say(f"image: pulling {PULLED_BASE}")
    try:
        client.images.pull(PULLED_BASE)
        return PULLED_BASE
    except (DockerException, requests.RequestException) as error:
        say(f"image: it cannot be pulled ({_first_line(error)})")
    say("image: making a Debian base instead; once, about a minute")
    rootfs = work / "rootfs.tar"
    _make_rootfs(recipe / "make-base-image", rootfs, say)
    say("image: importing the base")
    repository, tag = MADE_BASE.split(":")
    client.api.import_image_from_file(str(rootfs), repository=repository, tag=tag)
    rootfs.unlink()
    if not _exists(client, MADE_BASE):
        raise MachineError(f"the engine took the base system but does not know {MADE_BASE} now")
    return MADE_BASE


def _make_rootfs(script: Path, rootfs: Path, say: Say) -> None:
    """Run make-base-image, telling each stage of debootstrap once."""
    stages = {"Installing", "Retrieving", "Extracting", "Unpacking", "Configuring", "Packing"}
    lines: list[str] = []
    with subprocess.Popen(
        ["timeout", str(_BASE_MADE_WITHIN_S), "/bin/sh", str(script), str(rootfs)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        errors="replace",
        env={**os.environ, "TMPDIR": str(rootfs.parent)},
    ) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                lines.append(line)
                words = line.split()
                if len(words) > 1 and words[0] == "I:" and words[1] in stages:
                    stages.remove(words[1])
                    say(f"image: base system: {words[1].lower()}")
        except BaseException:
            process.terminate()  # `timeout` hands it on to all that it runs
            raise
    if process.returncode != 0:
        raise MachineError(
            f"no base image: {PULLED_BASE} cannot be pulled, and {script} failed "
            f"(exit {process.returncode}): {_tail(''.join(lines))}"
        )


def _build(
    client: docker.DockerClient, recipe: Path, base: str, tag: str, work: Path, say: Say
) -> None:
    context = work / "context"
    context.mkdir()
    shutil.copy(recipe / "Dockerfile", context)
    say(f"image: fetching {' and '.join(wheels.NODE_NEEDS)} for {base}")
    wheels.fetch(_python_of(client, base, work), context / "wheels", "image")
    say(f"image: building on {base}")
    told: list[str] = []
    try:
        for step in client.api.build(
            path=str(context),
            tag=tag,
            buildargs={"BASE_IMAGE": base},
            # A base of our own making has all packages. Another may want apt.
            network_mode="none" if base == MADE_BASE else None,
            rm=True,
            forcerm=True,
            decode=True,
        ):
            told.append(step.get("stream") or step.get("error") or "")
            if "error" in step:
                raise MachineError(f"image: the build failed: {_tail(''.join(told))}")
    except APIError as error:
        raise MachineError(f"image: the engine refused the build: {error}") from error


def _python_of(client: docker.DockerClient, base: str, work: Path) -> wheels.Python:
    try:
        told = client.containers.run(
            base,
            ["python3", "-c", wheels.WHICH_PYTHON],
            network_mode="none",
            remove=True,
            labels=labels(work),
        )
    except DockerException as error:
        raise MachineError(f"image: no Python in {base}: {error}") from error
    return wheels.parse_python(told.decode())


def _first_line(error: Exception) -> str:
    """Say what an engine or a connection answered, without the SDK's own wrapping."""
    if isinstance(error, APIError) and error.explanation:
        return str(error.explanation).splitlines()[0][:200]
    return (str(error).splitlines() or [repr(error)])[0][:200]


def _tail(text: str) -> str:
    return text.strip()[-_SAID_AT_MOST:] or "it said nothing"
