"""`labrys serve`: the viewer on a port of this machine."""

import ipaddress
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Final

import click
import msgspec

from labrys.control.errors import MachineError, UsageError

if TYPE_CHECKING:
    from labrys.control.viewer.catalogue import Catalogue

LOOPBACK: Final = "127.0.0.1"
PORT: Final = 8642
_OWN_NAMES: Final = ("localhost", "127.0.0.1", "[::1]")
"""What a browser on this machine calls it. Any other name that leads here may be a trick."""


def serve_and_print(runs_dir: Path, *, host: str, port: int, as_json: bool) -> None:
    """Serve the viewer over `runs_dir` until interrupted.

    Raises UsageError without a runs directory, MachineError if the address cannot be had.
    """
    import uvicorn

    from labrys.control.viewer.app import make_app
    from labrys.control.viewer.catalogue import Catalogue

    if not runs_dir.is_dir():
        raise UsageError(f"{runs_dir}: no such runs directory; name it with --runs-dir")
    listening = _listen(host, port)
    is_private = is_loopback(listening.getsockname()[0])
    hosts = (*_OWN_NAMES, host) if is_private else ("*",)
    catalogue = Catalogue(runs_dir.resolve())
    app = make_app(runs_dir, hosts=hosts, catalogue=catalogue)
    url = f"http://{f'[{host}]' if ':' in host else host}:{listening.getsockname()[1]}/"
    if as_json:
        click.echo(msgspec.json.encode({"url": url, "runs_dir": str(runs_dir)}))
    else:
        click.echo(f"labrys: the runs in {runs_dir} are at {url} (Ctrl-C ends)")
        if not is_private:
            click.echo("labrys: whoever reaches this address can read all of them", err=True)
    server = uvicorn.Server(uvicorn.Config(app, log_level="warning", server_header=False))
    # Whoever opens the page first need not wait until many runs were read.
    threading.Thread(target=_read_ahead, args=(catalogue,), daemon=True).start()
    with listening:
        server.run(sockets=[listening])


def is_loopback(address: str) -> bool:
    """Whether an address is reached from this machine only."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def _read_ahead(catalogue: "Catalogue") -> None:
    with suppress(UsageError):  # told to whoever asks
        catalogue.listing()


def _listen(host: str, port: int) -> socket.socket:
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listening = socket.socket(family, kind, protocol)
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(address)
    except OSError as error:
        raise MachineError(
            f"--host {host} --port {port}: cannot listen there: {error.strerror}; "
            "choose another with --port, 0 for any that is free"
        ) from error
    listening.listen()
    return listening
