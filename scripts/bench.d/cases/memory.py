"""Memory per peer: public beside aquatic_udp and opentracker, private with credit.

Each server is started, everybody joins over UDP, and its resident size is read when it is at
rest. Public trackers have to have the peers that joined, or there is no figure.
"""

import pathlib
import tempfile
import time
from contextlib import ExitStack

from benchkit import mika, peers
from benchkit.process import build, cores, free_port
from benchkit.report import Column, note
from benchkit.udp import Load

MODES = ("public", "private")
OTHERS = ("opentracker", "aquatic_udp")

# A user may be in a popular swarm with more clients than is usual.
CLIENTS_MAX = 100

MIB = 1 << 20

# Seconds until a server is at rest, Mika above all: batches that were applied are not kept any more (journal.keep), and each thread has given
# back twice what it had freed (once a minute).
REST_SECONDS = 125

COLUMNS = [
    Column("resident", "resident MiB", "MiB", "{:,.1f}", has_ratio=True),
    Column("proportional", "PSS MiB", "MiB", "{:,.1f}", suffix=", PSS"),
    Column("before", "before MiB", "MiB", "{:,.1f}", suffix=", before"),
    Column("at_once", "at once MiB", "MiB", "{:,.1f}", suffix=", at once"),
    Column("each", "bytes a peer", "bytes/peer", "{:.1f}", suffix=", a peer"),
    Column("seconds", "joined in s", "s", "{:.1f}", suffix=", time to join"),
]


def add_arguments(parser):
    parser.set_defaults(rounds=1)
    parser.add_argument("--mode", choices=MODES, action="append", help="only this mode")
    parser.add_argument("--beside", choices=OTHERS, action="append", help="only this other tracker")
    parser.add_argument("--no-others", action="store_true", help="only Mika")
    parser.add_argument("--peers", type=int, default=4_000_000, help="public peers (default %(default)s)")
    parser.add_argument("--torrents", type=int, default=1_000_000, help="public torrents (default %(default)s)")
    parser.add_argument("--private-peers", type=int, default=1_000_000, help="(default %(default)s)")
    parser.add_argument("--private-torrents", type=int, default=200_000, help="(default %(default)s)")
    parser.add_argument("--users", type=int, default=50_000, help="private users (default %(default)s)")


def run(options, report):
    if not options.no_build:
        build("load_udp")
    report.columns = COLUMNS
    for number in range(options.rounds):
        note(f"round {number + 1} of {options.rounds}")
        for mode in options.mode or MODES:
            {"public": public, "private": private}[mode](options, report)
    if "private" in (options.mode or MODES):
        note("a private peer has its accounting record, and its size is that of all that stays of the joining")
    report.title = f"Memory after the peers joined: medians of {options.rounds} rounds"


def public(options, report):
    core, load_core = cores()
    load = Load(load_core, options.peers, options.torrents, numwant=1)

    def start_mika(port, folder):
        config = mika.write_config(folder, "public", udp=port, max_torrents=2 * options.torrents + 2)
        return mika.start(config, port, core, folder, "udp")

    starts = {
        "opentracker": lambda port, folder: peers.opentracker(port, core, folder, load.hashes()),
        "aquatic_udp": lambda port, folder: peers.aquatic_udp(port, core, folder),
        "mika": start_mika,
    }
    others = [] if options.no_others else options.beside or OTHERS
    base = f"public, {others[0]}" if others else None
    for name in [*others, "mika"]:
        with ExitStack() as stack:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mika-bench-")))
            server = stack.enter_context(starts[name](free_port(), folder))
            case = f"public, {name}"
            report.add(case, measure(case, server, load), ratio_to=base if case != base else None)


def private(options, report):
    core, load_core = cores()
    with ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mika-bench-")))
        port = free_port()
        config = mika.write_config(folder, "private", udp=port, max_peers_per_user=CLIENTS_MAX)
        load = Load(load_core, options.private_peers, options.private_torrents, 1, passkeys=folder / "passkeys")
        hashes = [bytes.fromhex(one) for one in load.hashes()]
        passkeys = mika.register(folder, config, options.users, hashes)
        (folder / "passkeys").write_text("".join(f"{one}\n" for one in passkeys))
        server = stack.enter_context(mika.start(config, port, core, folder, "udp"))
        report.add("private, mika", measure("private, mika", server, load))


def measure(case, server, load):
    """The server's memory before everybody joins, right after it, and at rest."""
    server.wait_for_rest()
    time.sleep(REST_SECONDS)
    server.wait_for_rest()
    before, _ = server.memory()
    note(f"{case}: {load.peers} peers of {load.torrents} torrents join")
    # First announces of a private tracker wait until they are durable: many may wait at once.
    result = load.fill(server, window=4096)
    server.wait_for_rest()
    at_once, _ = server.memory()
    time.sleep(REST_SECONDS)
    server.wait_for_rest()
    resident, proportional = server.memory()
    return {
        "resident": resident / MIB,
        "proportional": proportional / MIB,
        "before": before / MIB,
        "at_once": at_once / MIB,
        "each": (resident - before) / load.peers,
        "seconds": result["seconds"],
    }
