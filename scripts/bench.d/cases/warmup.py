"""`mika-manage warmup` from MariaDB to Redis, beside `redis-cli --pipe` with the same commands.

Both fill an empty Redis, by turns; figures are medians over the rounds. The commands of the pipe
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

from benchkit.databases import MariaDb, Redis
from benchkit.fault import Fault
from benchkit.process import TARGET, build
from benchkit.report import Column, note

DATABASE = "site"
CLIENTS = 12
SECONDS_MAX = 600

# What a warmup writes beside the rows, and a pipe of rows does not.
OWN_KEYS = ("t:registry", "t:control")

COLUMNS = [
    Column("seconds", "seconds", "s", "{:.2f}", has_ratio=True),
    Column("rate", "commands/s", "commands/s", "{:,.0f}", suffix=", commands/s"),
    Column("cpu", "CPU s", "s", "{:.2f}", suffix=", CPU"),
    Column("redis_cpu", "Redis CPU s", "s", "{:.2f}", suffix=", CPU of Redis"),
    Column("peak_mib", "peak MiB", "MiB", "{:.0f}", suffix=", peak memory"),
]


def add_arguments(parser):
    parser.add_argument("--torrents", type=int, default=1_000_000, help="(default %(default)s)")
    parser.add_argument("--users", type=int, default=500_000, help="(default %(default)s)")


def run(options, report):
    if not options.no_build:
        build()
    report.columns = COLUMNS
    with ExitStack() as stack:
        folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mika-bench-")))
        redis = stack.enter_context(Redis(folder))
        mariadb = stack.enter_context(MariaDb(folder))
        warmup = [TARGET / "mika-manage", "-c", prepare(mariadb, redis, options, folder), "warmup"]
        commands = folder / "commands"
        count = write_commands(commands, options)
        note(f"{count} commands, {commands.stat().st_size >> 20} MiB")
        compare(redis, warmup, commands)
        for number in range(options.rounds):
            note(f"round {number + 1} of {options.rounds}")
            report.add("redis-cli --pipe", pipe(redis, commands, count))
            report.add("warmup", measure(redis, warmup, count), ratio_to="redis-cli --pipe")
    report.title = (
        f"Warmup of {options.torrents} torrents and {options.users} users into an empty Redis: "
        f"medians of {options.rounds} rounds"
    )


def prepare(mariadb, redis, options, folder):
    """Tables with rows as a web application has them; the config that leads to both servers."""
    config = folder / "config.json"
    storage = {"driver": "mysql", "url": mariadb.url(DATABASE)}
    config.write_text(
        json.dumps({"mode": "private", "storage": storage, "cache": {"driver": "redis", "url": redis.url}})
    )
    mariadb.sql(f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4")
    migrate = [TARGET / "mika-manage", "-c", config, "migrate"]
    done = subprocess.run(migrate, cwd=folder, capture_output=True, text=True, timeout=SECONDS_MAX)
    if done.returncode != 0:
        raise Fault(f"`mika-manage migrate` failed:\n{done.stderr}")
    note("filling the tables")
    mariadb.sql(
        f"""
        INSERT INTO users (id, passkey, username)
            SELECT seq, MD5(seq), CONCAT('user', seq) FROM seq_1_to_{options.users};
        INSERT INTO torrents (id, info_hash, release_name)
            SELECT seq, UNHEX(SHA1(seq)), CONCAT('Some.Release.', seq, '.1080p-GROUP') FROM seq_1_to_{options.torrents};
        INSERT INTO whitelist (peer_id, vstring)
            SELECT CONCAT('-C', seq, '-'), CONCAT('Client ', seq) FROM seq_1_to_{CLIENTS};
        ANALYZE TABLE users, torrents;
        """,
        DATABASE,
    )
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
        info_hash = hashlib.sha1(str(number).encode()).hexdigest()
        name = f"Some.Release.{number}.1080p-GROUP"
        fields = ["info_hash", info_hash, "torrent_id", number, "name", name]
        yield ["HSET", f"t:t:{info_hash}", *fields, "enabled", 1, "multi_up", 1, "multi_dn", 1]


def compare(redis, warmup, commands):
    """One unmeasured run of each: they have to write the same, by as many commands of each kind."""
    found = []
    for fill in (lambda: run_warmup(warmup), lambda: run_pipe(redis, commands)):
        empty(redis)
        redis.ask("CONFIG", "RESETSTAT")
        fill()
        calls = redis.calls()
        redis.ask("DEL", *OWN_KEYS)
        writes = {name: calls.get(name, 0) for name in ("hset", "set", "hsetnx", "zadd", "hdel")}
        found.append((redis.ask("DEBUG", "DIGEST"), writes))
    (digest, calls), (pipe_digest, pipe_calls) = found
    # The warmup also records how far the registry is mirrored.
    calls["hset"] -= 1
    if (digest, calls) != (pipe_digest, pipe_calls):
        raise Fault(f"the pipe does not do what the warmup does: {calls} and {pipe_calls}; digests {digest}, {pipe_digest}")
    note(f"the same data by the same commands: {calls}")


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
