"""TLS on one core: Mika's own, beside nginx as a TLS proxy before Mika.

Handshakes alone, full ones and those that resume a session by a ticket; an announce on a connection of its own after
either; announces with keep-alive. The servers have one core, the load another. Both have the same key, as
`mika-manage genkey` makes it. Runs are interleaved; figures are medians over the rounds.
"""

import json
import pathlib
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass

from benchkit import announces, mika, nginx
from benchkit.fault import Fault
from benchkit.process import TARGET, OneAtATime, Server, build, cores, free_port
from benchkit.report import Column, note
from benchkit.udp import pinned

# Enough that a run never ends one.
KEEP_ALIVE_REQUESTS = 10**9

# Of connections that are to resume a session; the first of each of the load's lanes has none yet.
RESUMED_MIN = 0.95

# Below this the load (or another program) was the limit, and only figures by CPU are about the server.
BUSY_MIN = 0.95

COLUMNS = [
    Column("rate", "a second", "/s", "{:,.0f}", has_ratio=True),
    Column("by_cpu", "a CPU second", "/CPU s", "{:,.0f}", suffix=", by CPU", has_ratio=True),
    Column("cpu_us", "CPU us each", "us", "{:.1f}", suffix=", CPU"),
    Column("busy", "core busy", "cores", "{:.0%}", suffix=", core busy"),
    Column("load_busy", "load busy", "cores", "{:.0%}", suffix=", load busy"),
    Column("p99_ms", "p99 ms", "ms", "{:.2f}", suffix=", p99"),
]


@dataclass(frozen=True)
class Kind:
    """What a run counts."""

    name: str
    # Announces on each connection.
    each: int
    resume: bool


KINDS = [
    Kind("full handshake", 0, False),
    Kind("resumed handshake", 0, True),
    Kind("announce after a full handshake", 1, False),
    Kind("announce after a resumed handshake", 1, True),
    Kind("announce with keep-alive", KEEP_ALIVE_REQUESTS, True),
]


@dataclass
class Side:
    """The servers that take part in one way to serve TLS; the first is the one that clients connect to."""

    name: str
    servers: list[Server]

    def cpu_seconds(self):
        return sum(server.cpu_seconds() for server in self.servers)


def add_arguments(parser):
    parser.add_argument("--tls", choices=("1.2", "1.3"), default="1.3", help="version (default %(default)s)")
    parser.add_argument("--connections", type=int, default=32, help="open at once (default %(default)s)")
    parser.add_argument("--numwant", type=int, default=50, help="peers asked for (default %(default)s)")
    parser.add_argument("--torrents", type=int, default=10_000, help="(default %(default)s)")
    parser.add_argument("--peers", type=int, default=20_000, help="(default %(default)s)")
    parser.add_argument(
        "--against", type=pathlib.Path, action="append", default=[], metavar="FILE", help="another build of mika, too"
    )


def run(options, report):
    if not options.no_build:
        build("load_https")
    report.columns = COLUMNS
    with ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mika-bench-")))
        # nginx's worker is another user.
        folder.chmod(0o755)
        sides = start_all(options, folder, stack)
        requests = write_requests(options, folder)
        turns = OneAtATime(server for side in sides for server in side.servers)
        for side in sides:
            show(side, turns)
            for server in side.servers[:1]:
                note(f"{options.peers} peers join {side.name}")
                join(server, requests, options)
        for number in range(options.rounds):
            note(f"round {number + 1} of {options.rounds}")
            for kind in KINDS:
                for side in reversed(sides):
                    show(side, turns)
                    base = f"{kind.name}, {sides[-1].name}" if side is not sides[-1] else None
                    report.add(f"{kind.name}, {side.name}", measure(side, kind, requests, options), ratio_to=base)
    report.title = (
        f"TLS {options.tls} on one core: medians of {options.rounds} rounds of {options.seconds} s, "
        f"{options.connections} connections"
    )
    if idle := [case for case in report.cases() if report.median(case, "busy") < BUSY_MIN]:
        note(f"compare these by CPU, their server had time to spare: {'; '.join(idle)}")


def start_all(options, folder, stack):
    """Mika with TLS, and nginx before a Mika without."""
    core, _ = cores()
    key, cert = mika.genkey(folder)
    # nginx reads it before it gives up being root, so it may stay as it is.
    with_tls = {"tls": {"key": str(key), "cert": str(cert)}}
    sides = []
    for number, program in enumerate([TARGET / "mika", *options.against]):
        server = start_mika(folder / f"tls-{number}", program, with_tls, core, stack)
        sides.append(Side(f"mika by {program}" if number else "mika", [server]))
    tracker = start_mika(folder / "plain", TARGET / "mika", {"trusted_proxies": ["127.0.0.1"]}, core, stack)
    proxy = stack.enter_context(nginx.start(free_port(), tracker.port, key, cert, core, folder))
    return [*sides, Side("nginx", [proxy, tracker])]


def start_mika(home, program, more_http, core, stack):
    home.mkdir()
    port = free_port()
    config = mika.write_config(home, "public", http=port, more_http=more_http)
    return stack.enter_context(mika.start(config, port, core, home, program=program))


def show(side, turns):
    """Lets only the servers of that side run."""
    turns.turn(None)
    for server in side.servers:
        server.resume()


def write_requests(options, folder):
    """The announces of a population, with keep-alive and without, as the load reads them."""
    population = announces.public(options.torrents, options.peers, options.numwant)
    files = {}
    for connection in ("keep-alive", "close"):
        files[connection] = folder / f"requests-{connection}"
        files[connection].write_text("".join(peer.request(10**11, connection) for peer in population))
    return files


def load(server, kind, requests, options, seconds):
    _, core = cores()
    connection = "close" if kind.each == 1 else "keep-alive"
    words = [TARGET / "examples" / "load_https", "--server", f"127.0.0.1:{server.port}"]
    words += ["--requests", requests[connection], "--each", kind.each, "--tls", options.tls]
    words += ["--connections", options.connections, "--seconds", seconds]
    words += ["--resume"] if kind.resume else []
    text, cpu = pinned(words, core, seconds)
    return json.loads(text) | {"cpu_seconds": cpu}


def join(server, requests, options):
    """Lets every peer announce once, at least."""
    joined = 0
    while joined < 1.1 * options.peers:
        joined += load(server, KINDS[-1], requests, options, 2)["replies"]
    server.wait_for_rest()


def measure(side, kind, requests, options):
    before = side.cpu_seconds()
    result = load(side.servers[0], kind, requests, options, options.seconds)
    used = side.cpu_seconds() - before
    check_handshakes(side, kind, result)
    number = result["replies"] if kind.each else result["full"] + result["resumed"]
    return {
        "rate": number / result["seconds"],
        "by_cpu": number / used,
        "cpu_us": used * 1e6 / number,
        "busy": used / result["seconds"],
        "load_busy": result["cpu_seconds"] / result["seconds"],
        "p99_ms": result["p99_ms"],
    }


def check_handshakes(side, kind, result):
    """That sessions were resumed where they should have been, and nowhere else."""
    if kind.each > 1:
        return
    total = result["full"] + result["resumed"]
    if kind.resume and result["resumed"] < RESUMED_MIN * total:
        note(f"{side.name}: only {result['resumed']} of {total} connections resumed a session ({kind.name})")
    if not kind.resume and result["resumed"]:
        raise Fault(f"{side.name}: {result['resumed']} sessions were resumed by a load that keeps none")
