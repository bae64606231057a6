"""More threads: announces a second, CPU, waits for locks and context switches for each number of threads.

In memory, threads decide announces and do nothing else. Over UDP, Mika runs with as many workers. With four cores or
more the server has one half of them and the load the other; with fewer they share all. More threads than cores show
what a thread costs others that is interrupted while it has a lock.
"""

import json
import os
import pathlib
import re
import ssl
import subprocess
import tempfile
import urllib.request
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

from benchkit import mika
from benchkit.fault import Fault
from benchkit.process import TARGET, build, free_port
from benchkit.report import Column, note
from benchkit.udp import Load

WAYS = ("memory", "udp")
MODES = ("public", "private")

# Addresses of each load: the kernel spreads them over the workers' sockets.
SOURCES = 64
FIRST_SOURCE = "127.{}.0.1"

CLIENTS_MAX = 1000

COLUMNS = [
    Column("rate", "announces/s", "announces/s", "{:,.0f}", has_ratio=True),
    Column("by_cpu", "a CPU second", "announces/CPU s", "{:,.0f}", suffix=", by CPU", has_ratio=True),
    Column("cpu_us", "CPU us each", "us/announce", "{:.2f}", suffix=", CPU"),
    Column("others_us", "of others", "us/announce", "{:.2f}", suffix=", CPU of other threads"),
    Column("busiest_us", "busiest other", "us/announce", "{:.2f}", suffix=", CPU of the busiest other thread"),
    Column("cores", "cores busy", "cores", "{:.2f}", suffix=", cores busy"),
    Column("waits", "waits/million", "waits/million", "{:,.0f}", suffix=", waits for locks"),
    Column("wait_us", "us a wait", "us", "{:,.1f}", suffix=", a wait"),
    Column("switches", "switches/1000", "switches/1000", "{:,.1f}", suffix=", context switches"),
]


def numbers(text):
    return [int(word) for word in text.split(",")]


def add_arguments(parser):
    parser.set_defaults(rounds=3, seconds=4)
    parser.add_argument("--procs", type=numbers, default=[1, 2, 4, 8, 16], help="numbers of threads (default 1,2,4,8,16)")
    parser.add_argument("--way", choices=WAYS, action="append", help="only this one")
    parser.add_argument("--mode", choices=MODES, action="append", help="only this mode")
    parser.add_argument("--server-cores", type=numbers, metavar="LIST", help="cores of the server")
    parser.add_argument("--load-cores", type=numbers, metavar="LIST", help="cores of the load over UDP")
    parser.add_argument("--peers", type=int, default=200_000, help="in all (default %(default)s)")
    parser.add_argument("--torrents", type=int, default=100_000, help="in all (default %(default)s)")
    parser.add_argument("--users", type=int, default=10_000, help="of a private tracker (default %(default)s)")
    parser.add_argument("--numwant", type=int, default=50, help="peers asked for (default %(default)s)")
    parser.add_argument("--program", type=pathlib.Path, help="another build of benches/announce_threads")


def run(options, report):
    if not options.no_build:
        build("announce_threads", "load_udp")
    report.columns = COLUMNS
    server_cores, load_cores = halves(options)
    for number in range(options.rounds):
        note(f"round {number + 1} of {options.rounds}")
        for way in options.way or WAYS:
            for mode in options.mode or MODES:
                for procs in options.procs:
                    figures = measure(way, mode, procs, server_cores, load_cores, options)
                    base = f"{way}, {mode}, {options.procs[0]}"
                    case = f"{way}, {mode}, {procs}"
                    report.add(case, figures, ratio_to=base if case != base else None)
    report.title = (
        f"Announces by number of threads: medians of {options.rounds} rounds of {options.seconds} s, "
        f"server on cores {server_cores}, load over UDP on cores {load_cores}"
    )


def halves(options):
    """The cores of the server, and those of the load."""
    every = sorted(os.sched_getaffinity(0))
    half = len(every) // 2
    server, load = (every[half:], every[:half]) if len(every) >= 4 else (every, every)
    return options.server_cores or server, options.load_cores or load


def measure(way, mode, procs, server_cores, load_cores, options):
    if way == "memory":
        return in_memory(mode, procs, server_cores, options)
    with ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mika-bench-")))
        server, loads, api = start(mode, procs, server_cores, load_cores, options, folder, stack)
        return over_udp(server, loads, api, options)


def in_memory(mode, procs, cores, options):
    command = [options.program or TARGET / "examples" / "announce_threads", mode, "--threads", procs]
    command += ["--seconds", options.seconds, "--peers", options.peers, "--torrents", options.torrents]
    done = subprocess.run(
        [str(word) for word in [*command, "--users", options.users]],
        capture_output=True,
        text=True,
        preexec_fn=lambda: os.sched_setaffinity(0, cores),
    )
    if done.returncode != 0:
        raise Fault(f"{command[0]} failed:\n{done.stderr[-2000:]}")
    result = json.loads(done.stdout)
    waits = sum(wait["count"] for wait in result["waits"].values())
    waited = sum(wait["nanoseconds"] for wait in result["waits"].values()) / 1e9
    switches = result["voluntary"] + result["involuntary"]
    return figures(result["announces"], result["seconds"], result["cpu_seconds"], [0], waits, waited, switches)


def figures(announces, seconds, workers, others, waits, waited, switches):
    """All times in seconds; those of other threads one by one."""
    cpu = workers + sum(others)
    return {
        "rate": announces / seconds,
        "by_cpu": announces / cpu,
        "cpu_us": cpu * 1e6 / announces,
        "others_us": sum(others) * 1e6 / announces,
        "busiest_us": max(others) * 1e6 / announces,
        "cores": cpu / seconds,
        "waits": waits * 1e6 / announces,
        "wait_us": waited * 1e6 / waits if waits else 0,
        "switches": switches * 1e3 / announces,
    }


def start(mode, procs, server_cores, load_cores, options, folder, stack):
    """Mika with all peers, and the loads: one for each of their cores, with torrents of its own."""
    port, api_port = free_port(), free_port()
    key, cert = mika.genkey(folder)
    api = {"listen": [f"127.0.0.1:{api_port}"], "tls": {"key": str(key), "cert": str(cert)}}
    limits = {"max_peers_per_user": CLIENTS_MAX} if mode == "private" else {}
    config = mika.write_config(folder, mode, udp=port, api=api, **limits)
    share = len(load_cores)
    passkeys = folder / "passkeys" if mode == "private" else None
    loads = []
    for number, core in enumerate(load_cores, 1):
        more = ["--seed", number, "--sources", SOURCES, "--from", FIRST_SOURCE.format(number)]
        sizes = (options.peers // share, options.torrents // share, options.numwant)
        loads.append(Load(core, *sizes, passkeys=passkeys, more=more))
    if mode == "private":
        hashes = [bytes.fromhex(one) for load in loads for one in load.hashes()]
        users = mika.register(folder, config, options.users, hashes)
        passkeys.write_text("".join(f"{one}\n" for one in users))
    server = mika.start(config, port, server_cores, folder, "udp", procs=procs)
    stack.enter_context(server)
    at_once(loads, lambda load: load.fill(server, window=4096))
    server.wait_for_rest()
    return server, loads, api_port


def at_once(loads, work):
    with ThreadPoolExecutor(len(loads)) as pool:
        return list(pool.map(work, loads))


def over_udp(server, loads, api, options):
    before, (waits, waited) = server.threads(), lock_waits(api)
    results = at_once(loads, lambda load: load.full(server, options.seconds))
    # With what was put off, such as the journal.
    server.wait_for_rest()
    after, (waits_after, waited_after) = server.threads(), lock_waits(api)
    workers, others, switches = 0, [], 0
    for thread, (name, seconds, switched) in after.items():
        _, seconds_before, switched_before = before.get(thread, (name, 0, 0))
        if name.startswith("udp-"):
            workers += seconds - seconds_before
            switches += switched - switched_before
        else:
            others.append(seconds - seconds_before)
    announces = sum(result["replies"] for result in results)
    seconds = max(result["seconds"] for result in results)
    return figures(announces, seconds, workers, others, waits_after - waits, waited_after - waited, switches)


def lock_waits(api):
    """How often threads waited for locks, and for how many seconds, in all."""
    context = ssl._create_unverified_context()
    with urllib.request.urlopen(f"https://127.0.0.1:{api}/metrics", context=context) as answer:
        text = answer.read().decode()
    sums = (re.findall(rf"^mika_lock_{name}\{{.*\}} (.+)$", text, re.M) for name in ("waits_total", "wait_seconds_total"))
    return tuple(sum(float(value) for value in values) for values in sums)
