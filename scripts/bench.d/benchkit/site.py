"""A private tracker with a database server and Redis, as a community runs it."""

import json
import secrets
import subprocess

from . import announces
from .fault import Fault
from .process import TARGET

DATABASE = "site"
MANAGE_SECONDS_MAX = 60


def write_config(port, mariadb, redis, folder):
    config = {
        "mode": "private",
        "http": {"listen": [f"127.0.0.1:{port}"]},
        "udp": {"listen": []},
        "api": {"listen": []},
        "tracker": {"whitelist": False},
        "cache": {"driver": "redis", "url": redis.url},
        "storage": {"driver": "mysql", "url": mariadb.url(DATABASE)},
    }
    file = folder / "config.json"
    file.write_text(json.dumps(config))
    return file


def prepare(mariadb, config, folder, users, torrents, peers, numwant):
    """Users and torrents by plain SQL, and a warmup; the population that is theirs."""
    mariadb.sql(f"CREATE DATABASE {DATABASE} CHARACTER SET utf8mb4")
    manage(folder, config, "migrate")
    passkeys = [secrets.token_hex(16) for _ in range(users)]
    rows = ", ".join(f"('{passkey}', 'user{number}')" for number, passkey in enumerate(passkeys))
    hashes = (announces.info_hash(number).hex() for number in range(torrents))
    releases = ", ".join(f"(X'{info_hash}', 'release.{number}')" for number, info_hash in enumerate(hashes))
    mariadb.sql(
        f"INSERT INTO users (passkey, username) VALUES {rows};"
        f"INSERT INTO torrents (info_hash, release_name) VALUES {releases};",
        DATABASE,
    )
    manage(folder, config, "warmup")
    return announces.private(passkeys, torrents, peers, numwant)


def manage(folder, config, word):
    command = [TARGET / "mika-manage", "-c", config, word]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=MANAGE_SECONDS_MAX)
    if done.returncode != 0:
        raise Fault(f"`mika-manage {word}` failed:\n{done.stderr}")
