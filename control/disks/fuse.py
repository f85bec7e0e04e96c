"""Serves a `Volume` to the kernel as a file system that fails on demand.

The standard library only, and nothing of ours but the volume: this file runs inside the nodes. It
speaks the kernel's own protocol (linux/fuse.h) over /dev/fuse, so a node needs no FUSE library.

    python3 -m labrys.control.disks.fuse DIRECTORY TOKEN

mounts an empty volume on DIRECTORY and serves it until it is unmounted or the process ends. Nothing
is cached by the kernel: every read and write comes here, at some 16 us of CPU each.

It is told what to do through a file in the mounted directory itself, which no listing shows: a JSON
object is written to `.labrys-disk`, and the answer read from the same descriptor. So the control
works wherever a shell can reach the directory, and dies with the file system.

    {"do": "status"}                                   what is in force, and counts
    {"do": "fail", "mode": MODE, ...}                  a condition, see `Condition`
    {"do": "lift"}                                     it ends; counts of what it did
    {"do": "cut"}                                      power off: whatever comes now waits
    {"do": "restore", "unsynced": HOW, "seed": SEED}   power on, see `Volume.power_failure`
    {"do": "lie", "writeback_s": S}                    flushes do nothing; all is flushed each S

What must wait (a hung or slow disk, one without power) is answered later, from a heap. A signal
ends its wait with EINTR, so that a process on a hung disk can still be killed.

Lookups and attributes never fail: a real kernel has those in its memory, too.
"""

import contextlib
import ctypes
import errno
import heapq
import json
import os
import select
import signal
import sys
import time
from typing import Any, NamedTuple

from labrys.control.disks import wire
from labrys.control.disks.filesystem import FileSystem
from labrys.control.disks.volume import CAPACITY_BYTES, LOSE, Volume
from labrys.control.disks.wire import CONTROL_NUMBER, Op, Request

CONTROL = b".labrys-disk"
READ, WRITE, FSYNC, NAME = "read", "write", "fsync", "name"
OPERATIONS = (READ, WRITE, FSYNC, NAME)
FULL, ERROR, SLOW, READONLY, HANG = "full", "error", "slow", "readonly", "hang"
MODES = (FULL, ERROR, SLOW, READONLY, HANG)

_KIND_OF: dict[int, str] = {
    Op.READ: READ, Op.READDIR: READ, Op.READLINK: READ, Op.WRITE: WRITE, Op.FALLOCATE: WRITE,
    Op.FSYNC: FSYNC, Op.FSYNCDIR: FSYNC, Op.CREATE: NAME, Op.MKNOD: NAME, Op.MKDIR: NAME,
    Op.SYMLINK: NAME, Op.UNLINK: NAME, Op.RMDIR: NAME, Op.RENAME: NAME, Op.RENAME2: NAME,
    Op.LINK: NAME,
}  # fmt: skip
_MS_NOSUID, _MS_NODEV = 2, 4
_MNT_DETACH = 2
_NEVER = float("inf")
_OPEN = "open"
"""To write."""


class Condition:
    """What is wrong with the disk, and what came of it."""

    def __init__(self, wish: dict[str, Any], short: int) -> None:
        """`short` writes there were before. Raises ValueError for what there is not."""
        self.mode: str = wish["mode"]
        self.operations = frozenset[str](wish.get("operations", OPERATIONS))
        """Which ones fail, or wait."""
        self.delay_s: float = wish.get("delay_ms", 0) / 1e3
        self.room_bytes: int = wish.get("room_bytes", 0)
        """How much still fits on a full disk."""
        self.failed = self.held = 0
        self.short_before = short
        if self.mode not in MODES or not self.operations <= {*OPERATIONS}:
            raise ValueError(f"no such fault: {wish}")


class _Due(NamedTuple):
    at: float
    unique: int
    request: Request


class Server:
    """One mounted volume and its faults. Single-threaded: everything happens in `serve`."""

    def __init__(self, device: int, token: str) -> None:
        """`device` is an open /dev/fuse that is mounted; `token` says whose this is."""
        self._device = device
        self._token = token
        self._volume = Volume()
        self._files = FileSystem(self._volume, self._lies)
        self._condition: Condition | None = None
        self._is_cut = False
        self._writeback_s: float | None = None
        """How old what was flushed may be without being durable; None: flushes are honest."""
        self._written_back_at = time.monotonic()
        self._lied = self._interrupted = 0
        self._held: dict[int, Request] = {}
        self._in_flight: list[Request] = []
        """Held when the power went, and given up since by a process that was killed."""
        self._due: list[_Due] = []
        """Those of the held that go on by themselves, as a heap."""
        self._answers: dict[int, bytearray] = {}
        """By open control file: what is still to be read there."""
        self._last_handle = 0
        self._has_ended = False

    def serve(self) -> None:
        """Answer the kernel until the file system is unmounted."""
        buffer = bytearray(wire.WRITE_BYTES + 4096)
        view = memoryview(buffer)
        buffers = [buffer]
        unpack, header_size = wire.HEADER.unpack_from, wire.HEADER.size
        while not self._has_ended:
            if self._due and not self._await_request():
                continue
            try:
                size = os.readv(self._device, buffers)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.EINTR, errno.EAGAIN):
                    continue  # the request was taken back while it was on its way
                if error.errno == errno.ENODEV:
                    return
                raise
            _, opcode, unique, number, uid, gid, _, _, _ = unpack(buffer)
            self._take(Request(opcode, unique, number, uid, gid, view[header_size:size]))

    def _take(self, request: Request) -> None:
        if request.opcode == Op.INIT:
            self._reply(request.unique, wire.hello(request.body))
        elif request.opcode == Op.DESTROY:
            self._has_ended = True
        elif request.opcode == Op.INTERRUPT:
            self._interrupt(*wire.U64.unpack_from(request.body))
        elif request.number == CONTROL_NUMBER:
            self._answer_control(request)
        elif _is_control_looked_up(request):
            entry = wire.ENTRY.pack(CONTROL_NUMBER, 0, 0, 0, 0, 0)
            self._reply(request.unique, entry + wire.control_attributes())
        elif not (self._is_cut or self._condition is not None) or not self._is_hit(request):
            self._answer(request)

    def _answer(self, request: Request) -> None:
        try:
            answer = self._files.answer(request)
        except OSError as error:
            if error.errno == errno.ENOSPC and self._condition is not None:
                self._condition.failed += 1
            self._reply_error(request.unique, error.errno or errno.EIO)
        else:
            if answer is not None:
                self._reply(request.unique, answer)

    def _reply(self, unique: int, answer: bytes) -> None:
        # ENOENT: nobody waits for it any more.
        with contextlib.suppress(FileNotFoundError):
            os.write(self._device, wire.OUT.pack(wire.OUT.size + len(answer), 0, unique) + answer)

    def _reply_error(self, unique: int, number: int) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.write(self._device, wire.OUT.pack(wire.OUT.size, -number, unique))

    # ---- faults -------------------------------------------------------------------------------

    def _is_hit(self, request: Request) -> bool:
        """Let the request fail or wait if it has to; False: it goes on as if nothing were."""
        kind = _kind(request)
        if kind is None:
            return False
        if self._is_cut:
            return kind != _OPEN and self._hold(request, _NEVER)
        condition = self._condition
        assert condition is not None, "only then it is asked"
        if condition.mode == READONLY:
            # What is dirty can't be written any more; a flush of what is clean has nothing to do.
            is_idle = kind == READ or (request.opcode == Op.FSYNC and self._files.is_clean(request))
            return not is_idle and self._fail(request, errno.EROFS)
        if kind not in condition.operations:
            return False
        if condition.mode == ERROR:
            return self._fail(request, errno.EIO)
        if condition.mode == HANG:
            return self._hold(request, _NEVER)
        if condition.mode == SLOW:
            return self._hold(request, time.monotonic() + condition.delay_s)
        return False

    def _fail(self, request: Request, number: int) -> bool:
        assert self._condition is not None, "nothing fails without one"
        self._condition.failed += 1
        self._reply_error(request.unique, number)
        return True

    def _hold(self, request: Request, until: float) -> bool:
        kept = request._replace(body=memoryview(bytes(request.body)))
        self._held[request.unique] = kept
        if self._condition is not None:
            self._condition.held += 1
        if until != _NEVER:
            heapq.heappush(self._due, _Due(until, request.unique, kept))
        return True

    def _await_request(self) -> bool:
        """Let go of what is due, and wait for a request until more is; False: there is none."""
        now = time.monotonic()
        while self._due and self._due[0].at <= now:
            request = heapq.heappop(self._due).request
            if self._held.get(request.unique) is request:
                del self._held[request.unique]
                self._answer(request)
        if not self._due:
            return True
        poll = select.poll()
        poll.register(self._device, select.POLLIN)
        return bool(poll.poll(max(0.0, self._due[0].at - now) * 1e3))

    def _interrupt(self, unique: int) -> None:
        """A signal came for a process that waits here: it must not wait for ever."""
        request = self._held.pop(unique, None)
        if request is not None:
            self._interrupted += 1
            if self._is_cut:
                self._in_flight.append(request)
            self._reply_error(unique, errno.EINTR)

    def _lies(self) -> bool:
        """Whether this flush does nothing; all is written back when it is time."""
        if self._writeback_s is None:
            return False
        now = time.monotonic()
        if now - self._written_back_at >= self._writeback_s:
            self._volume.sync_all()
            self._written_back_at = now
            return False
        self._lied += 1
        return True

    # ---- control ------------------------------------------------------------------------------

    def _answer_control(self, request: Request) -> None:
        body, unique = request.body, request.unique
        match request.opcode:
            case Op.OPEN:
                self._last_handle += 1
                self._answers[self._last_handle] = bytearray()
                self._reply(unique, wire.OPEN_OUT.pack(self._last_handle, wire.FOPEN_DIRECT_IO, 0))
            case Op.WRITE:
                handle, _, size, *_ = wire.WRITE_IN.unpack_from(body)
                said = json.dumps(self._obey(bytes(body[wire.WRITE_IN.size :][:size])))
                self._answers[handle] = bytearray(said.encode())
                self._reply(unique, wire.WRITE_OUT.pack(size, 0))
            case Op.READ:
                handle, _, size = wire.READ_IN.unpack_from(body)
                self._reply(unique, bytes(self._answers[handle][:size]))
                del self._answers[handle][:size]
            case Op.RELEASE:
                self._answers.pop(*wire.U64.unpack_from(body))
                self._reply(unique, b"")
            case Op.GETATTR | Op.SETATTR:
                self._reply(unique, bytes(16) + wire.control_attributes())
            case Op.FORGET:
                pass
            case _:
                self._reply_error(unique, errno.ENOSYS)

    def _obey(self, command: bytes) -> dict[str, Any]:
        try:
            return {"token": self._token, **self._do(json.loads(command))}
        except (ValueError, KeyError, TypeError) as error:
            return {"error": f"{type(error).__name__}: {error}"}

    def _do(self, wish: dict[str, Any]) -> dict[str, Any]:
        match wish["do"]:
            case "status":
                return self._facts()
            case "fail":
                condition = Condition(wish, self._files.counts["short"])
                self._lift()
                self._condition = condition
                if condition.mode == FULL:
                    self._volume.capacity_bytes = self._volume.used_bytes + condition.room_bytes
                return {}
            case "lift":
                return self._lift()
            case "cut":
                self._is_cut = True
                return {}
            case "restore":
                return self._restore(wish.get("unsynced", LOSE), wish.get("seed", ""))
            case "lie":
                self._writeback_s = wish["writeback_s"]
                return {}
        raise ValueError(f"there is no command {wish['do']!r}")

    def _facts(self) -> dict[str, Any]:
        return {
            **self._files.counts,
            "lied": self._lied,
            "interrupted": self._interrupted,
            "waiting": len(self._held),
            "mode": self._condition and self._condition.mode,
            "is_cut": self._is_cut,
            "used_bytes": self._volume.used_bytes,
        }

    def _lift(self) -> dict[str, Any]:
        condition, self._condition = self._condition, None
        self._volume.capacity_bytes = CAPACITY_BYTES
        waiting = len(self._held)
        if not self._is_cut:
            held = list(self._held.values())
            self._held.clear()
            self._due.clear()
            for request in held:
                self._answer(request)
        if condition is None:
            return {}
        return {
            "mode": condition.mode,
            "failed": condition.failed,
            "short": self._files.counts["short"] - condition.short_before,
            "held": condition.held,
            "waiting": waiting,
        }

    def _restore(self, unsynced: str, seed: str) -> dict[str, Any]:
        if not self._is_cut:
            return {}
        # What was being written when the power went may be there, though nobody was told. A flush
        # that was not told either has done nothing.
        for request in sorted([*self._in_flight, *self._held.values()], key=_by_age):
            if _kind(request) in (WRITE, NAME):
                with contextlib.suppress(OSError):
                    self._files.answer(request)
        for unique in self._held:
            self._reply_error(unique, errno.EIO)
        self._in_flight.clear()
        self._held.clear()
        self._due.clear()
        facts = self._volume.power_failure(unsynced, seed)
        self._files.begin_anew()
        self._written_back_at = time.monotonic()
        self._is_cut = False
        return facts


def _by_age(request: Request) -> int:
    return request.unique


def _is_control_looked_up(request: Request) -> bool:
    is_in_root = request.opcode == Op.LOOKUP and request.number == 1
    return is_in_root and wire.name_in(request.body) == CONTROL


def _kind(request: Request) -> str | None:
    """What sort of operation it is; None: one that faults leave alone."""
    if request.opcode == Op.SETATTR:
        return WRITE if wire.U32.unpack_from(request.body)[0] & wire.SET_SIZE else NAME
    if request.opcode == Op.OPEN:
        # It only shows on a disk that cannot be written to.
        return _OPEN if wire.U32.unpack_from(request.body)[0] & os.O_ACCMODE else None
    return _KIND_OF.get(request.opcode)


def mount(directory: str) -> int:
    """Mount a file system on `directory` and return the device that it is to be served from."""
    device = os.open("/dev/fuse", os.O_RDWR | os.O_CLOEXEC)
    options = (
        f"fd={device},rootmode=40000,user_id={os.geteuid()},group_id={os.getegid()},"
        "allow_other,default_permissions"
    )
    libc = ctypes.CDLL(None, use_errno=True)
    source, kind = b"labrys-disk", b"fuse"
    flags = ctypes.c_ulong(_MS_NOSUID | _MS_NODEV)
    if libc.mount(source, os.fsencode(directory), kind, flags, options.encode()) != 0:
        number = ctypes.get_errno()
        raise OSError(number, f"mount: {os.strerror(number)}", directory)
    return device


def unmount(directory: str) -> None:
    """Take the file system away from `directory`; whoever uses it keeps it a while."""
    ctypes.CDLL(None).umount2(os.fsencode(directory), _MNT_DETACH)


def main(argv: list[str]) -> None:
    """Mount and serve."""
    directory, token = argv
    device = mount(directory)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    try:
        Server(device, token).serve()
    finally:
        unmount(directory)


if __name__ == "__main__":
    main(sys.argv[1:])
