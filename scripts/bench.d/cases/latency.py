"""Latency of UDP announces at half of a server's maximum load.

First each server shows how many announces a second it answers at most; then half of that comes at
a fixed pace, and delays count from when an announce was due. Mika beside the floor, aquatic_udp
and opentracker; runs are interleaved, figures are medians over the rounds.
"""

import pathlib
import tempfile
from contextlib import ExitStack

from benchkit import mika, peers
from benchkit.process import TARGET, OneAtATime, Server, build, cores, free_port
from benchkit.report import Column, note
from benchkit.udp import Load

# Above this the delays of answered announces are not what clients saw.
LOST_MAX = 0.0001

COLUMNS = [
    Column("p50_ms", "p50 ms", "ms", "{:.3f}", has_ratio=True),
    Column("p99_ms", "p99 ms", "ms", "{:.3f}", suffix=", p99", has_ratio=True),
    Column("p999_ms", "p99.9 ms", "ms", "{:.3f}", suffix=", p99.9", has_ratio=True),
    Column("max_ms", "max ms", "ms", "{:.2f}", suffix=", max"),
    Column("lost", "lost", "of those sent", "{:.3%}", suffix=", lost"),
    Column("rate", "announces/s", "announces/s", "{:,.0f}", suffix=", announces/s"),
    Column("busy", "core busy", "cores", "{:.0%}", suffix=", core busy"),
]


def add_arguments(parser):
    parser.add_argument("--rate", type=int, help="the same rate for all, instead of half of each maximum")
    parser.add_argument("--no-others", action="store_true", help="only Mika and the floor")
    parser.add_argument("--full-seconds", type=int, default=4, help="at full load (default %(default)s)")
    parser.add_argument("--numwant", type=int, default=50, help="peers asked for (default %(default)s)")
    parser.add_argument("--torrents", type=int, default=100_000, help="(default %(default)s)")
    parser.add_argument("--peers", type=int, default=200_000, help="(default %(default)s)")


def run(options, report):
    if not options.no_build:
        build("floor_udp", "load_udp")
    report.columns = COLUMNS
    with ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mika-bench-")))
        core, load_core = cores()
        load = Load(load_core, options.peers, options.torrents, options.numwant)
        servers = start(load, options, folder, stack)
        turns = OneAtATime(servers.values())
        for name, server in servers.items():
            note(f"{options.peers} peers join {name}")
            turns.turn(server)
            load.fill(server)
            server.wait_for_rest()
        turns.turn(servers["mika"])
        size = round(load.full(servers["mika"], 1)["mean_peers"])
        turns.turn(None)
        port = free_port()
        command = [TARGET / "examples" / "floor_udp", f"127.0.0.1:{port}", size]
        servers = {"floor": stack.enter_context(Server(command, port, core, folder, "udp"))} | servers
        for number in range(options.rounds):
            note(f"round {number + 1} of {options.rounds}")
            for name, server in servers.items():
                turns.turn(server)
                base = None if name == "floor" else "floor"
                report.add(name, measure(server, load, options), ratio_to=base)
    report.beside("mika", [name for name in servers if name not in ("mika", "floor")])
    if losers := [case for case in report.cases() if report.median(case, "lost") > LOST_MAX]:
        note(f"these did not answer all, and their delays are only those of the answers: {'; '.join(losers)}")
    pace = f"{options.rate} a second" if options.rate else "half of what each can take"
    report.title = f"UDP announces at {pace}: medians of {options.rounds} runs of {options.seconds} s"


def start(load, options, folder, stack):
    core, _ = cores()
    port = free_port()
    config = mika.write_config(folder, "public", udp=port)
    servers = {"mika": mika.start(config, port, core, folder, "udp")}
    stack.enter_context(servers["mika"])
    if not options.no_others:
        servers["aquatic_udp"] = stack.enter_context(peers.aquatic_udp(free_port(), core, folder))
        tracker = peers.opentracker(free_port(), core, folder, load.hashes())
        servers["opentracker"] = stack.enter_context(tracker)
    return servers


def measure(server, load, options):
    rate = options.rate
    if rate is None:
        full = load.full(server, options.full_seconds)
        rate = round(full["replies"] / full["seconds"] / 2)
    before = server.cpu_seconds()
    result = load.rate(server, options.seconds, rate)
    figures = {key: result[key] for key in ("p50_ms", "p99_ms", "p999_ms", "max_ms")}
    figures["lost"] = result["lost"] / result["sent"]
    busy = (server.cpu_seconds() - before) / options.seconds
    return figures | {"rate": result["sent"] / options.seconds, "busy": busy}
