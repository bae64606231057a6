"""Private database servers: each in a folder of its own, on a free port, stopped by its id."""

import hashlib
import math
import os
import pathlib
import shutil
import signal
import sqlite3
import subprocess
import time
from contextlib import closing

from .fault import Fault
from .process import free_port

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 60
LOG_TAIL_BYTES = 2000

# In a cluster, a Redis also listens 10,000 ports higher.
REDIS_PORT_MAX = 55_535


class Database:
    """What both kinds of server have in common: start, wait until it answers, stop."""

    program = ""
    package = ""
    stop_signal = signal.SIGTERM
    # Whom the server runs as, if that is not who measures.
    account = None

    def __init__(self, folder):
        if shutil.which(self.program) is None:
            raise Fault(f"{self.program} is missing: install the Debian package {self.package}")
        self.folder = pathlib.Path(folder) / self.program
        self.folder.mkdir()
        self.port = free_port()
        self._log = self.folder / "log"
        self._process = None

    def _start(self, command):
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                cwd=self.folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                user=self.account,
            )
        deadline = time.monotonic() + START_SECONDS_MAX
        while not self._answers():
            if self._process.poll() is not None or time.monotonic() > deadline:
                tail = self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
                self.stop()
                raise Fault(f"{self.program} does not start:\n{tail}")
            time.sleep(0.05)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def cpu_seconds(self):
        """What all threads of the server have used, in user and system mode."""
        return sum(ticks(self._process.pid)[:2]) / os.sysconf("SC_CLK_TCK")

    def pin(self, core):
        """Keeps all of its threads, and those to come, on that core."""
        for thread in pathlib.Path(f"/proc/{self._process.pid}/task").iterdir():
            os.sched_setaffinity(int(thread.name), {core})

    def pause(self):
        """Stops it from doing anything; its connections stay."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self):
        self._process.send_signal(signal.SIGCONT)

    def stop(self):
        if self._process.poll() is None:
            self.resume()
            self._process.send_signal(self.stop_signal)
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()


def ticks(process):
    """The CPU time of a process: user and system mode, and the same of its children that have ended."""
    stat = pathlib.Path(f"/proc/{process}/stat").read_text()
    return [int(field) for field in stat.rpartition(")")[2].split()[11:15]]


class Redis(Database):
    """A Redis that keeps everything in memory only."""

    program = "redis-server"
    package = "redis-server"

    def __init__(self, folder, *settings):
        super().__init__(folder)
        while self.port > REDIS_PORT_MAX:
            self.port = free_port()
        words = ["--bind", "127.0.0.1", "--port", self.port, "--save", "", "--enable-debug-command", "yes"]
        self._start([self.program, *words, *settings])

    @property
    def url(self):
        return f"redis://127.0.0.1:{self.port}/0"

    def command(self, *words):
        """`redis-cli` with the server's address, and these words."""
        return ["redis-cli", "-p", str(self.port), *(str(word) for word in words)]

    def ask(self, *words):
        done = subprocess.run(self.command(*words), capture_output=True, text=True, timeout=600)
        if done.returncode != 0:
            raise Fault(f"redis-cli {words[0]} failed: {done.stderr}{done.stdout}")
        return done.stdout.strip()

    def calls(self):
        """How often each command was called since `CONFIG RESETSTAT`."""
        calls = {}
        for line in self.ask("INFO", "commandstats").splitlines():
            if line.startswith("cmdstat_"):
                name, _, fields = line.strip().partition(":")
                calls[name.removeprefix("cmdstat_")] = int(fields.split(",")[0].removeprefix("calls="))
        return calls

    def _answers(self):
        done = subprocess.run(self.command("PING"), capture_output=True, text=True)
        return done.stdout.strip() == "PONG"


class MariaDb(Database):
    """A MariaDB whose root has no password."""

    program = "mariadbd"
    package = "mariadb-server"

    def __init__(self, folder, *settings):
        super().__init__(folder)
        self._socket = self.folder / "socket"
        data = self.folder / "data"
        common = ["--no-defaults", f"--datadir={data}", f"--tmpdir={data.parent}", "--user=root"]
        install = ["mariadb-install-db", *common, "--auth-root-authentication-method=normal", "--skip-test-db"]
        done = subprocess.run(install, capture_output=True, text=True)
        if done.returncode != 0:
            raise Fault(f"mariadb-install-db failed:\n{done.stdout}{done.stderr}")
        network = [f"--port={self.port}", "--bind-address=127.0.0.1", f"--socket={self._socket}"]
        sizes = ["--innodb-buffer-pool-size=1G", "--innodb-log-file-size=512M", "--innodb-flush-log-at-trx-commit=2"]
        self._start([self.program, *common, *network, *sizes, *settings])

    def url(self, database):
        return f"mysql://root@127.0.0.1:{self.port}/{database}"

    def sql(self, text, database=None):
        command = ["mariadb", "--no-defaults", "--user=root", f"--socket={self._socket}", "--batch"]
        command += [database] if database else []
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        if done.returncode != 0:
            raise Fault(f"mariadb: {done.stderr}")
        return done.stdout

    def _answers(self):
        command = ["mariadb-admin", "--no-defaults", "--user=root", f"--socket={self._socket}", "ping"]
        return subprocess.run(command, capture_output=True).returncode == 0


class Postgres(Database):
    """A PostgreSQL whose superuser has no password."""

    program = "postgres"
    package = "postgresql"
    # Without waiting for those who are connected.
    stop_signal = signal.SIGINT
    versions = pathlib.Path("/usr/lib/postgresql")
    user = "bench"

    def __init__(self, folder):
        versions = sorted(self.versions.glob("*/bin"), key=lambda it: float(it.parent.name))
        if versions:
            # Debian has the server's programs beside the path.
            os.environ["PATH"] = f"{versions[-1]}:{os.environ['PATH']}"
        super().__init__(folder)
        if os.geteuid() == 0:
            self.account = "postgres"
            shutil.chown(self.folder, self.account)
            pathlib.Path(folder).chmod(0o711)
        data = self.folder / "data"
        install = ["initdb", f"--pgdata={data}", f"--username={self.user}", "--auth=trust", "--encoding=UTF8"]
        install += ["--locale=C", "--no-sync"]
        done = subprocess.run(install, capture_output=True, text=True, user=self.account, cwd=self.folder)
        if done.returncode != 0:
            raise Fault(f"initdb failed:\n{done.stdout}{done.stderr}")
        sizes = ["shared_buffers=1GB", "max_wal_size=4GB", "synchronous_commit=off"]
        # Old rows are cleared away between two runs, and not in the middle of one.
        settings = [f"--{it}" for it in (*sizes, "autovacuum=off", f"unix_socket_directories={self.folder}")]
        self._start([self.program, "-D", data, "-h", "127.0.0.1", "-p", self.port, *settings])

    def url(self, database):
        return f"postgres://{self.user}@127.0.0.1:{self.port}/{database}"

    def sql(self, text, database="postgres"):
        command = ["psql", "--no-psqlrc", "--quiet", "--set=ON_ERROR_STOP=1", self.url(database)]
        done = subprocess.run(command, input=text, capture_output=True, text=True)
        if done.returncode != 0:
            raise Fault(f"psql: {done.stderr}")
        return done.stdout

    def cpu_seconds(self):
        """What the server and its parts have used: one process for each connection, and some of its own."""
        server = self._process.pid
        parts = pathlib.Path(f"/proc/{server}/task/{server}/children").read_text().split()
        used = sum(ticks(server))
        for part in parts:
            try:
                used += sum(ticks(part)[:2])
            except FileNotFoundError:
                pass  # It has ended just now, and is missing until the server looks.
        return used / os.sysconf("SC_CLK_TCK")

    def _answers(self):
        command = ["pg_isready", "--quiet", "-h", "127.0.0.1", "-p", str(self.port)]
        return subprocess.run(command).returncode == 0


class Sqlite:
    """A file, with the methods of a server."""

    def __init__(self, folder):
        self._file = pathlib.Path(folder) / "mika.db"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        pass

    def url(self, _database):
        return f"sqlite://{self._file}"

    def sql(self, text, _database=None):
        with closing(sqlite3.connect(self._file)) as database:
            database.create_function("md5", 1, lambda n: hashlib.md5(str(n).encode()).hexdigest())
            database.create_function("sha", 1, lambda n: hashlib.sha256(str(n).encode()).digest()[:20])
            database.create_function("floor", 1, math.floor)
            database.executescript(f"BEGIN; {text}; COMMIT;")

    def cpu_seconds(self):
        """Whoever reads the file works for it."""
        return 0
