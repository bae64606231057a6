"""`mika-manage warmup` from MariaDB and PostgreSQL to Redis, beside `redis-cli --pipe` with the same commands.

All fill an empty Redis, by turns; figures are medians over the rounds. The commands of the pipe
are generated, and held to those of the warmup: as many of each kind, and the same data after it.
"""

import hashlib
import json
import os
import pathlib
import subprocess
import tempfile
import time
from contextlib import ExitStack

from benchkit.databases import MariaDb, Postgres, Redis
from benchkit.fault import Fault
from benchkit.process import TARGET, build
from benchkit.report import Column, note
from benchkit.site import manage

DATABASE = "site"
CLIENTS = 12

FILL = {
    "mariadb": """
        INSERT INTO users (id, passkey, username)
            SELECT seq, MD5(seq), CONCAT('user', seq) FROM seq_1_to_{users};
        INSERT INTO torrents (id, info_hash, release_name)
            SELECT seq, UNHEX(LEFT(SHA2(seq, 256), 40)), CONCAT('Some.Release.', seq, '.1080p-GROUP')
            FROM seq_1_to_{torrents};
        INSERT INTO whitelist (peer_id, vstring)
            SELECT CONCAT('-C', seq, '-'), CONCAT('Client ', seq) FROM seq_1_to_{clients};
        ANALYZE TABLE users, torrents;
    """,
    "postgres": """
        SET session_replication_role = replica; -- without triggers
        INSERT INTO users (id, passkey, username)
            SELECT n, md5(n::text), 'user' || n FROM generate_series(1, {users}) AS it (n);
        INSERT INTO torrents (id, info_hash, release_name)
            SELECT n, substring(sha256(n::text::bytea) FOR 20), 'Some.Release.' || n || '.1080p-GROUP'
            FROM generate_series(1, {torrents}) AS it (n);
        INSERT INTO whitelist (peer_id, vstring)
            SELECT '-C' || n || '-', 'Client ' || n FROM generate_series(1, {clients}) AS it (n);
        VACUUM ANALYZE;
    """,
}

# What a warmup writes beside the rows, and a pipe of rows does not.
OWN_KEYS = ("t:registry", "t:control")
OWN_WRITES_MAX = 100

COLUMNS = [
    Column("seconds", "seconds", "s", "{:.2f}", has_ratio=True),
    Column("rate", "commands/s", "commands/s", "{:,.0f}", suffix=", commands/s"),
    Column("cpu", "CPU s", "s", "{:.2f}", suffix=", CPU"),
    Column("redis_cpu", "Redis CPU s", "s", "{:.2f}", suffix=", CPU of Redis"),
    Column("peak_mib", "peak MiB", "MiB", "{:.0f}", suffix=", peak memory"),
]


def add_arguments(parser):
    parser.add_argument("--driver", choices=FILL, action="append", help="only from this database")
    parser.add_argument("--torrents", type=int, default=1_000_000, help="(default %(default)s)")
    parser.add_argument("--users", type=int, default=500_000, help="(default %(default)s)")


def run(options, report):
    if not options.no_build:
        build()
    report.columns = COLUMNS
    with ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mika-bench-")))
        redis = stack.enter_context(Redis(folder))
        drivers = options.driver or list(FILL)
        warmups = {}
        for driver in drivers:
            server = stack.enter_context({"mariadb": MariaDb, "postgres": Postgres}[driver](folder))
            config = prepare(driver, server, redis, options, folder)
            warmups[f"warmup, {driver}"] = [TARGET / "mika-manage", "-c", config, "warmup"]
        commands = folder / "commands"
        count = write_commands(commands, options)
        note(f"{count} commands, {commands.stat().st_size >> 20} MiB")
        compare(redis, warmups, commands)
        for number in range(options.rounds):
            note(f"round {number + 1} of {options.rounds}")
            report.add("redis-cli --pipe", pipe(redis, commands, count))
            for case, command in warmups.items():
                report.add(case, measure(redis, command, count), ratio_to="redis-cli --pipe")
    if len(warmups) > 1:
        report.beside("warmup, postgres", ["warmup, mariadb"])
    report.title = (
        f"Warmup of {options.torrents} torrents and {options.users} users into an empty Redis: "
        f"medians of {options.rounds} rounds"
    )


def prepare(driver, server, redis, options, folder):
    """Tables with rows as a web application has them; the config that leads to both servers."""
    config = folder / f"{driver}.json"
    storage = {"driver": "mysql" if driver == "mariadb" else driver, "url": server.url(DATABASE)}
    config.write_text(
        json.dumps({"mode": "private", "storage": storage, "cache": {"driver": "redis", "url": redis.url}})
    )
    server.sql(f"CREATE DATABASE {DATABASE}" + (" CHARACTER SET utf8mb4" if driver == "mariadb" else ""))
    manage(folder, config, "migrate")
    note(f"{driver}: filling the tables")
    server.sql(FILL[driver].format(users=options.users, torrents=options.torrents, clients=CLIENTS), DATABASE)
    return config


def write_commands(file, options):
    """What a warmup sends for these rows, in Redis' protocol; returns how many commands these are."""
    count = 0
    with file.open("wb", buffering=1 << 20) as out:
        for words in commands_of(options):
            parts = [b"*%d\r\n" % len(words)]
            for word in words:
                word = str(word).encode()
                parts.append(b"$%d\r\n%b\r\n" % (len(word), word))
            out.write(b"".join(parts))
            count += 1
    return count


def commands_of(options):
    clients = range(1, CLIENTS + 1)
    yield ["HSET", "t:whitelist", *(word for number in clients for word in (f"-C{number}-", f"Client {number}"))]
    for number in range(1, options.users + 1):
        passkey = hashlib.md5(str(number).encode()).hexdigest()
        fields = ["user_id", number, "passkey", passkey, "username", f"user{number}", "enabled", 1, "can_leech", 1]
        yield ["HSET", f"t:u:{number}", *fields]
        yield ["SET", f"t:user:{passkey}", number]
    for number in range(1, options.torrents + 1):
        info_hash = hashlib.sha256(str(number).encode()).hexdigest()[:40]
        name = f"Some.Release.{number}.1080p-GROUP"
        fields = ["info_hash", info_hash, "torrent_id", number, "name", name]
        yield ["HSET", f"t:t:{info_hash}", *fields, "enabled", 1, "multi_up", 1, "multi_dn", 1]


def compare(redis, warmups, commands):
    """One unmeasured run of each: they have to write the same, by as many commands of each kind."""
    expected = written(redis, lambda: run_pipe(redis, commands))
    for case, command in warmups.items():
        found = written(redis, lambda: run_warmup(command))
        # The warmup also records how far the registry is mirrored, and that it is still at work.
        own_writes = found["hset"] - expected["hset"]
        if found != expected | {"hset": found["hset"]} or own_writes not in range(OWN_WRITES_MAX):
            raise Fault(f"the pipe does not do what {case!r} does: {expected} and {found}")
    note(f"the same data by the same commands: {expected}")


def written(redis, fill):
    """How many commands of each kind that write an empty Redis gets, and the digest of its data."""
    empty(redis)
    redis.ask("CONFIG", "RESETSTAT")
    fill()
    calls = redis.calls()
    redis.ask("DEL", *OWN_KEYS)
    writes = {name: calls.get(name, 0) for name in ("hset", "set", "hsetnx", "zadd", "hdel")}
    return writes | {"digest": redis.ask("DEBUG", "DIGEST")}


def measure(redis, warmup, count):
    empty(redis)
    before = redis.cpu_seconds()
    seconds, usage = run_warmup(warmup)
    return figures(seconds, usage, redis.cpu_seconds() - before, count)


def pipe(redis, commands, count):
    empty(redis)
    before = redis.cpu_seconds()
    seconds, usage = run_pipe(redis, commands)
    return figures(seconds, usage, redis.cpu_seconds() - before, count)


def figures(seconds, usage, redis_cpu, count):
    return {
        "seconds": seconds,
        "rate": count / seconds,
        "cpu": usage.ru_utime + usage.ru_stime,
        "redis_cpu": redis_cpu,
        "peak_mib": usage.ru_maxrss / 1024,
    }


def empty(redis):
    redis.ask("FLUSHALL", "SYNC")


def run_warmup(command):
    return timed(command, subprocess.DEVNULL)


def run_pipe(redis, commands):
    with commands.open("rb") as source:
        return timed(redis.command("--pipe"), source)


def timed(command, source):
    """Seconds that a program takes, and its CPU time and memory."""
    start = time.monotonic()
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen([str(word) for word in command], stdin=source, stdout=said, stderr=said)
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.monotonic() - start
        process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        text = said.read().decode(errors="replace")
    if process.returncode != 0 or "errors: 0" not in text and "--pipe" in command:
        raise Fault(f"{command[0]} failed:\n{text}")
    return seconds, usage
