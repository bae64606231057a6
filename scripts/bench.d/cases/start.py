"""How soon a private tracker answers after its start: from a warmed Redis, and from each database without a cache.

The same users, torrents, peers and histories are in all of them. Clients that are in the swarms announce from the
first moment on; an answer is right if it counts the peers of its torrent as the database has them.
"""

import hashlib
import json
import pathlib
import re
import socket
import tempfile
import threading
import time
from contextlib import ExitStack
from datetime import datetime
from urllib.parse import quote_from_bytes

from benchkit.databases import MariaDb, Postgres, Redis, Sqlite
from benchkit.fault import Fault
from benchkit.population import Population
from benchkit.process import TARGET, Server, build, free_port
from benchkit.report import Column, note
from benchkit.site import manage

DATABASE = "site"
SERVERS = {"mariadb": MariaDb, "postgres": Postgres, "sqlite": Sqlite}
DRIVERS = {"mariadb": "mysql", "postgres": "postgres", "sqlite": "sqlite"}
SOURCES = ["redis", *SERVERS]

CREATE = {
    "mariadb": f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4",
    "postgres": f"CREATE DATABASE {DATABASE}",
    "sqlite": None,
}

# Room for all of the rows, as a server has that is meant for them.
SIZES = {"mariadb": ["--innodb-buffer-pool-size=4G"], "postgres": [], "sqlite": []}

CLIENTS = 16
START_SECONDS_MAX = 600
RETRY_SECONDS = 0.005

ANSI = re.compile(r"\x1b\[[0-9;]*m")
COUNTS = re.compile(rb"8:completei(\d+)e.*10:incompletei(\d+)e", re.DOTALL)

COLUMNS = [
    Column("registry", "registry s", "s", "{:.2f}", suffix=", registry"),
    Column("first", "first answer s", "s", "{:.2f}", suffix=", first answer"),
    Column("last", "all answers s", "s", "{:.2f}", suffix=", all answers"),
    Column("peers", "peers s", "s", "{:.2f}", suffix=", peers"),
    Column("cpu", "CPU s", "s", "{:.2f}", suffix=", CPU"),
    Column("redis_cpu", "Redis CPU s", "s", "{:.2f}", suffix=", CPU of Redis"),
    Column("database_cpu", "database CPU s", "s", "{:.2f}", suffix=", CPU of the database"),
    Column("peak_mib", "peak MiB", "MiB", "{:.0f}", suffix=", peak memory"),
]


def add_arguments(parser):
    parser.set_defaults(rounds=3)
    parser.add_argument("--from", dest="sources", choices=SOURCES, action="append", help="only from there")
    parser.add_argument("--torrents", type=int, default=1_000_000, help="(default %(default)s)")
    parser.add_argument("--users", type=int, default=500_000, help="(default %(default)s)")
    parser.add_argument("--each", type=int, default=8, help="torrents that each user is in (default %(default)s)")
    parser.add_argument("--against", type=pathlib.Path, help="another build of mika, measured in turn")


def run(options, report):
    if not options.no_build:
        build()
    report.columns = COLUMNS
    population = Population(options.users, options.torrents, options.each)
    programs = {"": TARGET / "mika"} | ({", other build": options.against.resolve()} if options.against else {})
    for source in options.sources or SOURCES:
        with ExitStack() as stack:
            folder = pathlib.Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mika-bench-")))
            start = Start(source, population, folder, stack)
            if source == "redis":
                start.warm_up()
                report.add("redis, first after a warmup", start.measure(TARGET / "mika"))
            for number in range(options.rounds):
                note(f"{source}: round {number + 1} of {options.rounds}")
                for name, program in programs.items():
                    report.add(source + name, start.measure(program))
    report.title = (
        f"Start with {options.torrents} torrents, {options.users} users and {population.peers} peers: "
        f"medians of {options.rounds} rounds"
    )


class Start:
    """Servers with a population, and a tracker that is started on them again and again."""

    def __init__(self, source, population, folder, stack):
        self._population = population
        self._swarms = population.swarms()
        self._folder = folder
        self._port = free_port()
        database = "mariadb" if source == "redis" else source
        self._database = stack.enter_context(SERVERS[database](folder, *SIZES[database]))
        self._redis = stack.enter_context(Redis(folder)) if source == "redis" else None
        self._config = self._write_config(DRIVERS[database])
        if create := CREATE[database]:
            self._database.sql(create)
        manage(folder, self._config, "migrate")
        note(f"{source}: filling the tables")
        self._database.sql(population.fill(database), DATABASE)

    def warm_up(self):
        manage(self._folder, self._config, "warmup")

    def measure(self, program):
        """Starts the tracker, and stops it when it has everything."""
        before = self._cpu()
        begun = time.time()
        with Server([program, "-config", self._config], self._port, None, self._folder, protocol=None) as mika:
            answered = self._ask(mika)
            log = Log(mika, begun)
            if (found := log.count("swarms loaded", "seeders", "leechers")) != self._population.peers:
                raise Fault(f"{found} peers were loaded, of {self._population.peers}")
            figures = {
                "registry": log.seconds("registry loaded"),
                "first": min(answered) - begun,
                "last": max(answered) - begun,
                "peers": log.seconds("swarms loaded"),
                "cpu": mika.cpu_seconds(),
                "peak_mib": mika.peak() / (1 << 20),
            }
            after = self._cpu()
            self._wait_for_cache(mika)
        return figures | {"redis_cpu": after[0] - before[0], "database_cpu": after[1] - before[1]}

    def _wait_for_cache(self, mika):
        """Until Redis has all peers: the next start reads them there."""
        deadline = time.monotonic() + START_SECONDS_MAX
        while self._redis and self._redis.ask("HEXISTS", "t:registry", "peers") != "1":
            mika.check_alive()
            if time.monotonic() > deadline:
                raise Fault("the cache is not given the peers")
            time.sleep(1)

    def _ask(self, mika):
        """When each client was answered."""
        clients = [Client(self._port, self._population, self._swarms, number) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for client in clients:
            while client.is_alive():
                client.join(1)
                mika.check_alive()
        if problem := next(filter(None, (client.problem for client in clients)), None):
            raise Fault(problem)
        return [client.answered for client in clients]

    def _cpu(self):
        return (self._redis.cpu_seconds() if self._redis else 0, self._database.cpu_seconds())

    def _write_config(self, driver):
        cache = {"driver": "redis", "url": self._redis.url} if self._redis else {"driver": "memory"}
        config = {
            "mode": "private",
            "http": {"listen": [f"127.0.0.1:{self._port}"]},
            "udp": {"listen": []},
            "api": {"listen": []},
            # Peers that announce once, before they are read for hours.
            "tracker": {"whitelist": False, "announce_interval": "12h", "peer_ttl": "24h"},
            "cache": cache,
            "storage": {"driver": driver, "url": self._database.url(DATABASE)},
        }
        file = self._folder / "config.json"
        file.write_text(json.dumps(config))
        return file


class Client(threading.Thread):
    """A client of the population, which announces again as soon as it can connect."""

    def __init__(self, port, population, swarms, number):
        super().__init__(daemon=True)
        self._port = port
        user = 1 + number * (population.users // CLIENTS)
        torrent = population.torrent_of(user, number % population.each)
        self._expected = swarms[torrent]
        passkey = hashlib.md5(str(user).encode()).hexdigest()
        words = {
            "info_hash": quote_from_bytes(hashlib.sha256(str(torrent).encode()).digest()[:20], safe=""),
            "peer_id": f"-LT20B0-{user:012}",
            "port": 6881,
            "uploaded": 7_000_000_000 + user,
            "downloaded": 5_000_000_000,
            "left": population.left_of(number % population.each),
        }
        query = "&".join(f"{key}={value}" for key, value in words.items())
        self._request = f"GET /{passkey}/announce?{query} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"
        self.answered = None
        self.problem = None

    def run(self):
        deadline = time.monotonic() + START_SECONDS_MAX
        try:
            with self._connect(deadline) as connection:
                connection.settimeout(START_SECONDS_MAX)
                connection.sendall(self._request.encode())
                reply = b"".join(iter(lambda: connection.recv(65536), b""))
                self.answered = time.time()
        except OSError as error:
            self.problem = f"an announce has no answer: {error}"
            return
        counts = COUNTS.search(reply)
        found = sum(map(int, counts.groups())) if counts else None
        if found != self._expected:
            self.problem = f"a swarm of {self._expected} peers is said to have {found}: {reply[-300:]!r}"

    def _connect(self, deadline):
        while True:
            try:
                return socket.create_connection(("127.0.0.1", self._port), START_SECONDS_MAX)
            except ConnectionRefusedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(RETRY_SECONDS)


class Log:
    """What a tracker has logged since its start."""

    def __init__(self, mika, begun):
        self._begun = begun
        self._lines = [ANSI.sub("", line) for line in mika.log().splitlines()]

    def seconds(self, text):
        """When it logged that line."""
        return datetime.fromisoformat(self._line(text).split()[0].replace("Z", "+00:00")).timestamp() - self._begun

    def count(self, text, *names):
        """The sum of these numbers in a line."""
        found = [re.search(rf"\b{name}=(\d+)", self._line(text)) for name in names]
        return sum(int(number.group(1)) for number in found)

    def _line(self, text):
        for line in self._lines:
            if text in line:
                return line
        raise Fault(f"the log has no line with {text!r}:\n" + "\n".join(self._lines[-20:]))
