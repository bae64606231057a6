"""Nodes that share Redis and MariaDB, and what they and these use."""

import json
import secrets
import subprocess
import time
from contextlib import ExitStack

from . import site
from .databases import Redis
from .fault import Fault
from .process import TARGET, Server, free_port
from .resp import Connection

MASTERS = 3
FORM_SECONDS_MAX = 30

# A user may be in a popular swarm with more clients than is usual.
CLIENTS_MAX = 100

# At rest, the database writes no more rows in a second (leases, the numbers of batches), twice in a row.
REST_ROWS_MAX = 20
REST_LOOKS = 2
REST_SECONDS_MAX = 300

SWARMS_SAMPLED = 2000

# What MariaDB counts of the rows that it writes.
ROWS = ("Handler_write", "Handler_update", "Handler_delete")


class Cache:
    """One Redis, or a cluster of three masters."""

    def __init__(self, folder, is_cluster, stack):
        settings = ["--cluster-enabled", "yes"] if is_cluster else []
        self.servers = []
        for number in range(MASTERS if is_cluster else 1):
            own = folder / f"redis-{number}"
            own.mkdir()
            self.servers.append(stack.enter_context(Redis(own, *settings)))
        self.url = self.servers[0].url
        if is_cluster:
            self._form()
            self.url = "redis+cluster://" + ",".join(f"127.0.0.1:{server.port}" for server in self.servers)

    def _form(self):
        first = self.servers[0]
        addresses = [f"127.0.0.1:{server.port}" for server in self.servers]
        create = first.command("--cluster", "create", *addresses, "--cluster-yes")
        done = subprocess.run(create, capture_output=True, text=True)
        deadline = time.monotonic() + FORM_SECONDS_MAX
        while any("cluster_state:ok" not in server.ask("CLUSTER", "INFO") for server in self.servers):
            if time.monotonic() > deadline:
                raise Fault(f"the Redis Cluster does not form:\n{done.stdout}{done.stderr}")
            time.sleep(0.1)

    def used(self):
        """Commands, bytes and CPU seconds since its start."""
        sums = dict.fromkeys(("commands", "bytes_in", "bytes_out", "cpu_seconds"), 0)
        for server in self.servers:
            with Connection(server.port) as redis:
                stats = redis.info("stats")
                sums["commands"] += sum(server.calls().values())
            sums["bytes_in"] += int(stats["total_net_input_bytes"])
            sums["bytes_out"] += int(stats["total_net_output_bytes"])
            sums["cpu_seconds"] += server.cpu_seconds()
        return sums

    def peer_bytes(self):
        """Memory of Redis for a peer in its swarm: the mean of some."""
        size = peers = 0
        for server in self.servers:
            with Connection(server.port) as redis:
                for key in redis.keys("t:p:*")[:SWARMS_SAMPLED]:
                    size += redis.ask("MEMORY", "USAGE", key)
                    peers += redis.ask("HLEN", key)
        return size / peers

    def journals(self):
        """The last number of each journal, with the server that has it."""
        found = {}
        for server in self.servers:
            with Connection(server.port) as redis:
                for key in redis.keys("t:journal:*"):
                    info = redis.ask("XINFO", "STREAM", key)
                    found[server.port, key] = info[info.index(b"last-generated-id") + 1]
        return found

    def journaled(self, since):
        """Batches, changes and bytes in all journals after those numbers."""
        sums = {"batches": 0, "changes": 0, "bytes": 0}
        for (port, key), last in self.journals().items():
            first = int(since.get((port, key), b"0-0").split(b"-")[0]) + 1
            with Connection(port) as redis:
                for at in range(first, int(last.split(b"-")[0]) + 1):
                    for _, fields in redis.ask("XRANGE", key, at, at):
                        sums["batches"] += 1
                        sums["changes"] += int(fields[fields.index(b"count") + 1])
                        sums["bytes"] += sum(map(len, fields))
        return sums


class Cluster:
    """Some nodes of one mode with a cache and a database of their own; `passkeys` only if private."""

    def __init__(self, mode, nodes, cache, mariadb, folder, stack):
        self.mode = mode
        self.cache = cache
        self._mariadb = mariadb
        self._database = f"site{folder.name}".replace("-", "_")
        self.folder = folder
        mariadb.sql(f"CREATE DATABASE {self._database} CHARACTER SET utf8mb4")
        self._ports = [free_port() for _ in range(nodes)]
        self._configs = [self._write_config(number) for number in range(nodes)]
        self.passkeys = []
        self.nodes = []
        self._stack = stack
        site.manage(folder, self._configs[0], "migrate")

    def register(self, users, hashes):
        """Users and torrents of a private tracker, by plain SQL."""
        self.passkeys = [secrets.token_hex(16) for _ in range(users)]
        rows = ", ".join(f"('{passkey}', 'user{number}')" for number, passkey in enumerate(self.passkeys))
        releases = ", ".join(f"(X'{info_hash}', 'release.{number}')" for number, info_hash in enumerate(hashes))
        self._mariadb.sql(
            f"INSERT INTO users (passkey, username) VALUES {rows};"
            f"INSERT INTO torrents (info_hash, release_name) VALUES {releases};",
            self._database,
        )

    def start(self, cores):
        site.manage(self.folder, self._configs[0], "warmup")
        for port, config in zip(self._ports, self._configs):
            command = [TARGET / "mika", "-config", config, "-procs", 1]
            self.nodes.append(self._stack.enter_context(Server(command, port, cores, config.parent, "udp")))

    def rows(self):
        """Rows that the database has inserted, updated and deleted since its start."""
        names = ", ".join(f"'{name}'" for name in ROWS)
        lines = self._mariadb.sql(f"SHOW GLOBAL STATUS WHERE Variable_name IN ({names})").splitlines()[1:]
        if len(lines) != len(ROWS):
            raise Fault(f"MariaDB does not say how many rows it has written: {lines}")
        return sum(int(line.split()[1]) for line in lines)

    def wait_for_rest(self):
        """Waits until storage has what was announced, so that only what nodes do all the time goes on."""
        deadline = time.monotonic() + REST_SECONDS_MAX
        rests, before = 0, self.rows()
        while rests < REST_LOOKS:
            if time.monotonic() > deadline:
                raise Fault(f"storage is still at work {REST_SECONDS_MAX} s after the load ended")
            time.sleep(1)
            now = self.rows()
            rests = rests + 1 if now - before <= REST_ROWS_MAX else 0
            before = now

    def _write_config(self, number):
        folder = self.folder / f"node-{number}"
        folder.mkdir()
        config = {
            "node": f"node-{number}",
            "mode": self.mode,
            "http": {"listen": []},
            "udp": {"listen": [f"127.0.0.1:{self._ports[number]}"]},
            "api": {"listen": []},
            "tracker": {"whitelist": False, "max_peers_per_user": CLIENTS_MAX},
            "cache": {"driver": "redis", "url": self.cache.url},
            "storage": {"driver": "mysql", "url": self._mariadb.url(self._database)},
            "journal": {"spill": str(folder / "journal.db")},
        }
        file = folder / "config.json"
        file.write_text(json.dumps(config))
        return file
