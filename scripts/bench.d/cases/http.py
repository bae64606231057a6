"""HTTP announces on one core, beside hyper answering a constant (the floor).

Public and private, with keep-alive and with a connection for each request. The server has
one core, wrk another. Runs are interleaved; figures are medians over the rounds.
"""

import json
import pathlib
import secrets
import sqlite3
import statistics
import subprocess
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass

from benchkit import announces
from benchkit.fault import Fault
from benchkit.process import TARGET, Server, build, cores, free_port
from benchkit.report import Column, note
from benchkit.wrk import Load

MODES = ("public", "private")
CONNECTIONS = ("keep-alive", "close")
WARM_UP_CONNECTIONS = 1000
SAMPLES = 2000
SPOT_CHECKS = 50

# Below this the load (or another program) was the limit, and only figures by CPU tell about the server.
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
    """Mika in one mode and its floor, under the same load."""

    mode: str
    load: Load
    mika: Server
    floor: Server


def add_arguments(parser):
    parser.add_argument("--mode", choices=MODES, action="append", help="only this mode")
    parser.add_argument("--connection", choices=CONNECTIONS, action="append", help="only this kind of connection")
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
        for number in range(options.rounds):
            note(f"round {number + 1} of {options.rounds}")
            for connection in options.connection or CONNECTIONS:
                for contest in contests:
                    play(contest, connection, options, report)
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
    config = write_config(mode, port, folder)
    population = prepare(mode, options, config, folder)
    load = Load(population, folder, load_core)
    command = [TARGET / "mika", "-config", config, "-procs", 1]
    mika = stack.enter_context(Server(command, port, server_core, folder))
    announces.sample(port, population[:SPOT_CHECKS], load.totals)
    note(f"{mode}: {len(population)} peers join")
    load.warm_up(port, WARM_UP_CONNECTIONS)
    mika.wait_for_rest()
    sizes = announces.sample(port, population[:SAMPLES], load.totals)
    size = round(statistics.mean(sizes))
    note(f"{mode}: the mean reply has a body of {size} bytes")
    floor_port = free_port()
    command = [TARGET / "examples" / "floor_http", f"127.0.0.1:{floor_port}", size]
    floor = stack.enter_context(Server(command, floor_port, server_core, folder))
    return Contest(mode, load, mika, floor)


def play(contest, connection, options, report):
    """One round: the floor, then Mika."""
    case = f"{contest.mode}, {connection}"
    floor = f"floor of {case}"
    report.add(floor, measure(contest.floor, contest.load, connection, options))
    report.add(case, measure(contest.mika, contest.load, connection, options), ratio_to=floor)
    peers = contest.load.population[:SPOT_CHECKS]
    announces.sample(contest.mika.port, peers, contest.load.totals)


def measure(server, load, connection, options):
    before = server.cpu_seconds()
    result = load.run(server.port, options.seconds, options.connections, connection)
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


def write_config(mode, port, folder):
    config = {
        "mode": mode,
        "http": {"listen": [f"127.0.0.1:{port}"]},
        "udp": {"listen": []},
        "api": {"listen": []},
        "tracker": {"whitelist": False, "auto_register": mode == "public"},
        "cache": {"driver": "memory"},
        "storage": {"driver": "sqlite", "url": f"sqlite://{folder}/mika.db"},
    }
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    return file


def prepare(mode, options, config, folder):
    """The population; for a private tracker also its users and torrents, by plain SQL."""
    if mode == "public":
        return announces.public(options.torrents, options.peers, options.numwant)
    passkeys = [secrets.token_hex(16) for _ in range(options.users)]
    migrate = [TARGET / "mika-manage", "-c", config, "migrate"]
    done = subprocess.run(migrate, cwd=folder, capture_output=True, text=True, timeout=60)
    if done.returncode != 0:
        raise Fault(f"`mika-manage migrate` failed:\n{done.stderr}")
    database = sqlite3.connect(folder / "mika.db")
    with database:
        database.executemany(
            "INSERT INTO users (id, passkey, username) VALUES (?, ?, ?)",
            ((number + 1, passkey, f"user{number}") for number, passkey in enumerate(passkeys)),
        )
        database.executemany(
            "INSERT INTO torrents (id, info_hash, release_name) VALUES (?, ?, ?)",
            (
                (number + 1, announces.info_hash(number), f"release.{number}")
                for number in range(options.private_torrents)
            ),
        )
    database.close()
    return announces.private(passkeys, options.private_torrents, options.private_peers, options.numwant)
