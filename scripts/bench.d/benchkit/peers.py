"""Other trackers that Mika is measured beside: how to get them, and how to start them."""

import os
import shutil
import subprocess

from .fault import Fault
from .process import ROOT, Server
from .report import note

# Built by cargo as published, at the versions that figures are about.
FOLDER = ROOT / "target" / "peers"
AQUATIC_VERSION = "0.9.0"

# Longer than a benchmark: aquatic cleans at rest as well, which would disturb the others.
CLEANING = "[cleaning]\ntorrent_cleaning_interval = 86400\n"


class Aquatic(Server):
    """Its workers end when a wait of theirs is interrupted, as a SIGSTOP does."""

    can_pause = False


def aquatic(name, features=None):
    """The path of an aquatic program; builds it if it is not there. None if it can't be built with those features."""
    root = FOLDER / features if features else FOLDER
    program = root / "bin" / name
    if program.exists():
        return program
    note(f"installing {name} {AQUATIC_VERSION} into {root}: some minutes, once")
    command = ["cargo", "install", name, "--version", AQUATIC_VERSION, "--root", str(root)]
    command += ["--features", features] if features else []
    environment = os.environ | {"CARGO_TARGET_DIR": str(FOLDER / "build")}
    done = subprocess.run(command, cwd=ROOT, env=environment)
    shutil.rmtree(FOLDER / "build", ignore_errors=True)
    if done.returncode == 0:
        return program
    if features:
        note(f"{name} can't be built with {features}; left out")
        return None
    raise Fault(f"`{' '.join(command)}` failed")


def debian(program, package):
    """The path of a program that Debian has."""
    path = shutil.which(program)
    if path is None:
        raise Fault(f"{program} is missing; `apt-get install {package}` installs it")
    return path


def aquatic_udp(port, core, folder, features=None):
    """aquatic_udp with one socket worker, else as it comes. None if there is none with those features."""
    program = aquatic("aquatic_udp", features)
    if program is None:
        return None
    config = folder / f"aquatic_udp-{port}.toml"
    config.write_text(f'{CLEANING}[network]\naddress = "127.0.0.1:{port}"\n')
    try:
        return Aquatic([program, "-c", config], port, core, folder, "udp")
    except Fault as fault:
        if features is None:
            raise
        note(f"aquatic_udp with {features} does not start here; left out. {fault}")
        return None


def aquatic_http(port, allowed, folder, keep_alive):
    """aquatic_http as it comes: two threads that each want a core. None if it does not start here."""
    config = folder / f"aquatic_http-{port}.toml"
    keep_alive = "true" if keep_alive else "false"
    config.write_text(f'{CLEANING}[network]\naddress = "127.0.0.1:{port}"\nkeep_alive = {keep_alive}\n')
    try:
        return Aquatic([aquatic("aquatic_http"), "-c", config], port, allowed, folder)
    except Fault as fault:
        note(f"aquatic_http does not start here; left out. {fault}")
        return None


def opentracker(port, core, folder, hashes, protocol="udp"):
    """opentracker, which serves only the torrents of a list. It changes its root to its folder."""
    home = folder / f"opentracker-{port}"
    home.mkdir()
    home.chmod(0o755)
    (home / "whitelist").write_text("".join(f"{one}\n" for one in hashes))
    listen = ["-i", "127.0.0.1", "-p", port, "-P", port]
    command = [debian("opentracker", "opentracker"), *listen, "-d", home, "-w", "whitelist"]
    server = Server(command, port, core, folder, protocol)
    # It answers before it has read the list.
    server.wait_for_rest()
    return server
