"""What an announce costs as peers grow: many swarms of 10k to 10M peers, and one of 10 to 1M.

CPU time of the server for a reply over UDP, beside that of a responder without state whose
replies are as long (the floor). Runs are interleaved; figures are medians over the rounds.
"""

import pathlib
import tempfile
from contextlib import ExitStack

from benchkit import mika
from benchkit.process import TARGET, Server, build, cores, free_port
from benchkit.report import Column, note
from benchkit.udp import Load

TOTALS = (10_000, 100_000, 1_000_000, 10_000_000)
SWARMS = (10, 1000, 100_000, 1_000_000)
PEERS_PER_TORRENT = 2

COLUMNS = [
    Column("cpu_us", "CPU us each", "us/announce", "{:.2f}", has_ratio=True),
    Column("rate", "announces/s", "announces/s", "{:,.0f}", suffix=", announces/s"),
    Column("mean_peers", "peers each", "peers/announce", "{:.1f}", suffix=", peers in a reply"),
    Column("mib", "MiB", "MiB", "{:,.0f}", suffix=", resident"),
]


def add_arguments(parser):
    parser.set_defaults(rounds=3, seconds=4)
    parser.add_argument("--totals", type=sizes, default=TOTALS, help="peers in many swarms, as in 10000,1000000")
    parser.add_argument("--swarms", type=sizes, default=SWARMS, help="peers in one swarm, as in 10,100000")
    parser.add_argument("--numwant", type=int, default=50, help="peers asked for (default %(default)s)")


def sizes(text):
    return tuple(int(one) for one in text.split(",") if one)


def run(options, report):
    if not options.no_build:
        build("floor_udp", "load_udp")
    report.columns = COLUMNS
    for total in options.totals:
        play(f"{total:,} peers", total, max(total // PEERS_PER_TORRENT, 1), options, report)
    for total in options.swarms:
        play(f"one swarm of {total:,}", total, 1, options, report)
    report.title = f"What an announce costs: medians of {options.rounds} runs of {options.seconds} s"


def play(case, total, torrents, options, report):
    """A tracker with that many peers, and its floor."""
    core, load_core = cores()
    with ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mika-bench-")))
        port = free_port()
        config = mika.write_config(folder, "public", udp=port, max_torrents=2 * torrents + 2)
        server = stack.enter_context(mika.start(config, port, core, folder, "udp"))
        load = Load(load_core, total, torrents, options.numwant)
        note(f"{case}: they join")
        load.fill(server)
        server.wait_for_rest()
        size = round(load.full(server, 1)["mean_peers"])
        port = free_port()
        command = [TARGET / "examples" / "floor_udp", f"127.0.0.1:{port}", size]
        floor = stack.enter_context(Server(command, port, core, folder, "udp"))
        for number in range(options.rounds):
            note(f"{case}: round {number + 1} of {options.rounds}")
            report.add(f"floor of {case}", measure(floor, load, options))
            report.add(case, measure(server, load, options), ratio_to=f"floor of {case}")


def measure(server, load, options):
    before = server.cpu_seconds()
    result = load.full(server, options.seconds)
    used = server.cpu_seconds() - before
    return {
        "cpu_us": used * 1e6 / result["replies"],
        "rate": result["replies"] / result["seconds"],
        "mean_peers": result["mean_peers"],
        "mib": server.memory()[0] / (1 << 20),
    }
