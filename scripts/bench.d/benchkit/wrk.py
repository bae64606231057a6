"""Load by wrk, which sends the announces of a population from a file."""

import json
import os
import pathlib
import resource
import shutil
import struct
import subprocess

from .announces import TOTALS_DIGITS
from .fault import Fault

SCRIPT = pathlib.Path(__file__).with_name("announce.lua")

# The form of the file, as announce.lua reads it.
RECORD_BYTES = 512
HEADER = struct.Struct("<HHH")

# What totals grow by with each request of anybody: so a peer's credit is this times the
# population, far below what rule A7 believes, and totals never go back between runs.
STEP_BYTES = 1000

# Totals have the same number of digits from the first run to the last.
FIRST_POSITION = 10 ** (TOTALS_DIGITS - 1) // STEP_BYTES


class Load:
    """A population announcing to any server, over and over, from where it stopped before."""

    def __init__(self, population, folder, core):
        if shutil.which("wrk") is None:
            raise Fault("wrk is missing: install the Debian package `wrk`")
        self.population = population
        self._folder = folder
        self._core = core
        self._position = FIRST_POSITION

    @property
    def totals(self):
        """What a peer reports as its uploaded and downloaded bytes now."""
        return self._position * STEP_BYTES

    def run(self, port, seconds, connections, connection, rate=None, silent_close=False):
        """Runs wrk once: replies, seconds, delays, and the CPU seconds of wrk itself.

        With a rate (requests a second) connections rest between their requests. A server with a
        silent close ends its connections without a header that says so, which wrk calls an error.
        """
        words = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", "--timeout", "10s", "-s", SCRIPT]
        words += [f"http://127.0.0.1:{port}", "--", self._file(connection), self._position, STEP_BYTES]
        words += [round(connections * 1000 / rate)] if rate else []
        before = children_cpu_seconds()
        done = subprocess.run(
            [str(word) for word in words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds + 60,
            preexec_fn=lambda: os.sched_setaffinity(0, {self._core}),
        )
        if done.returncode != 0 or not done.stdout:
            raise Fault(f"wrk failed:\n{done.stdout}{done.stderr}")
        result = json.loads(done.stdout.splitlines()[-1])
        result["cpu_seconds"] = children_cpu_seconds() - before
        self._position += result["requests"] + connections
        if silent_close and result["errors"]["read"] <= result["requests"] + connections:
            result["errors"]["read"] = 0
        if result["requests"] == 0 or any(result["errors"].values()):
            raise Fault(f"wrk saw errors: {result['errors']} beside {result['requests']} replies")
        return result

    def warm_up(self, port, connections, connection="keep-alive", silent_close=False):
        """Lets every peer announce once, at least: joins are not what the figures are about."""
        first = self._position
        while self._position - first < len(self.population) * 1.1:
            self.run(port, 2, connections, connection, silent_close=silent_close)

    def _file(self, connection):
        path = self._folder / f"requests-{connection}"
        if not path.exists():
            with path.open("wb") as file:
                for peer in self.population:
                    file.write(record(peer.request(self.totals, connection), self.totals))
        return path


def record(request, totals):
    digits = str(totals)
    first = request.index(digits)
    second = request.index(digits, first + TOTALS_DIGITS)
    packed = HEADER.pack(len(request), first, second) + request.encode()
    if len(packed) > RECORD_BYTES:
        raise Fault(f"a request is longer than the {RECORD_BYTES} bytes of a record: {request}")
    return packed.ljust(RECORD_BYTES, b"\0")


def children_cpu_seconds():
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime
