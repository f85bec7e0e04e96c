"""A run as a zip, made while it is sent: nothing of it is held in memory or on disk."""

import io
import os
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Final

_CHUNK_BYTES: Final = 1 << 20


class _Pipe(io.RawIOBase):
    """What zipfile writes to: keeps it until it is taken away."""

    def __init__(self) -> None:
        self._chunks: list[bytes] = []

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        chunk = bytes(data)  # type: ignore[call-overload]  # any buffer will do
        self._chunks.append(chunk)
        return len(chunk)

    def take(self) -> bytes:
        """Return what was written since the last time."""
        taken, self._chunks = b"".join(self._chunks), []
        return taken


def files_of(folder: Path) -> Iterator[Path]:
    """Yield the files below `folder`, in order; what links point to is not part of it."""
    for place, folders, names in os.walk(folder):
        folders.sort()
        for name in sorted(names):
            path = Path(place) / name
            if path.is_file() and not path.is_symlink():
                yield path


def zipped(folder: Path) -> Iterator[bytes]:
    """Yield a zip of all files below `folder`, in a folder of its name.

    A file that cannot be read is left out.
    """
    pipe = _Pipe()
    with zipfile.ZipFile(pipe, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in files_of(folder):
            name = f"{folder.name}/{path.relative_to(folder).as_posix()}"
            name = name.encode(errors="replace").decode()
            try:
                source = path.open("rb")
                info = zipfile.ZipInfo.from_file(path, name, strict_timestamps=False)
            except OSError:
                continue
            info.compress_type = zipfile.ZIP_DEFLATED
            with source, archive.open(info, "w", force_zip64=True) as target:
                while chunk := source.read(_CHUNK_BYTES):
                    target.write(chunk)
                    yield pipe.take()
            yield pipe.take()
    yield pipe.take()
