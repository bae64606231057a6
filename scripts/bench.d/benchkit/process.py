"""Building Mika, and the servers under test: each on a core of its own, stopped by its id."""

import os
import pathlib
import signal
import socket
import struct
import subprocess
import time

from .fault import Fault

ROOT = pathlib.Path(__file__).resolve().parents[3]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "dist"

CONNECT_REQUEST = struct.pack(">QII", 0x41727101980, 0, 1)

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
LOG_TAIL_BYTES = 2000

# Of a thread's context switches, in its `status`.
SWITCHES = ("voluntary_ctxt_switches", "nonvoluntary_ctxt_switches")

# A server is at rest when it used less than this part of a core for so long: longer than
# Mika's flush interval, so that deferred work does not look like rest.
REST_CORES_MAX = 0.02
REST_WINDOW_SECONDS = 1.25
REST_SECONDS_MAX = 120


def build(*examples):
    """Builds the binaries as packages have them, then the named examples."""
    commands = [["cargo", "build", "--profile", "dist"]]
    commands += [["cargo", "build", "--profile", "dist", "--example", name] for name in examples]
    for command in commands:
        if subprocess.run(command, cwd=ROOT).returncode != 0:
            raise Fault(f"`{' '.join(command)}` failed")


def cores():
    """The core of the server under test, and the core of the load."""
    allowed = sorted(os.sched_getaffinity(0))
    if len(allowed) < 2:
        raise Fault("needs two cores: one for the server, one for the load")
    return allowed[-1], allowed[0]


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """A program that serves TCP or UDP on a port of 127.0.0.1, pinned to one core or several, or to none.

    It answers by then, unless there is no protocol by which to ask.
    """

    # Whether it goes on after a SIGSTOP and a SIGCONT.
    can_pause = True

    def __init__(self, command, port, core, folder, protocol="tcp"):
        self.port = port
        self._answers = {"tcp": accepts, "udp": answers_to_connect, None: lambda _: True}[protocol]
        pinned = {core} if isinstance(core, int) else set(core or os.sched_getaffinity(0))
        self._log = folder / f"server-{port}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=lambda: os.sched_setaffinity(0, pinned),
            )
        try:
            self._wait_until_it_answers()
        except BaseException:
            self.stop()
            raise

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.stop()

    def cpu_seconds(self):
        """What all threads of the process have used, in user and system mode."""
        stat = pathlib.Path(f"/proc/{self._process.pid}/stat").read_text()
        fields = stat.rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def thread_seconds(self):
        """The CPU time of its present threads, to the nanosecond; `cpu_seconds` counts in hundredths of a second."""
        folder = pathlib.Path(f"/proc/{self._process.pid}/task")
        return sum(int((thread / "schedstat").read_text().split()[0]) for thread in folder.iterdir()) / 1e9

    def threads(self):
        """What each of its present threads has used, in seconds, with its name and its context switches, by number."""
        found = {}
        for thread in pathlib.Path(f"/proc/{self._process.pid}/task").iterdir():
            seconds = int((thread / "schedstat").read_text().split()[0]) / 1e9
            switches = sum(number(thread / "status", key) for key in SWITCHES)
            found[thread.name] = ((thread / "comm").read_text().strip(), seconds, switches)
        return found

    def memory(self):
        """Resident bytes, and the same with what is shared with others counted in part."""
        folder = pathlib.Path(f"/proc/{self._process.pid}")
        return number(folder / "status", "VmRSS") << 10, number(folder / "smaps_rollup", "Pss") << 10

    def peak(self):
        """The most bytes that were resident."""
        return number(pathlib.Path(f"/proc/{self._process.pid}/status"), "VmHWM") << 10

    def log(self):
        """What it has written by now."""
        return self._log.read_text(errors="replace")

    def pause(self):
        """Stops it from doing anything, so that it does not disturb a run of another."""
        self._process.send_signal(signal.SIGSTOP)

    def resume(self):
        self._process.send_signal(signal.SIGCONT)

    def wait_for_rest(self):
        """Waits until the server has done what it put off, for example writing its journal."""
        deadline = time.monotonic() + REST_SECONDS_MAX
        while time.monotonic() < deadline:
            before = self.cpu_seconds()
            time.sleep(REST_WINDOW_SECONDS)
            self.check_alive()
            if self.cpu_seconds() - before < REST_CORES_MAX * REST_WINDOW_SECONDS:
                return
        raise Fault(f"the server is still at work {REST_SECONDS_MAX} s after the load ended")

    def check_alive(self):
        if self._process.poll() is not None:
            raise Fault(f"the server ended by itself; its last words:\n{self._log_tail()}")

    def stop(self):
        if self._process.poll() is None:
            self.resume()
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_it_answers(self):
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            self.check_alive()
            if self._answers(self.port):
                return
            time.sleep(0.05)
        raise Fault(f"the server did not answer within {START_SECONDS_MAX} s:\n{self._log_tail()}")

    def _log_tail(self):
        return self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")


def accepts(port):
    try:
        socket.create_connection(("127.0.0.1", port), 1).close()
        return True
    except OSError:
        return False


def answers_to_connect(port):
    """Whether a connect request of BEP 15 is answered."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as client:
        client.settimeout(0.5)
        try:
            client.connect(("127.0.0.1", port))
            client.send(CONNECT_REQUEST)
            return len(client.recv(64)) == 16
        except OSError:
            return False


def number(file, key):
    """The value of a line like `VmRSS:   1234 kB`."""
    for line in file.read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return int(value.split()[0])
    raise Fault(f"{file} has no {key}")


class OneAtATime:
    """Servers that share a core: all but the one in turn are stopped, if they can bear it."""

    def __init__(self, servers):
        self._servers = [server for server in servers if server.can_pause]
        for server in self._servers:
            server.pause()

    def turn(self, server):
        """Lets only this one run; none of them for None."""
        for other in self._servers:
            if other is not server:
                other.pause()
        if server in self._servers:
            server.resume()
