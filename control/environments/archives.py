"""Tar archives: how files go to a node and logs come back."""

import io
import tarfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path, PurePosixPath

from labrys.control.errors import ClusterError


def pack(files: Mapping[str, bytes]) -> bytes:
    """Return an archive of files by path."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for path, content in files.items():
            member = tarfile.TarInfo(path)
            member.size = len(content)
            member.mode = 0o755
            member.mtime = int(time.time())
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def unpack_logs(source: str, content: bytes, into: Path) -> None:
    """Write the files below the one folder of an archive into the folder `into`.

    Raises ClusterError, naming the `source`, for an archive that came damaged.
    """
    try:
        with tarfile.open(fileobj=io.BytesIO(content)) as archive:
            for path, data in _files(archive):
                target = into.joinpath(*path.parts)
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(data)
    except tarfile.TarError as error:  # it broke off in the middle
        raise ClusterError(f"{source}: its logs came damaged: {error}") from error


def _files(archive: tarfile.TarFile) -> Iterator[tuple[PurePosixPath, bytes]]:
    """Yield the plain files below the archive's one folder; a node has no say in where they go."""
    for member in archive:
        path = PurePosixPath(*PurePosixPath(member.name).parts[1:])
        if member.isfile() and path.parts and ".." not in path.parts:
            content = archive.extractfile(member)
            assert content is not None, f"{member.name} is a file"
            yield path, content.read()
