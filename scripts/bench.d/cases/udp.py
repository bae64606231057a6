"""UDP on one core: Mika beside a responder without state (the floor), aquatic_udp and opentracker.

Two loads: aquatic_udp_load_test with its defaults (connects, announces and some scrapes), and
announces only, by load_udp. The server has one core, the load another. Runs are interleaved;
figures are medians over the rounds.
"""

import pathlib
import tempfile
from contextlib import ExitStack

from benchkit import mika, peers
from benchkit.fault import Fault
from benchkit.process import TARGET, OneAtATime, Server, build, cores, free_port
from benchkit.report import Column, note
from benchkit.udp import AquaticLoad, Load

LOADS = ("aquatic", "announces")
OTHERS = ("aquatic_udp", "aquatic_udp io_uring", "opentracker")
TORRENTS_MAX = 8_000_000

# Below this the load (or another program) was the limit, and only figures by CPU are about the server.
BUSY_MIN = 0.9

# A tracker whose replies have less than this part of the peers of Mika's, or the other way round, does other work.
PEERS_RATIO_MIN = 0.5

COLUMNS = [
    Column("rate", "replies/s", "replies/s", "{:,.0f}", has_ratio=True),
    Column("by_cpu", "a CPU second", "replies/CPU s", "{:,.0f}", suffix=", by CPU", has_ratio=True),
    Column("cpu_us", "CPU us each", "us/reply", "{:.2f}", suffix=", CPU"),
    Column("busy", "core busy", "cores", "{:.0%}", suffix=", core busy"),
    Column("load_busy", "load busy", "cores", "{:.0%}", suffix=", load busy"),
    Column("mean_peers", "peers each", "peers/announce", "{:.1f}", suffix=", peers in a reply"),
]


def add_arguments(parser):
    parser.set_defaults(rounds=3, seconds=10)
    parser.add_argument("--load", choices=LOADS, action="append", help="only this load")
    parser.add_argument("--beside", choices=OTHERS, action="append", help="only this other tracker")
    parser.add_argument("--no-others", action="store_true", help="only Mika and the floor")
    parser.add_argument("--numwant", type=int, default=50, help="of announces only (default %(default)s)")
    parser.add_argument("--torrents", type=int, default=100_000, help="of announces only (default %(default)s)")
    parser.add_argument("--peers", type=int, default=200_000, help="of announces only (default %(default)s)")
    parser.add_argument(
        "--join-seconds", type=int, default=75, help="aquatic's load before the first figure (default %(default)s)"
    )


def run(options, report):
    if not options.no_build:
        build("floor_udp", "load_udp")
    report.columns = COLUMNS
    with ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mika-bench-")))
        loads = choose_loads(options, folder)
        servers = start(loads, options, folder, stack)
        turns = OneAtATime(servers.values())
        floors = {}
        for name, load in loads.items():
            size = join(name, load, servers, turns, options)
            floors[name] = stack.enter_context(start_floor(size, folder))
        for number in range(options.rounds):
            note(f"round {number + 1} of {options.rounds}")
            for name, load in loads.items():
                play(name, load, floors[name], servers, turns, options, report)
    for name in loads:
        report.beside(f"{name}, mika", [f"{name}, {other}" for other in servers if other != "mika"])
    report.title = f"UDP on one core: medians of {options.rounds} rounds of {options.seconds} s"
    warn_of_other_work(loads, servers, report)
    if idle := [case for case in report.cases() if report.median(case, "busy") < BUSY_MIN]:
        note(f"compare these by CPU, their server had time to spare: {'; '.join(idle)}")


def warn_of_other_work(loads, servers, report):
    """Names the trackers whose replies have far more or fewer peers than Mika's."""
    for load in loads:
        own, *others = (report.median(f"{load}, {name}", "mean_peers") for name in servers)
        for name, peers_each in zip(list(servers)[1:], others):
            if min(own, peers_each) < PEERS_RATIO_MIN * max(own, peers_each):
                note(f"{load}: mika's replies have {own:.1f} peers and those of {name} {peers_each:.1f}: no fair comparison")


def choose_loads(options, folder):
    _, load_core = cores()
    loads = {}
    for name in options.load or LOADS:
        if name == "aquatic":
            loads[name] = AquaticLoad(load_core, folder)
            if options.seconds % AquaticLoad.SECONDS_STEP:
                raise Fault(f"--seconds has to be a multiple of {AquaticLoad.SECONDS_STEP} for aquatic's load")
        else:
            loads[name] = Load(load_core, options.peers, options.torrents, options.numwant)
    return loads


def start(loads, options, folder, stack):
    """Mika and the others, by name, on one core."""
    core, _ = cores()
    port = free_port()
    config = mika.write_config(folder, "public", udp=port, max_torrents=TORRENTS_MAX)
    servers = {"mika": stack.enter_context(mika.start(config, port, core, folder, "udp"))}
    others = [] if options.no_others else options.beside or OTHERS
    for name in others:
        port = free_port()
        if name == "opentracker":
            hashes = [one for load in loads.values() for one in load.hashes()]
            server = peers.opentracker(port, core, folder, hashes)
        else:
            features = "io-uring" if "io_uring" in name else None
            server = peers.aquatic_udp(port, core, folder, features)
        if server is not None:
            servers[name] = stack.enter_context(server)
    return servers


def join(name, load, servers, turns, options):
    """Lets the population of a load join everywhere; peers in Mika's mean reply."""
    sizes = {}
    for server_name, server in servers.items():
        note(f"{load.peers} peers of {load.torrents} torrents join {server_name}")
        turns.turn(server)
        if isinstance(load, AquaticLoad):
            result = load.full(server, options.join_seconds)
        else:
            load.fill(server)
            result = load.full(server, 2)
        sizes[server_name] = result["mean_peers"]
        server.wait_for_rest()
    note(f"{name}: a mean reply of Mika has {sizes['mika']:.1f} peers")
    return round(sizes["mika"])


def start_floor(size, folder):
    core, _ = cores()
    port = free_port()
    return Server([TARGET / "examples" / "floor_udp", f"127.0.0.1:{port}", size], port, core, folder, "udp")


def play(name, load, floor, servers, turns, options, report):
    """One round: the floor, then all trackers."""
    turns.turn(None)
    base = f"{name}, floor"
    report.add(base, measure(floor, load, options))
    for server_name, server in servers.items():
        turns.turn(server)
        report.add(f"{name}, {server_name}", measure(server, load, options), ratio_to=base)
        server.check_alive()


def measure(server, load, options):
    before = server.cpu_seconds()
    result = load.full(server, options.seconds)
    used = server.cpu_seconds() - before
    # The load's own beginning is in its time, and not in the server's.
    return {
        "rate": result["replies"] / result["seconds"],
        "by_cpu": result["replies"] / used,
        "cpu_us": used * 1e6 / result["replies"],
        "busy": used / result["seconds"],
        "load_busy": result["cpu_seconds"] / result["seconds"],
        "mean_peers": result["mean_peers"],
    }
