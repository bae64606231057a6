"""Latency of announces while Redis and MariaDB hang, compared with normal operation.

A private tracker under a load at a fixed pace, of which some announces wait until they are
durable. Windows are interleaved: one with both servers at work, one with both under SIGSTOP.
"""

import pathlib
import tempfile
from contextlib import ExitStack

from benchkit import announces, site
from benchkit.databases import MariaDb, Redis
from benchkit.process import TARGET, Server, build, cores, free_port
from benchkit.report import Column, note
from benchkit.wrk import Load

USERS = 500
TORRENTS = 2000
LAPS = 10
SAMPLES = 50

# The chance of each in one announce; replies to them wait until the journal is durable.
EVENTS = {"stopped": 0.02, "completed": 0.01, "started": 0.01}

COLUMNS = [
    Column("p50_ms", "p50 ms", "ms", "{:.2f}", has_ratio=True),
    Column("p99_ms", "p99 ms", "ms", "{:.2f}", suffix=", p99", has_ratio=True),
    Column("p999_ms", "p99.9 ms", "ms", "{:.2f}", suffix=", p99.9", has_ratio=True),
    Column("rate", "announces/s", "announces/s", "{:,.0f}", suffix=", announces/s"),
]


def add_arguments(parser):
    parser.set_defaults(rounds=3, seconds=20)
    parser.add_argument("--rate", type=int, default=2000, help="announces a second (default %(default)s)")
    parser.add_argument("--connections", type=int, default=100, help="open at once (default %(default)s)")
    parser.add_argument("--peers", type=int, default=10_000, help="(default %(default)s)")


def run(options, report):
    if not options.no_build:
        build()
    report.columns = COLUMNS
    with ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mika-bench-")))
        redis = stack.enter_context(Redis(folder))
        mariadb = stack.enter_context(MariaDb(folder))
        server_core, load_core = cores()
        port = free_port()
        config = site.write_config(port, mariadb, redis, folder)
        population = site.prepare(mariadb, config, folder, USERS, TORRENTS, options.peers, numwant=50)
        load = Load(announces.with_events(population, LAPS, EVENTS), folder, load_core)
        command = [TARGET / "mika", "-config", config, "-procs", 1]
        mika = stack.enter_context(Server(command, port, server_core, folder))
        note(f"{len(population)} peers join")
        announces.sample(port, population[:SAMPLES], load.totals)
        # Twice: the first takes place while they are new, when replies wait.
        for _ in range(2):
            load.run(port, max(options.seconds, 10), options.connections, "keep-alive", options.rate)
        for number in range(options.rounds):
            note(f"round {number + 1} of {options.rounds}")
            report.add("normal", measure(mika, load, options))
            with Paused(redis, mariadb):
                figures = measure(mika, load, options)
            report.add("both stopped", figures, ratio_to="normal")
            mika.wait_for_rest()
            announces.sample(port, population[:SAMPLES], load.totals)
    report.title = (
        f"Announces at a pace of {options.rate} a second: "
        f"medians of {options.rounds} windows of {options.seconds} s"
    )


class Paused:
    """Database servers that do nothing meanwhile."""

    def __init__(self, *servers):
        self._servers = servers

    def __enter__(self):
        for server in self._servers:
            server.pause()

    def __exit__(self, *_):
        for server in self._servers:
            server.resume()


def measure(mika, load, options):
    result = load.run(mika.port, options.seconds, options.connections, "keep-alive", options.rate)
    mika.check_alive()
    figures = {key: result[key] for key in ("p50_ms", "p99_ms", "p999_ms")}
    return figures | {"rate": result["requests"] / result["seconds"]}
