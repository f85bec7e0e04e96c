"""Clients that insert entries in batches as fast as the cluster takes them.

What they send is encoded before the clock starts and what comes back is read after it stops, so
that the time is the cluster's.
"""

import contextlib
import http.client
import json
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec

from labrys.control.errors import ClusterError
from labrys.control.loopback import Server

RETRY_S = 0.05
PATIENCE_S = 30.0


class Entry(msgspec.Struct, frozen=True):
    """A key and the value that is put there."""

    key: str
    value: str


class Inserted(msgspec.Struct, frozen=True):
    """What inserting led to: each entry with the revision it got, by client, in order sent."""

    by_client: list[list[tuple[Entry, int]]]
    elapsed_s: float

    @property
    def count(self) -> int:
        """How many entries were acknowledged."""
        return sum(map(len, self.by_client))


def entries(count: int, key_bytes: int, value_bytes: int, prefix: str = "") -> list[Entry]:
    """That many different entries of these lengths."""
    width = key_bytes - len(prefix)
    return [
        Entry(f"{prefix}{number:0{width}d}", f"{number:x}".rjust(value_bytes, "v"))
        for number in range(count)
    ]


def insert(server: Server, what: Sequence[Entry], batch: int, clients: int) -> Inserted:
    """Put all entries through one server; raises ClusterError if one is not acknowledged."""
    batches = [what[start : start + batch] for start in range(0, len(what), batch)]
    shares = [batches[client::clients] for client in range(min(clients, len(batches)))]
    bodies = [[_body(each) for each in share] for share in shares]
    answers: list[list[bytes]] = [[] for _ in shares]

    def work(client: int) -> None:
        link = server.connect(PATIENCE_S)
        try:
            barrier.wait()
            for body in bodies[client]:
                link.request("POST", "/v1/batch", body)
                answers[client].append(_read(link.getresponse()))
        finally:
            link.close()

    barrier = threading.Barrier(len(shares) + 1)
    elapsed_s = _in_parallel(len(shares), work, barrier)
    return Inserted(
        [
            [
                pair
                for part, answer in zip(share, said, strict=True)
                for pair in _acked(part, answer)
            ]
            for share, said in zip(shares, answers, strict=True)
        ],
        elapsed_s,
    )


def insert_once(
    servers: Sequence[Server], what: Sequence[Entry], batch: int, on_progress: Callable[[int], None]
) -> int:
    """Put all entries exactly once in one session, through whoever answers; how often it retried.

    `on_progress` is called with the number of batches after each that was acknowledged. Raises
    ClusterError when nobody answers.
    """
    retries = 0
    session, tries = _retried(servers, 0, "/v1/sessions", {}, {})
    retries += tries
    batches = [what[start : start + batch] for start in range(0, len(what), batch)]
    for number, part in enumerate(batches, 1):
        headers = {"Labrys_Session": str(session["session"]), "Labrys_Seq": str(number)}
        body = {"commands": [["put", entry.key, entry.value] for entry in part]}
        answer, tries = _retried(servers, number, "/v1/batch", body, headers)
        if any("error" in result for result in answer["results"]):
            raise ClusterError(f"batch {number} was not executed whole: {answer}")
        retries += tries
        on_progress(number)
    return retries


def _retried(
    servers: Sequence[Server], turn: int, path: str, body: Any, headers: dict[str, str]
) -> tuple[Any, int]:
    deadline = time.monotonic() + PATIENCE_S
    tries = 0
    while True:
        server = servers[(turn + tries) % len(servers)]
        try:
            status, answer = server.call("POST", path, body, **headers)
            said = f"{status} {answer}"
            if status == 200:
                return answer, tries
        except (OSError, http.client.HTTPException, ValueError) as error:
            said = f"{type(error).__name__}: {error}"
        if time.monotonic() >= deadline:
            raise ClusterError(f"no answer to {path} within {PATIENCE_S:g} s, last: {said}")
        tries += 1
        time.sleep(RETRY_S)


def _in_parallel(count: int, work: Callable[[int], None], barrier: threading.Barrier) -> float:
    errors: list[BaseException] = []

    def guarded(client: int) -> None:
        try:
            work(client)
        except Exception as error:  # Carried over to the thread that waits.
            errors.append(error)
            barrier.abort()

    threads = [threading.Thread(target=guarded, args=(n,), daemon=True) for n in range(count)]
    for thread in threads:
        thread.start()
    with contextlib.suppress(threading.BrokenBarrierError):  # What broke it is told below.
        barrier.wait()
    begun_s = time.perf_counter()
    for thread in threads:
        thread.join()
    elapsed_s = time.perf_counter() - begun_s
    for error in errors:
        if not isinstance(error, threading.BrokenBarrierError):
            raise ClusterError(f"a client failed: {type(error).__name__}: {error}") from error
    return elapsed_s


def _body(part: Sequence[Entry]) -> bytes:
    commands = [["put", entry.key, entry.value] for entry in part]
    return json.dumps({"commands": commands}, separators=(",", ":")).encode()


def _read(response: http.client.HTTPResponse) -> bytes:
    data = response.read()
    if response.status != 200:
        raise ClusterError(f"a batch was answered with {response.status}: {data[:300]!r}")
    return data


def _acked(part: Sequence[Entry], answer: bytes) -> list[tuple[Entry, int]]:
    results = json.loads(answer)["results"]
    return [(entry, int(r["revision"])) for entry, r in zip(part, results, strict=True)]
