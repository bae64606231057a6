"""How many rows storage applies a second: SQLite, MariaDB and PostgreSQL, new rows and updates, beside the floor.

A private tracker's changes in the batches of its journal, applied as the daemon applies them: full transactions,
one after the other. The floor is the same rows by the database's own bulk way. With --against the same is measured
with another build of the same program in place of the floor, by turns.
"""

import json
import pathlib
import sqlite3
import subprocess
import tempfile
from contextlib import ExitStack, closing

from benchkit.databases import MariaDb, Postgres
from benchkit.fault import Fault
from benchkit.process import TARGET, build
from benchkit.report import Column, note
from benchkit.site import manage

PROGRAM = "apply_rows"
DATABASE = "bench"

COLUMNS = [
    Column("joined", "new rows/s", "rows/s", "{:,.0f}", suffix=", new", has_ratio=True),
    Column("updated", "updates/s", "rows/s", "{:,.0f}", has_ratio=True),
    Column("joined_us", "CPU us, new", "us/row", "{:.1f}", suffix=", CPU, new", has_ratio=True),
    Column("updated_us", "CPU us, update", "us/row", "{:.1f}", suffix=", CPU", has_ratio=True),
]

# Users of the histories that are there before are numbered from here on.
OTHERS_FROM = 1_000_000_000
HISTORIES = """
    INSERT INTO history (torrent_id, user_id, uploaded, downloaded, seed_time, announces, first_announce, last_announce)
    SELECT {torrent}, {user}, {number} * 1000003, 1073741824, 86400, 48, 1790000000, 1790086400 FROM {numbers}
"""
TABLES = ("peers", "users", "torrents", "mika_journal", "mika_feed")


class Sqlite:
    """A file of SQLite."""

    driver = "sqlite"

    def __init__(self, folder):
        self._file = folder / "sqlite.db"
        self.url = f"sqlite://{self._file}"

    def fill(self, count, torrents):
        numbers = f"(WITH RECURSIVE it (n) AS (SELECT 0 UNION ALL SELECT n + 1 FROM it WHERE n < {count - 1}) SELECT n FROM it)"
        self._run([histories("n", numbers, torrents, count, "/")])

    def empty(self, users):
        statements = [f"DELETE FROM {table}" for table in TABLES]
        self._run([*statements, f"DELETE FROM history WHERE user_id <= {users}"])

    def cpu_seconds(self):
        return 0

    def _run(self, statements):
        with closing(sqlite3.connect(self._file)) as connection:
            for statement in statements:
                connection.execute(statement)
            connection.commit()
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()


class Mariadb:
    """A database of a MariaDB."""

    driver = "mysql"

    def __init__(self, server):
        self._server = server
        self.url = server.url(DATABASE)
        self.cpu_seconds = server.cpu_seconds
        server.sql(f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4")

    def fill(self, count, torrents):
        self._server.sql(histories("seq", f"seq_0_to_{count - 1}", torrents, count, "DIV"), DATABASE)

    def empty(self, users):
        statements = [f"TRUNCATE {table}" for table in TABLES]
        statements += [f"DELETE FROM history WHERE user_id <= {users}", "SET GLOBAL innodb_max_purge_lag_wait = 0"]
        self._server.sql(";".join(statements), DATABASE)


class Postgresql:
    """A database of a PostgreSQL."""

    driver = "postgres"

    def __init__(self, server):
        self._server = server
        self.url = server.url(DATABASE)
        self.cpu_seconds = server.cpu_seconds
        server.sql(f"CREATE DATABASE {DATABASE}")

    def fill(self, count, torrents):
        numbers = f"generate_series(0, {count - 1}) AS it (n)"
        self._server.sql(histories("n::bigint", numbers, torrents, count, "/"), DATABASE)
        self._server.sql("VACUUM ANALYZE", DATABASE)

    def empty(self, users):
        statements = [f"TRUNCATE {', '.join(TABLES)}", f"DELETE FROM history WHERE user_id <= {users}"]
        self._server.sql("; ".join([*statements, "VACUUM; CHECKPOINT"]), DATABASE)


def histories(number, numbers, torrents, count, divide):
    """The statement that makes histories, in the order of their key: as many of each torrent."""
    each = -(-count // torrents)
    return HISTORIES.format(
        torrent=f"{number} {divide} {each} + 1",
        user=f"{number} % {each} + {OTHERS_FROM}",
        number=number,
        numbers=numbers,
    )


DRIVERS = {
    "sqlite": lambda stack, folder: Sqlite(folder),
    "mariadb": lambda stack, folder: Mariadb(stack.enter_context(MariaDb(folder))),
    "postgres": lambda stack, folder: Postgresql(stack.enter_context(Postgres(folder))),
}


def add_arguments(parser):
    parser.set_defaults(rounds=3)
    parser.add_argument("--driver", choices=DRIVERS, action="append", help="only this database")
    parser.add_argument("--against", type=pathlib.Path, metavar="FILE", help=f"another build of {PROGRAM}")
    parser.add_argument("--peers", type=int, default=100_000, help="(default %(default)s)")
    parser.add_argument("--torrents", type=int, default=20_000, help="(default %(default)s)")
    parser.add_argument("--users", type=int, default=5000, help="(default %(default)s)")
    parser.add_argument(
        "--histories", type=int, default=5_000_000, help="that are there before (default %(default)s)"
    )


def run(options, report):
    if not options.no_build:
        build(PROGRAM)
    report.columns = COLUMNS
    program = [TARGET / "examples" / PROGRAM]
    if options.against:
        programs = {", other build": [options.against], "": program}
    else:
        programs = {", floor": [*program, "--floor"], "": program}
    base, _ = programs
    sizes = [options.peers, options.torrents, options.users]
    for driver in options.driver or DRIVERS:
        with ExitStack() as stack:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mika-bench-")))
            database = DRIVERS[driver](stack, folder)
            config = folder / "config.json"
            config.write_text(json.dumps({"storage": {"driver": database.driver, "url": database.url}}))
            manage(folder, config, "migrate")
            if options.histories > 0:
                note(f"{driver}: filling the tables")
                database.fill(options.histories, options.torrents)
            for number in range(options.rounds):
                note(f"{driver}: round {number + 1} of {options.rounds}")
                for suffix, words in programs.items():
                    database.empty(options.users)
                    figures = measure([*words, database.driver, database.url, *sizes], database.cpu_seconds)
                    report.add(driver + suffix, figures, ratio_to=None if suffix == base else driver + base)
    report.title = (
        f"Rows applied of {options.peers} peers in {options.torrents} torrents, beside {options.histories} histories: "
        f"medians of {options.rounds} rounds"
    )


def measure(command, server_cpu):
    """Both kinds of rows; of a server, what it used since the round before counts, too."""
    command = [str(word) for word in command]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        rounds, used = [], server_cpu()
        for line in process.stdout:
            before, used = used, server_cpu()
            figures = json.loads(line)
            if "rows" in figures:
                rounds.append(figures | {"server": used - before})
        problem = process.stderr.read()
    if process.returncode != 0:
        raise Fault(f"{command[0]} failed:\n{problem}")
    joined, later = rounds[0], {key: sum(it[key] for it in rounds[1:]) for key in rounds[0]}
    return {
        "joined": joined["rows"] / joined["seconds"],
        "updated": later["rows"] / later["seconds"],
        "joined_us": (joined["cpu_seconds"] + joined["server"]) * 1e6 / joined["rows"],
        "updated_us": (later["cpu_seconds"] + later["server"]) * 1e6 / later["rows"],
    }
