"""How many rows storage applies a second: SQLite and MariaDB, new rows and updates.

A private tracker's changes in the batches of its journal, applied as the daemon applies them: full transactions,
one after the other. With --against the same is measured with another build of the same program, by turns.
"""

import json
import pathlib
import shutil
import subprocess
import tempfile
from contextlib import ExitStack

from benchkit.databases import MariaDb
from benchkit.fault import Fault
from benchkit.process import TARGET, build
from benchkit.report import Column, note

PROGRAM = "apply_rows"
DATABASE = "bench"
DRIVERS = ("sqlite", "mariadb")

COLUMNS = [
    Column("joined", "new rows/s", "rows/s", "{:,.0f}", suffix=", new", has_ratio=True),
    Column("updated", "updates/s", "rows/s", "{:,.0f}", has_ratio=True),
    Column("joined_us", "CPU us, new", "us/row", "{:.1f}", suffix=", CPU, new", has_ratio=True),
    Column("updated_us", "CPU us, update", "us/row", "{:.1f}", suffix=", CPU", has_ratio=True),
]


def add_arguments(parser):
    parser.set_defaults(rounds=3)
    parser.add_argument("--driver", choices=DRIVERS, action="append", help="only this database")
    parser.add_argument("--against", type=pathlib.Path, metavar="FILE", help=f"another build of {PROGRAM}")
    parser.add_argument("--peers", type=int, default=100_000, help="(default %(default)s)")
    parser.add_argument("--torrents", type=int, default=20_000, help="(default %(default)s)")
    parser.add_argument("--users", type=int, default=5000, help="(default %(default)s)")


def run(options, report):
    if not options.no_build:
        build(PROGRAM)
    report.columns = COLUMNS
    programs = {"": TARGET / "examples" / PROGRAM}
    if options.against:
        programs = {", other build": options.against} | programs
    sizes = [str(size) for size in (options.peers, options.torrents, options.users)]
    with ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mika-bench-")))
        drivers = options.driver or DRIVERS
        mariadb = stack.enter_context(MariaDb(folder)) if "mariadb" in drivers else None
        for number in range(options.rounds):
            note(f"round {number + 1} of {options.rounds}")
            for driver in drivers:
                server_cpu = mariadb.cpu_seconds if driver == "mariadb" else lambda: 0
                base = f"{driver}, other build" if options.against else None
                for suffix, program in programs.items():
                    case = driver + suffix
                    figures = measure(program, database(driver, mariadb, folder), sizes, server_cpu)
                    report.add(case, figures, ratio_to=base if case != base else None)
    report.title = (
        f"Rows applied of {options.peers} peers in {options.torrents} torrents: "
        f"medians of {options.rounds} rounds"
    )


def database(driver, mariadb, folder):
    """The program's words for an empty database."""
    if driver == "mariadb":
        mariadb.sql(f"DROP DATABASE IF EXISTS {DATABASE}; CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4")
        return ["mysql", mariadb.url(DATABASE)]
    file = folder / "sqlite"
    shutil.rmtree(file, ignore_errors=True)
    file.mkdir()
    return ["sqlite", f"sqlite://{file}/mika.db"]


def measure(program, words, sizes, server_cpu):
    """Both kinds of rows; of a server, what it used since the round before counts, too."""
    command = [str(program), *words, *sizes]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        rounds, used = [], server_cpu()
        for line in process.stdout:
            before, used = used, server_cpu()
            rounds.append(json.loads(line) | {"server": used - before})
        problem = process.stderr.read()
    if process.returncode != 0:
        raise Fault(f"{program} failed:\n{problem}")
    joined, later = rounds[0], {key: sum(it[key] for it in rounds[1:]) for key in rounds[0]}
    return {
        "joined": joined["rows"] / joined["seconds"],
        "updated": later["rows"] / later["seconds"],
        "joined_us": (joined["cpu_seconds"] + joined["server"]) * 1e6 / joined["rows"],
        "updated_us": (later["cpu_seconds"] + later["server"]) * 1e6 / later["rows"],
    }
