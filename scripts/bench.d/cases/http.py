"""HTTP announces on one core, beside hyper answering a constant (the floor), and other trackers.

Public and private, with keep-alive and with a connection for each request; private also "shared", with
Redis and MariaDB in place of SQLite. The server has one core, wrk another, where Redis and
MariaDB are, too. Runs are interleaved; figures are medians over the rounds.
"""

import os
import pathlib
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass, field

from benchkit import announces, mika, peers, site
from benchkit.databases import MariaDb, Redis
from benchkit.fault import Fault
from benchkit.process import TARGET, OneAtATime, Server, build, cores, free_port
from benchkit.report import Column, note
from benchkit.wrk import Load

MODES = ("public", "private", "shared")
CONNECTIONS = ("keep-alive", "close")
OTHERS = ("aquatic_http", "opentracker")
WARM_UP_CONNECTIONS = 1000
JOIN_CONNECTIONS = 64
SAMPLES = 2000
SPOT_CHECKS = 50

# Below this the load (or another program) was the limit, and only figures by CPU are about the server.
BUSY_MIN = 0.95

COLUMNS = [
    Column("rate", "announces/s", "announces/s", "{:,.0f}", has_ratio=True),
    Column("by_cpu", "a CPU second", "announces/CPU s", "{:,.0f}", suffix=", by CPU", has_ratio=True),
    Column("cpu_us", "CPU us each", "us/announce", "{:.2f}", suffix=", CPU"),
    Column("busy", "core busy", "cores", "{:.0%}", suffix=", core busy"),
    Column("load_busy", "load busy", "cores", "{:.0%}", suffix=", load busy"),
    Column("p99_ms", "p99 ms", "ms", "{:.2f}", suffix=", p99"),
]


@dataclass
class Contest:
    """Mika in one mode, its floor and other trackers, under the same load."""

    mode: str
    load: Load
    mika: Server
    floor: Server
    # By name and kind of connection.
    others: dict = field(default_factory=dict)


def add_arguments(parser):
    parser.add_argument("--mode", choices=MODES, action="append", help="only this mode")
    parser.add_argument("--connection", choices=CONNECTIONS, action="append", help="only this kind of connection")
    parser.add_argument("--beside", choices=OTHERS, action="append", help="only this other tracker")
    parser.add_argument("--no-others", action="store_true", help="only Mika and the floor")
    parser.add_argument("--connections", type=int, default=64, help="open at once (default %(default)s)")
    parser.add_argument("--numwant", type=int, default=50, help="peers asked for (default %(default)s)")
    parser.add_argument("--torrents", type=int, default=100_000, help="public torrents (default %(default)s)")
    parser.add_argument("--peers", type=int, default=200_000, help="public peers (default %(default)s)")
    parser.add_argument("--users", type=int, default=1000, help="private users (default %(default)s)")
    parser.add_argument("--private-torrents", type=int, default=10_000, help="(default %(default)s)")
    parser.add_argument("--private-peers", type=int, default=50_000, help="(default %(default)s)")


def run(options, report):
    if not options.no_build:
        build("floor_http")
    report.columns = COLUMNS
    with ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mika-bench-")))
        contests = [start(mode, options, folder, stack) for mode in options.mode or MODES]
        turns = OneAtATime(other for contest in contests for other in contest.others.values())
        for number in range(options.rounds):
            note(f"round {number + 1} of {options.rounds}")
            for connection in options.connection or CONNECTIONS:
                for contest in contests:
                    play(contest, connection, turns, options, report)
    for contest in contests:
        for name, connection in contest.others:
            report.beside(f"{contest.mode}, {connection}", [f"{contest.mode}, {connection}, {name}"])
    report.title = (
        f"HTTP announces on one core: medians of {options.rounds} rounds of {options.seconds} s, "
        f"{options.connections} connections"
    )
    if idle := [case for case in report.cases() if report.median(case, "busy") < BUSY_MIN]:
        note(f"compare these by CPU, their server had time to spare: {'; '.join(idle)}")


def start(mode, options, folder, stack):
    """Starts Mika, lets the population join, and starts a floor whose replies are as long."""
    server_core, load_core = cores()
    folder = folder / mode
    folder.mkdir()
    port = free_port()
    config, population = prepare(mode, options, port, folder, stack)
    load = Load(population, folder, load_core)
    server = stack.enter_context(mika.start(config, port, server_core, folder))
    announces.sample(port, population[:SPOT_CHECKS], load.totals)
    note(f"{mode}: {len(population)} peers join")
    load.warm_up(port, WARM_UP_CONNECTIONS)
    server.wait_for_rest()
    sizes = announces.sample(port, population[:SAMPLES], load.totals)
    size = round(statistics.mean(sizes))
    note(f"{mode}: the mean reply has a body of {size} bytes")
    floor_port = free_port()
    command = [TARGET / "examples" / "floor_http", f"127.0.0.1:{floor_port}", size]
    floor = stack.enter_context(Server(command, floor_port, server_core, folder))
    contest = Contest(mode, load, server, floor)
    if mode == "public" and not options.no_others:
        for connection in options.connection or CONNECTIONS:
            start_others(contest, connection, options, folder, stack)
    return contest


def start_others(contest, connection, options, folder, stack):
    """The trackers that can do that kind of connection, with all peers joined."""
    server_core, _ = cores()
    starts = {"aquatic_http": lambda port: peers.aquatic_http(port, both_cores(), folder, connection == "keep-alive")}
    if connection == "close":
        hashes = [announces.info_hash(number).hex() for number in range(options.torrents)]
        starts["opentracker"] = lambda port: peers.opentracker(port, server_core, folder, hashes, "tcp")
    for name in options.beside or starts:
        if name not in starts:
            continue
        server = starts[name](free_port())
        if server is None:
            continue
        stack.enter_context(server)
        note(f"{contest.mode}, {connection}: {len(contest.load.population)} peers join {name}")
        try:
            join(server, contest.load, connection)
        except Fault as fault:
            server.stop()
            note(f"{name} is left out: {fault}")
            continue
        contest.others[name, connection] = server


def join(server, load, connection):
    announces.sample(server.port, load.population[:SPOT_CHECKS], load.totals, connection)
    load.warm_up(server.port, JOIN_CONNECTIONS, connection, silent_close=connection == "close")
    server.wait_for_rest()


def both_cores():
    """What a program needs whose threads each want a core: it shares one with the load."""
    return set(cores()) & os.sched_getaffinity(0)


def play(contest, connection, turns, options, report):
    """One round: the floor, Mika, then the others."""
    turns.turn(None)
    case = f"{contest.mode}, {connection}"
    floor = f"floor of {case}"
    report.add(floor, measure(contest.floor, contest.load, connection, options))
    report.add(case, measure(contest.mika, contest.load, connection, options), ratio_to=floor)
    sample = contest.load.population[:SPOT_CHECKS]
    announces.sample(contest.mika.port, sample, contest.load.totals)
    for (name, kind), server in contest.others.items():
        if kind == connection:
            turns.turn(server)
            figures = measure(server, contest.load, connection, options, silent_close=connection == "close")
            report.add(f"{case}, {name}", figures, ratio_to=floor)
            announces.sample(server.port, sample, contest.load.totals, connection)


def measure(server, load, connection, options, silent_close=False):
    before = server.cpu_seconds()
    result = load.run(server.port, options.seconds, options.connections, connection, silent_close=silent_close)
    busy = (server.cpu_seconds() - before) / result["seconds"]
    # Work put off has to be paid for by this run, and must not disturb the next one.
    server.wait_for_rest()
    used = server.cpu_seconds() - before
    return {
        "rate": result["requests"] / result["seconds"],
        "by_cpu": result["requests"] / used,
        "cpu_us": used * 1e6 / result["requests"],
        "busy": busy,
        "load_busy": result["cpu_seconds"] / result["seconds"],
        "p99_ms": result["p99_ms"],
    }


def prepare(mode, options, port, folder, stack):
    """The config and the population; for a private tracker also its users and torrents."""
    size = (options.users, options.private_torrents, options.private_peers, options.numwant)
    if mode == "shared":
        _, load_core = cores()
        mariadb, redis = (stack.enter_context(server(folder)) for server in (MariaDb, Redis))
        for database in (mariadb, redis):
            database.pin(load_core)
        config = site.write_config(port, mariadb, redis, folder)
        return config, site.prepare(mariadb, config, folder, *size)
    config = mika.write_config(folder, mode, http=port)
    if mode == "public":
        return config, announces.public(options.torrents, options.peers, options.numwant)
    return config, mika.private(folder, config, *size)
