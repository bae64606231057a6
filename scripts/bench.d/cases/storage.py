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
SECONDS_MAX = 900

COLUMNS = [
    Column("joined", "new rows/s", "rows/s", "{:,.0f}", suffix=", new", has_ratio=True),
    Column("updated", "updates/s", "rows/s", "{:,.0f}", has_ratio=True),
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
                base = f"{driver}, other build" if options.against else None
                for suffix, program in programs.items():
                    case = driver + suffix
                    figures = measure(program, database(driver, mariadb, folder), sizes)
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


def measure(program, words, sizes):
    done = subprocess.run([str(program), *words, *sizes], capture_output=True, text=True, timeout=SECONDS_MAX)
    if done.returncode != 0:
        raise Fault(f"{program} failed:\n{done.stderr}")
    joined, *later = (json.loads(line) for line in done.stdout.splitlines())
    updated, seconds = (sum(line[key] for line in later) for key in ("rows", "seconds"))
    return {"joined": joined["rows"] / joined["seconds"], "updated": updated / seconds}
