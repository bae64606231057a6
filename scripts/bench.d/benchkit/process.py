"""Building Mika, and the servers under test: each on a core of its own, stopped by its id."""

import os
import pathlib
import signal
import socket
import subprocess
import time

from .fault import Fault

ROOT = pathlib.Path(__file__).resolve().parents[3]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "release"

START_SECONDS_MAX = 60
STOP_SECONDS_MAX = 30
LOG_TAIL_BYTES = 2000

# A server is at rest when it used less than this part of a core for so long: longer than
# Mika's flush interval, so that work which it put off is not taken for rest.
REST_CORES_MAX = 0.02
REST_WINDOW_SECONDS = 1.25
REST_SECONDS_MAX = 120


def build(*examples):
    """Builds the binaries as users do, then the named examples."""
    commands = [["cargo", "build", "--release"]]
    commands += [["cargo", "build", "--release", "--example", name] for name in examples]
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
    """A program that serves TCP on a port of 127.0.0.1, pinned to a core."""

    def __init__(self, command, port, core, folder):
        self.port = port
        self._log = folder / f"server-{port}.log"
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(
                [str(word) for word in command],
                cwd=folder,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                preexec_fn=lambda: os.sched_setaffinity(0, {core}),
            )
        try:
            self._wait_until_it_accepts()
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
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(STOP_SECONDS_MAX)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def _wait_until_it_accepts(self):
        deadline = time.monotonic() + START_SECONDS_MAX
        while time.monotonic() < deadline:
            self.check_alive()
            try:
                socket.create_connection(("127.0.0.1", self.port), 1).close()
                return
            except OSError:
                time.sleep(0.05)
        raise Fault(f"the server did not listen within {START_SECONDS_MAX} s:\n{self._log_tail()}")

    def _log_tail(self):
        return self._log.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace")
