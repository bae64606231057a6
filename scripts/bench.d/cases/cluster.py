"""Several nodes with one Redis and one database: what an announce costs all of them, and how soon others know of it.

A bounded load is spread over the nodes, each of which has its own peers; then the last node has a rest and
only follows the others. CPU is per announce, so that figures hold on a busy machine, too.
"""

import os
import pathlib
import random
import statistics
import tempfile
import threading
import time
from contextlib import ExitStack

from benchkit.databases import MariaDb
from benchkit.fault import Fault
from benchkit.probe import Probe
from benchkit.process import build
from benchkit.report import Column, note
from benchkit.shared import Cache, Cluster
from benchkit.udp import Load

MODES = ("public", "private")

# Private records are young, and their replies wait, for five seconds; and the last batches are applied.
SETTLE_SECONDS = 6

LOST_MAX = 0.01

COLUMNS = [
    Column("own_us", "own us", "us/announce", "{:.1f}", has_ratio=True),
    Column("other_us", "others' us", "us/announce", "{:.1f}", suffix=", CPU for an announce to another node"),
    Column("even", "even at", "nodes", "{:.1f}", suffix=", nodes at which both are equal"),
    Column("rate", "announces/s", "announces/s", "{:,.0f}", suffix=", announces/s in all"),
    Column("p50_ms", "p50 ms", "ms", "{:.1f}", suffix=", propagation p50"),
    Column("p99_ms", "p99 ms", "ms", "{:.1f}", suffix=", propagation p99"),
    Column("commands", "Redis cmds", "commands/announce", "{:.2f}", suffix=", Redis commands"),
    Column("bytes_in", "bytes in", "bytes/announce", "{:,.0f}", suffix=", bytes to Redis"),
    Column("bytes_out", "bytes out", "bytes/announce", "{:,.0f}", suffix=", bytes from Redis"),
    Column("redis_us", "Redis us", "us/announce", "{:.1f}", suffix=", Redis CPU"),
    Column("rows", "rows", "rows/announce", "{:.2f}", suffix=", rows of storage"),
    Column("changes", "changes", "changes/announce", "{:.2f}", suffix=", changes in the journal"),
    Column("journal", "journal bytes", "bytes/announce", "{:,.0f}", suffix=", bytes of the journal"),
    Column("memory", "bytes a peer", "bytes/peer", "{:,.0f}", suffix=", memory of a node for a peer"),
    Column("redis_memory", "in Redis", "bytes/peer", "{:,.0f}", suffix=", memory of Redis for a peer"),
]


def add_arguments(parser):
    parser.set_defaults(rounds=3, seconds=10)
    parser.add_argument("--mode", choices=MODES, action="append", help="only this mode")
    parser.add_argument("--nodes", default="1,2,3,5", help="numbers of nodes (default %(default)s)")
    parser.add_argument("--peers", type=int, default=100_000, help="of all nodes (default %(default)s)")
    parser.add_argument("--torrents", type=int, default=50_000, help="(default %(default)s)")
    parser.add_argument("--users", type=int, default=5000, help="private users (default %(default)s)")
    parser.add_argument("--rate", type=int, default=3000, help="announces a second in all (default %(default)s)")
    parser.add_argument("--probes", type=int, default=50, help="peers whose propagation is timed (default %(default)s)")
    parser.add_argument("--redis-cluster", action="store_true", help="a Redis Cluster of three masters")


def run(options, report):
    if not options.no_build:
        build("load_udp")
    report.columns = COLUMNS
    numbers = [int(number) for number in options.nodes.split(",")]
    for round_number in range(options.rounds):
        note(f"round {round_number + 1} of {options.rounds}")
        with ExitStack() as stack:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mika-bench-")))
            mariadb = stack.enter_context(MariaDb(folder))
            for mode in options.mode or MODES:
                for nodes in numbers:
                    figures = measure(mode, nodes, mariadb, folder, options)
                    report.add(case(mode, nodes), figures, case(mode, numbers[0]) if nodes != numbers[0] else None)
    redis = "a Redis Cluster of three masters" if options.redis_cluster else "one Redis"
    report.title = (
        f"Nodes with {redis}, {options.peers:,} peers in {options.torrents:,} torrents, {options.rate} announces/s "
        f"in all: medians of {options.rounds} rounds of {options.seconds} s"
    )


def case(mode, nodes):
    return f"{mode}, {nodes} node{'s' if nodes > 1 else ''}"


def measure(mode, nodes, mariadb, folder, options):
    folder = folder / f"{mode}-{nodes}"
    folder.mkdir()
    with ExitStack() as stack:
        cache = Cache(folder, options.redis_cluster, stack)
        cluster = Cluster(mode, nodes, cache, mariadb, folder, stack)
        load, probed = prepare(cluster, options)
        cluster.start(os.sched_getaffinity(0))
        before = memory(cluster)
        note(f"{case(mode, nodes)}: {options.peers} peers join")
        load.fill(cluster.nodes)
        time.sleep(SETTLE_SECONDS)
        cluster.wait_for_rest()
        figures = {"memory": (memory(cluster) - before) / options.peers, "redis_memory": cache.peer_bytes()}
        idle = Window(cluster)
        time.sleep(options.seconds)
        idle.close()
        figures |= of_all(cluster, load, idle, options)
        figures["other_us"] = of_one(cluster, load, idle, options) if nodes > 1 else 0
        figures["own_us"] -= (nodes - 1) * figures["other_us"]
        figures["even"] = 1 + figures["own_us"] / max(figures["other_us"], 0.01) if nodes > 1 else 0
        figures |= propagation(cluster, load, probed, options)
        return figures


def prepare(cluster, options):
    """The load, and the info hashes of the probes."""
    chance = random.Random(5)
    probed = [chance.randbytes(20) for _ in range(options.probes)]
    passkeys = None if cluster.mode == "public" else cluster.folder / "passkeys"
    core = min(os.sched_getaffinity(0))
    load = Load(core, options.peers, options.torrents, numwant=50, passkeys=passkeys)
    if passkeys:
        cluster.register(options.users + 2, load.hashes() + [one.hex() for one in probed])
        passkeys.write_text("".join(f"{one}\n" for one in cluster.passkeys[:-2]))
    return load, probed


def memory(cluster):
    return statistics.mean(node.memory()[0] for node in cluster.nodes)


class Window:
    """What nodes, Redis and the database use between its beginning and its end."""

    def __init__(self, cluster):
        self._cluster = cluster
        self._journals = cluster.cache.journals()
        self._before = self._look()

    def close(self):
        self.used = {key: value - self._before[key] for key, value in self._look().items()}
        self.journal = self._cluster.cache.journaled(self._journals)

    def _look(self):
        cpu = {f"node {number}": node.thread_seconds() for number, node in enumerate(self._cluster.nodes)}
        return cpu | self._cluster.cache.used() | {"rows": self._cluster.rows(), "seconds": time.monotonic()}

    def beyond(self, idle):
        """What it used more than an idle one of the same length."""
        part = self.used["seconds"] / idle.used["seconds"]
        return {key: value - part * idle.used[key] for key, value in self.used.items()}


def play(cluster, load, idle, options, lap, only=None):
    """A window of load; what it used beyond rest, the announces, and its journal."""
    window = Window(cluster)
    nodes = len(cluster.nodes)
    rate = options.rate * (only or nodes) // nodes
    result = load.paced(cluster.nodes, options.seconds, rate, lap, only)
    cluster.wait_for_rest()
    window.close()
    if result["lost"] > result["sent"] * LOST_MAX:
        raise Fault(f"{result['lost']} of {result['sent']} announces had no answer: try a lower --rate")
    return window.beyond(idle), result["replies"], window.journal


def of_all(cluster, load, idle, options):
    """All nodes have announces."""
    used, announces, journal = play(cluster, load, idle, options, lap=1)
    nodes = sum(value for key, value in used.items() if key.startswith("node"))
    return {
        "own_us": nodes * 1e6 / announces,
        "rate": announces / options.seconds,
        "commands": used["commands"] / announces,
        "bytes_in": used["bytes_in"] / announces,
        "bytes_out": used["bytes_out"] / announces,
        "redis_us": used["cpu_seconds"] * 1e6 / announces,
        "rows": used["rows"] / announces,
        "changes": journal["changes"] / announces,
        "journal": journal["bytes"] / announces,
    }


def of_one(cluster, load, idle, options):
    """CPU for each of them where the last node has none, and follows."""
    last = len(cluster.nodes) - 1
    used, announces, _ = play(cluster, load, idle, options, lap=1000, only=last)
    return used[f"node {last}"] * 1e6 / announces


def propagation(cluster, load, probed, options):
    """From the first node to the last, under load."""
    if len(cluster.nodes) < 2 or not probed:
        return {"p50_ms": 0, "p99_ms": 0}
    passkeys = cluster.passkeys[-2:] or [None, None]
    probe = Probe(cluster.nodes[0].port, cluster.nodes[-1].port, passkeys)
    for info_hash in probed:
        probe.ask(info_hash)
    time.sleep(SETTLE_SECONDS)
    with Background(cluster, load, options):
        delays = [probe.seconds(info_hash, number) * 1e3 for number, info_hash in enumerate(probed)]
    probe.close()
    delays.sort()
    return {"p50_ms": statistics.median(delays), "p99_ms": delays[int(len(delays) * 0.99)]}


class Background:
    """A load beside what is done meanwhile, again and again."""

    def __init__(self, *what):
        self._what = what
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._play)

    def __enter__(self):
        self._thread.start()

    def __exit__(self, *_):
        self._ends.set()
        self._thread.join()

    def _play(self):
        cluster, load, options = self._what
        lap = 2000
        while not self._ends.is_set():
            load.paced(cluster.nodes, 2, options.rate, lap)
            lap += 1000
