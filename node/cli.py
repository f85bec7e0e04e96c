"""`labrys-node`: read the command line, run one node, say in one line why it could not."""

import argparse
import asyncio
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import NoReturn

from labrys.node.errors import NodeError, UsageError
from labrys.node.logline import speaker, write_line
from labrys.node.parts import Parts
from labrys.node.raft import Config
from labrys.node.server import serve
from labrys.node.settings import Settings
from labrys.node.snapshotter import Thresholds
from labrys.node.storage import CLUSTER, SEGMENT_BYTES
from labrys.node.surroundings import Address

CHUNK_KIB_MAX = 4096
"""A longer piece of a snapshot would fill the queue of a link, which drops what does not fit."""
_LIMITS = Config("the defaults")
_EXAMPLES = """\
examples:
  labrys-node --id n1 --peers n1=10.0.0.1:7001,n2=10.0.0.2:7001,n3=10.0.0.3:7001 \\
      --listen 0.0.0.0:7001 --http 0.0.0.0:8001 --data /var/lib/labrys
  labrys-node --node 0 --http :2020 --cluster "1,:3030;2,:3031;3,:3032"     (goraft's form)
"""


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message} (see --help)")

    def format_help(self) -> str:
        # Only who asks for help or for a bug waits for their modules, not every node that starts.
        from labrys.node.bugs import BUGS

        bugs = "".join(f"  {name:28}{bug.description}\n" for name, bug in BUGS.items())
        return f"{super().format_help()}\nbugs:\n{bugs}"


def main(argv: Sequence[str] | None = None) -> None:
    """Run `labrys-node`; exits 0 after a signal, 2 on usage, 4 on the machine, 70 on a bug."""
    try:
        settings = parse(sys.argv[1:] if argv is None else argv)
        code = asyncio.run(serve(settings, speaker(settings.config.id)))
    except NodeError as error:
        write_line(f"labrys-node: {error}")
        code = error.exit_code
    sys.exit(code)


def parse(argv: Sequence[str]) -> Settings:
    """The settings that the arguments describe; raises UsageError."""
    args = parser().parse_args(argv)
    peers = {} if args.join else _members(args)
    node = _joiner(args) if args.join else _identity(args, peers)
    if args.election_timeout_ms < 2 * args.heartbeat_ms:
        raise UsageError(
            f"--election-timeout-ms {args.election_timeout_ms} must be at least twice "
            f"--heartbeat-ms {args.heartbeat_ms}, or followers would not wait for a heartbeat"
        )
    if args.chunk_kib > CHUNK_KIB_MAX:
        raise UsageError(f"--chunk-kib {args.chunk_kib} must be at most {CHUNK_KIB_MAX}")
    if args.data is None and args.node is None:
        raise UsageError("--data is missing: name a directory for this node's log")
    return Settings(
        config=Config(
            id=node,
            election_timeout_ms=args.election_timeout_ms,
            heartbeat_ms=args.heartbeat_ms,
            trailing_count=min(1000, args.snapshot_entries),
            batch_count_max=args.append_entries,
            inflight_count_max=args.inflight_appends,
            chunk_bytes=args.chunk_kib << 10,
        ),
        peers=peers,
        listen=_address("--listen", args.listen) if args.listen else peers[node],
        cluster=args.cluster_id,
        thresholds=Thresholds(args.snapshot_entries, args.snapshot_mib << 20),
        segment_bytes=args.segment_kib << 10,
        http=_address("--http", args.http),
        data=args.data or Path(f"labrys-node-{node}"),
        request_timeout_ms=args.request_timeout_ms,
        seed=args.seed,
        parts=_parts(args.bug),
    )


def _parts(bug: str | None) -> Parts:
    if bug is None:
        return Parts()
    from labrys.node.bugs import find_bug

    return find_bug(bug).parts


def parser() -> _Parser:
    """The command line of a node."""
    made = _Parser(
        prog="labrys-node",
        description="One node of a replicated key-value store (Raft), with an HTTP API.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    add = made.add_argument
    add("--id", help="this node's name, one of those in --peers")
    add("--peers", metavar="ID=HOST:PORT,...", help="all members and where they listen for peers")
    add("--node", type=int, metavar="INDEX", help="goraft: this node's place in --cluster, from 0")
    add("--cluster", metavar="ID,HOST:PORT;...", help="goraft: all members")
    add("--join", action="store_true",
        help="become a member of a running cluster, which is told with POST /v1/members; for a "
        "name that it does not have yet (needs --listen instead of --peers)")  # fmt: skip
    add("--cluster-id", default=CLUSTER, metavar="NAME",
        help=f"nodes with another one are not talked to (default: {CLUSTER})")  # fmt: skip
    add("--listen", metavar="HOST:PORT", help="where to listen for peers (default: as in --peers)")
    add("--http", metavar="HOST:PORT", required=True, help="where to serve clients")
    add("--data", type=Path, metavar="DIR", help="directory of the log, one per node")
    add("--election-timeout-ms", type=_positive, default=300, metavar="MS",
        help="seek election after a silence drawn from [MS, 2 MS) (default: 300)")  # fmt: skip
    add("--heartbeat-ms", type=_positive, default=75, metavar="MS",
        help="time between a leader's heartbeats (default: 75)")  # fmt: skip
    add("--request-timeout-ms", type=_positive, default=5000, metavar="MS",
        help="a client gets an answer within this time (default: 5000)")  # fmt: skip
    add("--snapshot-entries", type=_positive, default=Thresholds().entries, metavar="N",
        help="entries after which a snapshot replaces the log (default: 100000)")  # fmt: skip
    add("--snapshot-mib", type=_positive, default=Thresholds().log_bytes >> 20, metavar="MIB",
        help="the same, by the size of the commands (default: 64)")  # fmt: skip
    add("--append-entries", type=_positive, default=_LIMITS.batch_count_max, metavar="N",
        help="entries that a leader sends in one request (default: 2048)")  # fmt: skip
    add("--inflight-appends", type=_positive, default=_LIMITS.inflight_count_max, metavar="N",
        help="such requests under way to one follower (default: 8)")  # fmt: skip
    add("--chunk-kib", type=_positive, default=_LIMITS.chunk_bytes >> 10, metavar="KIB",
        help="the pieces in which a snapshot is sent (default: 256)")  # fmt: skip
    add("--segment-kib", type=_positive, default=SEGMENT_BYTES >> 10, metavar="KIB",
        help="the log goes on in another file after so much (default: 16384)")  # fmt: skip
    add("--seed", type=int, help="seed of the election timeouts, for experiments")
    add("--bug", metavar="NAME", help="run a deliberately faulty variant, see below")
    return made


def _positive(text: str) -> int:
    try:
        value = int(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from error
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return value


def _address(flag: str, text: str) -> Address:
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or len(port) > 5 or int(port) > 65535:
        raise UsageError(f"{flag} {text!r} is not HOST:PORT")
    host = host.strip("[]")
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise UsageError(f"{flag} {text!r}: {host!r} is not a host name ({error})") from error
    return host, int(port)


def _members(args: argparse.Namespace) -> dict[str, Address]:
    if (args.peers is None) == (args.cluster is None):
        raise UsageError('give either --peers "n1=HOST:PORT,..." or --cluster "1,HOST:PORT;..."')
    if args.peers is not None and args.node is not None:
        raise UsageError("--node belongs to --cluster; with --peers, --id says which node this is")
    if args.cluster is not None and args.id is not None:
        raise UsageError("--id belongs to --peers; with --cluster, --node says which node this is")
    flag, text, item_mark, name_mark = (
        ("--peers", args.peers, ",", "=") if args.peers is not None
        else ("--cluster", args.cluster, ";", ",")
    )  # fmt: skip
    members: dict[str, Address] = {}
    for item in text.split(item_mark):
        name, mark, place = item.strip().partition(name_mark)
        if not mark or not name.strip():
            raise UsageError(f"{flag}: {item!r} is not of the form ID{name_mark}HOST:PORT")
        if name.strip() in members:
            raise UsageError(f"{flag} names {name.strip()} twice")
        members[name.strip()] = _address(flag, place.strip())
    return members


def _joiner(args: argparse.Namespace) -> str:
    if args.peers is not None or args.cluster is not None:
        raise UsageError("--join takes no --peers: the cluster tells this node who its members are")
    if args.id is None or args.listen is None:
        raise UsageError("--join needs --id and --listen, as they are told to the cluster")
    node: str = args.id
    return node


def _identity(args: argparse.Namespace, peers: dict[str, Address]) -> str:
    if args.cluster is not None:
        names = list(peers)
        place: int | None = args.node
        if place is None or not 0 <= place < len(names):
            raise UsageError(f"--node must be an index into --cluster, 0 to {len(names) - 1}")
        return names[place]
    node: str | None = args.id
    if node is None or node not in peers:
        raise UsageError(f"--id {node} is not among --peers ({', '.join(peers)})")
    return node


if __name__ == "__main__":
    main()
