"""UDP on one core: Mika beside a responder without state (the floor), aquatic_udp and opentracker.

Two loads: aquatic_udp_load_test with its defaults (connects, announces and some scrapes), and
announces only, by load_udp. Each has two phases: peers join an empty tracker, and all are there.
The server has one core, the load another. Runs are interleaved; figures are medians over the rounds.
"""

import functools
import pathlib
import tempfile
from contextlib import ExitStack

from benchkit import mika, peers
from benchkit.fault import Fault
from benchkit.process import TARGET, OneAtATime, Server, build, cores, free_port
from benchkit.report import Column, note
from benchkit.udp import AquaticLoad, Load

LOADS = ("aquatic", "announces")
PHASES = ("joining", "steady")
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
    parser.add_argument("--phase", choices=PHASES, action="append", help="only this phase")
    parser.add_argument("--beside", choices=OTHERS, action="append", help="only this other tracker")
    parser.add_argument("--no-others", action="store_true", help="only Mika and the floor")
    parser.add_argument(
        "--against", type=pathlib.Path, action="append", default=[], metavar="FILE", help="another build of mika, too"
    )
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
        starters = choose_trackers(loads, options, folder)
        phases = options.phase or PHASES
        if "joining" in phases:
            measure_joining(loads, starters, options, folder, report)
        if "steady" in phases:
            measure_steady(loads, starters, options, folder, report)
    kinds = [f"{name} {phase}" for phase in phases for name in loads]
    for kind in kinds:
        others = [case for case in report.cases() if case.startswith(f"{kind}, ")]
        report.beside(f"{kind}, mika", [case for case in others if not case.endswith((", mika", ", floor"))])
    report.title = f"UDP on one core: medians of {options.rounds} rounds of {options.seconds} s"
    warn_of_other_work(kinds, report)
    if idle := [case for case in report.cases() if report.median(case, "busy") < BUSY_MIN]:
        note(f"compare these by CPU, their server had time to spare: {'; '.join(idle)}")


def warn_of_other_work(kinds, report):
    """Names the trackers whose replies have far more or fewer peers than Mika's."""
    for kind in kinds:
        own = report.median(f"{kind}, mika", "mean_peers")
        for case in (case for case in report.cases() if case.startswith(f"{kind}, ")):
            peers_each = report.median(case, "mean_peers")
            if min(own, peers_each) < PEERS_RATIO_MIN * max(own, peers_each):
                note(f"{case}: replies have {peers_each:.1f} peers, and Mika's {own:.1f}: no fair comparison")


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


def choose_trackers(loads, options, folder):
    """What starts each tracker on one core, empty, by name."""
    starters = {"mika": functools.partial(start_mika, folder, TARGET / "mika")}
    for program in options.against:
        starters[f"mika by {program}"] = functools.partial(start_mika, folder, program)
    others = [] if options.no_others else options.beside or OTHERS
    for name in others:
        if name == "opentracker":
            hashes = [one for load in loads.values() for one in load.hashes()]
            starters[name] = functools.partial(start_opentracker, folder, hashes)
        else:
            features = "io-uring" if "io_uring" in name else None
            starters[name] = functools.partial(start_aquatic, folder, features)
    return starters


def start_mika(folder, program):
    core, _ = cores()
    port = free_port()
    own = pathlib.Path(tempfile.mkdtemp(prefix="mika-", dir=folder))
    config = mika.write_config(own, "public", udp=port, max_torrents=TORRENTS_MAX)
    return mika.start(config, port, core, own, "udp", program)


def start_aquatic(folder, features):
    core, _ = cores()
    return peers.aquatic_udp(free_port(), core, folder, features)


def start_opentracker(folder, hashes):
    core, _ = cores()
    return peers.opentracker(free_port(), core, folder, hashes)


def measure_joining(loads, starters, options, folder, report):
    """Each tracker is started anew for each run."""
    for number in range(options.rounds):
        for load_name, load in loads.items():
            note(f"joining, round {number + 1} of {options.rounds}: {load_name}")
            kind = f"{load_name} joining"
            for name, starter in starters.items():
                server = starter()
                if server is None:
                    continue
                with server:
                    figures = measure(server, functools.partial(join, load, server, options.seconds))
                    server.check_alive()
                if name == "mika":
                    size = round(figures["mean_peers"])
                    report.add(f"{kind}, floor", measure_floor(load, size, options, folder))
                report.add(f"{kind}, {name}", figures, ratio_to=f"{kind}, floor")


def measure_floor(load, size, options, folder):
    with start_floor(size, folder) as floor:
        return measure(floor, functools.partial(load.full, floor, options.seconds))


def measure_steady(loads, starters, options, folder, report):
    """All trackers are started once, and all peers join before the first figure."""
    with ExitStack() as stack:
        started = ((name, starter()) for name, starter in starters.items())
        servers = {name: stack.enter_context(server) for name, server in started if server is not None}
        turns = OneAtATime(servers.values())
        floors = {}
        for name, load in loads.items():
            size = fill(name, load, servers, turns, options)
            floors[name] = stack.enter_context(start_floor(size, folder))
        for number in range(options.rounds):
            note(f"steady, round {number + 1} of {options.rounds}")
            for name, load in loads.items():
                play(f"{name} steady", load, floors[name], servers, turns, options, report)


def join(load, server, seconds):
    """Peers join a tracker: for so long by aquatic's load, and by load_udp until all have joined."""
    if isinstance(load, AquaticLoad):
        return load.full(server, seconds)
    return load.fill(server, completed=True)


def fill(name, load, servers, turns, options):
    """Lets the population of a load join everywhere; peers in Mika's mean reply."""
    sizes = {}
    for server_name, server in servers.items():
        note(f"{load.peers} peers of {load.torrents} torrents join {server_name}")
        turns.turn(server)
        result = join(load, server, options.join_seconds)
        if not isinstance(load, AquaticLoad):
            result = load.full(server, 2)
        sizes[server_name] = result["mean_peers"]
        server.wait_for_rest()
    note(f"{name}: a mean reply of Mika has {sizes['mika']:.1f} peers")
    return round(sizes["mika"])


def start_floor(size, folder):
    core, _ = cores()
    port = free_port()
    return Server([TARGET / "examples" / "floor_udp", f"127.0.0.1:{port}", size], port, core, folder, "udp")


def play(kind, load, floor, servers, turns, options, report):
    """One round: the floor, then all trackers."""
    turns.turn(None)
    base = f"{kind}, floor"
    report.add(base, measure(floor, functools.partial(load.full, floor, options.seconds)))
    for server_name, server in servers.items():
        turns.turn(server)
        figures = measure(server, functools.partial(load.full, server, options.seconds))
        report.add(f"{kind}, {server_name}", figures, ratio_to=base)
        server.check_alive()


def measure(server, run):
    """What one run of a load costs a server, with the work that it put off, such as its journal."""
    before = server.cpu_seconds()
    result = run()
    busy = (server.cpu_seconds() - before) / result["seconds"]
    server.wait_for_rest()
    used = server.cpu_seconds() - before
    # The load's own beginning is in its time, and not in the server's.
    return {
        "rate": result["replies"] / result["seconds"],
        "by_cpu": result["replies"] / used,
        "cpu_us": used * 1e6 / result["replies"],
        "busy": busy,
        "load_busy": result["cpu_seconds"] / result["seconds"],
        "mean_peers": result["mean_peers"],
    }
