"""Load over UDP: Mika's own generator (benches/load_udp), and aquatic's."""

import json
import os
import re
import resource
import subprocess

from . import peers
from .fault import Fault
from .process import TARGET

# How long a load may take beyond its duration.
SECONDS_MAX = 900

# What a load that shares its core rests between two looks at its sockets.
REST_US = 200


def pinned(command, core, seconds=0):
    """Runs a program on a core; returns its output and its CPU seconds."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=seconds + SECONDS_MAX,
        env=os.environ | {"RUST_BACKTRACE": "0"},
        preexec_fn=lambda: os.sched_setaffinity(0, {core}),
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode != 0:
        raise Fault(f"{command[0]} failed:\n{done.stdout[-1000:]}{done.stderr[-2000:]}")
    return done.stdout, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


class Load:
    """A population that announces to any server, by load_udp on one core."""

    def __init__(self, core, peers, torrents, numwant, passkeys=None, more=()):
        self.core = core
        self.peers = peers
        self.torrents = torrents
        self._who = ["--peers", peers, "--torrents", torrents, "--numwant", numwant, *more]
        self._users = ["--passkeys", passkeys] if passkeys else []

    def hashes(self):
        """The info hashes of its torrents, in hex."""
        return self._start("hashes")[0].split()

    def fill(self, server, window=1024, completed=False):
        """Lets all peers join, seeders by `completed` if asked for, and compares the tracker's counts with the truth."""
        words = ["--completed"] if completed else []
        return self._play(server, "fill", "--window", window, *words)

    def full(self, server, seconds):
        """Announces as fast as the server answers."""
        return self._play(server, "full", "--seconds", seconds)

    def rate(self, server, seconds, rate):
        """Announces at a fixed pace."""
        return self._play(server, "rate", "--seconds", seconds, "--rate", rate)

    def paced(self, servers, seconds, rate, lap, only=None):
        """Announces to several nodes at a fixed pace, if asked for only to the first so many, on a core that others need."""
        words = ["--seconds", seconds, "--rate", rate, "--lap", lap, "--rest-us", REST_US]
        words += ["--only", only] if only else []
        return self._play(servers, "rate", *words)

    def _play(self, server, *words):
        text, cpu = self._start(*words, server=server)
        return json.loads(text) | {"cpu_seconds": cpu}

    def _start(self, *words, server=None):
        command = [TARGET / "examples" / "load_udp", *self._who]
        if server:
            servers = server if isinstance(server, list) else [server]
            command += [*self._users, "--server", ",".join(f"127.0.0.1:{one.port}" for one in servers)]
        return pinned([*command, *words], self.core)


class AquaticLoad:
    """aquatic_udp_load_test with its defaults: connects, announces and some scrapes."""

    # The length of the windows in which its figures are taken.
    SECONDS_STEP = 5

    def __init__(self, core, folder):
        self._program = peers.aquatic("aquatic_udp_load_test")
        self._core = core
        self._folder = folder
        said = subprocess.run([self._program, "-p"], capture_output=True, text=True).stdout
        self.torrents = int(number(r"number_of_torrents = (\d+)", said))
        self.peers = int(number(r"number_of_peers = (\d+)", said))

    def hashes(self):
        command = [TARGET / "examples" / "load_udp", "--torrents", self.torrents, "hashes", "--aquatic"]
        return pinned(command, self._core)[0].split()

    def full(self, server, seconds):
        """Requests as fast as the server answers; replies of all kinds."""
        config = self._folder / "load.toml"
        config.write_text(f'server_address = "127.0.0.1:{server.port}"\nduration = {seconds}\n')
        text, cpu = pinned([self._program, "-c", config], self._core, seconds)
        _, _, report = text.partition("# aquatic load test report")
        length = number(r"Test ran for (\d+) seconds", report)
        if failures := number(r"Error responses:\s+([\d.]+)", report):
            raise Fault(f"the server answered aquatic's load with {failures} errors a second")
        rate = number(r"Average responses per second: ([\d.]+)", report)
        return {
            "replies": rate * length,
            "seconds": length,
            "mean_peers": float(re.findall(r"Peers per announce response: ([\d.]+)", text)[-1]),
            "cpu_seconds": cpu,
        }


def number(pattern, text):
    found = re.search(pattern, text)
    if found is None:
        raise Fault(f"aquatic_udp_load_test does not say {pattern!r}:\n{text[-2000:]}")
    return float(found.group(1))
