"""Mika as the server under test: its config, and what a private one has in its tables."""

import json
import secrets
import sqlite3
import subprocess

from . import announces
from .fault import Fault
from .process import TARGET, Server

MIGRATE_SECONDS_MAX = 60


def write_config(folder, mode, http=None, udp=None, more_http=None, api=None, **tracker):
    """The config of one that keeps everything in memory and SQLite; returns its file."""
    config = {
        "mode": mode,
        "http": {"listen": [f"127.0.0.1:{http}"] if http else []} | (more_http or {}),
        "udp": {"listen": [f"127.0.0.1:{udp}"] if udp else []},
        "api": api or {"listen": []},
        "tracker": {"whitelist": False, "auto_register": mode == "public"} | tracker,
        "cache": {"driver": "memory"},
        "storage": {"driver": "sqlite", "url": f"sqlite://{folder}/mika.db"},
    }
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    return file


def start(config, port, core, folder, protocol="tcp", program=TARGET / "mika", procs=1):
    return Server([program, "-config", config, "-procs", procs], port, core, folder, protocol)


def genkey(folder):
    """A key and a certificate as `mika-manage genkey` makes them; returns their files."""
    key, cert = folder / "key.pem", folder / "cert.pem"
    config = folder / "genkey.json"
    config.write_text(json.dumps({"api": {"tls": {"key": str(key), "cert": str(cert)}}}))
    manage = [TARGET / "mika-manage", "-c", config, "genkey"]
    done = subprocess.run(manage, cwd=folder, capture_output=True, text=True, timeout=MIGRATE_SECONDS_MAX)
    if done.returncode != 0:
        raise Fault(f"`mika-manage genkey` failed:\n{done.stderr}")
    return key, cert


def register(folder, config, users, hashes):
    """Users and torrents in the tables of a private one, by plain SQL; returns the passkeys."""
    migrate = [TARGET / "mika-manage", "-c", config, "migrate"]
    done = subprocess.run(migrate, cwd=folder, capture_output=True, text=True, timeout=MIGRATE_SECONDS_MAX)
    if done.returncode != 0:
        raise Fault(f"`mika-manage migrate` failed:\n{done.stderr}")
    passkeys = [secrets.token_hex(16) for _ in range(users)]
    database = sqlite3.connect(folder / "mika.db")
    with database:
        database.executemany(
            "INSERT INTO users (id, passkey, username) VALUES (?, ?, ?)",
            ((number + 1, passkey, f"user{number}") for number, passkey in enumerate(passkeys)),
        )
        database.executemany(
            "INSERT INTO torrents (id, info_hash, release_name) VALUES (?, ?, ?)",
            ((number + 1, info_hash, f"release.{number}") for number, info_hash in enumerate(hashes)),
        )
    database.close()
    return passkeys


def private(folder, config, users, torrents, peers, numwant):
    """A private tracker's population over HTTP, registered."""
    hashes = (announces.info_hash(number) for number in range(torrents))
    passkeys = register(folder, config, users, hashes)
    return announces.private(passkeys, torrents, peers, numwant)
