"""One running node on an asyncio loop, with real sockets, threads, clocks and signals.

What the node does is in `engine`; this is what it runs in.
"""

import asyncio
import random
import secrets
import signal
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor

from labrys.node.engine import Engine, open_storage
from labrys.node.errors import DiskFull, MachineError
from labrys.node.logline import Say, write_line
from labrys.node.messages import Message, NodeId
from labrys.node.peers import PeerNetwork
from labrys.node.probes import Reach, unheeded
from labrys.node.settings import Settings
from labrys.node.storage import Received, Storage
from labrys.node.surroundings import Job, Scheduler, T
from labrys.node.writer import Writer


def _now_ms() -> int:
    return time.monotonic_ns() // 1_000_000


def _wall_ms() -> int:
    return time.time_ns() // 1_000_000


class Node:
    """A node from start to stop; use `run`. What the engine needs of the world, it gives it."""

    def __init__(self, settings: Settings, storage: Storage, say: Say) -> None:
        """Must be made in a running event loop; `storage` is open and stays the caller's."""
        self._settings = settings
        self._loop = asyncio.get_running_loop()
        self._ended: asyncio.Future[int] = self._loop.create_future()
        self._threads = ThreadPoolExecutor(1, thread_name_prefix="snapshot")
        self.scheduler: Scheduler = self._loop
        self.rng = random.Random(settings.seed)
        self.say = say
        self.now_ms = _now_ms
        self.wall_ms = _wall_ms
        self.reach: Reach = unheeded
        self._engine = Engine(settings, storage, self)

    async def run(self) -> int:
        """Serve until a signal or a failure; the exit code."""
        engine = self._engine
        for number in (signal.SIGTERM, signal.SIGINT):
            self._loop.add_signal_handler(number, engine.stop, signal.Signals(number).name)
        self._loop.set_exception_handler(self._on_exception)
        servers: list[asyncio.Server] = []
        try:
            servers.append(await self._peers.listen(self._settings.listen))
            servers.append(await engine.clients.listen(self._settings.http))
            engine.start()
            code = await self._ended
        finally:
            for server in servers:
                server.close()
            engine.close()
            engine.clients.abort()
            await self._peers.close()
            self._threads.shutdown()
            self._writer.stop()
        self.say(event="stop", code=code, term=engine.durable_term, commit=engine.raft.commit)
        return code

    def _on_exception(self, loop: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        if isinstance(error, OSError):
            # asyncio's own trouble with one connection, such as accept() out of descriptors.
            self.say(warning=context.get("message"), reason=error)
        elif isinstance(error, BaseException):
            self._engine.fail(error)
        else:
            self.say(warning=context.get("message"))

    # ---- labrys.node.surroundings.Surroundings ------------------------------------------------

    def new_id(self) -> int:
        """See `Surroundings`."""
        return secrets.randbits(62)

    def connect(
        self, on_message: Callable[[NodeId, Message], None], on_lost: Callable[[NodeId], None]
    ) -> PeerNetwork:
        """See `Surroundings`."""
        settings = self._settings
        self._peers = PeerNetwork(
            settings.config.id, on_message, on_lost, self.say,
            cluster=settings.cluster, address=settings.listen,
        )  # fmt: skip
        return self._peers

    def write_behind(
        self,
        storage: Storage,
        on_done: Callable[[list[Job], list[Received]], None],
        on_failure: Callable[[Exception], None],
        on_full: Callable[[DiskFull | None], None],
    ) -> Writer:
        """See `Surroundings`."""
        self._writer = Writer(storage, on_done, on_failure, on_full)
        return self._writer

    def work_aside(self, work: Callable[[], T], done: Callable[[Future[T]], None]) -> None:
        """See `Surroundings`."""

        def tell(future: Future[T]) -> None:
            self._loop.call_soon_threadsafe(done, future)

        self._threads.submit(work).add_done_callback(tell)

    def write_text(self, text: str) -> None:
        """See `Surroundings`."""
        write_line(text)

    def end(self, code: int) -> None:
        """See `Surroundings`."""
        self._ended.set_result(code)


async def serve(settings: Settings, say: Say) -> int:
    """Open the data directory and run the node until it stops; the exit code.

    Raises MachineError when the directory, a port or the disk cannot be had.
    """
    with open_storage(settings) as storage:
        try:
            return await Node(settings, storage, say).run()
        except OSError as error:
            raise MachineError(f"cannot run: {error}") from error
