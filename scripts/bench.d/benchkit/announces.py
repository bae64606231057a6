"""A population of peers, their announces, and samples of the replies."""

import random
import socket
import string
from dataclasses import dataclass
from urllib.parse import quote_from_bytes

from .fault import Fault

USER_AGENT = "libtorrent/2.0.11.0"
REPLY_SECONDS_MAX = 10

# Digits of running totals, always the same, so that a request can be changed in place.
TOTALS_DIGITS = 12

# The exponent of popularity: torrent number N * u^3 for a uniform u, so that the first
# eighth of the torrents has half of the peers and most torrents have one or none.
SKEW = 3


@dataclass
class Peer:
    """A member of a swarm; its running totals are put between `head` and `tail`."""

    head: str
    tail: str

    def request(self, totals, connection):
        target = f"{self.head}{totals}&downloaded={totals}{self.tail}"
        return (
            f"GET {target} HTTP/1.1\r\nHost: 127.0.0.1\r\nUser-Agent: {USER_AGENT}\r\n"
            f"Accept-Encoding: gzip\r\nConnection: {connection}\r\n\r\n"
        )


def public(torrents, peers, numwant, seed=1):
    """Peers of a public tracker, each with a peer id and a port of its own."""
    chance = random.Random(seed)
    hashes = [info_hash(number) for number in range(torrents)]
    quoted = [quote_from_bytes(one, safe="") for one in hashes]
    population = []
    for _ in range(peers):
        torrent = quoted[skewed(chance, torrents)]
        population.append(member(chance, "/announce", torrent, peer_id(chance), numwant))
    return population


def private(passkeys, torrents, peers, numwant, seed=2):
    """Users of a private tracker, each with one client that is in many swarms."""
    if peers > len(passkeys) * torrents // 4:
        raise Fault("too many private peers for so few users and torrents")
    chance = random.Random(seed)
    quoted = [quote_from_bytes(info_hash(number), safe="") for number in range(torrents)]
    clients = [(passkey, peer_id(chance)) for passkey in passkeys]
    taken = set()
    while len(taken) < peers:
        taken.add((skewed(chance, torrents), chance.randrange(len(clients))))
    population = []
    for torrent, user in taken:
        passkey, client = clients[user]
        population.append(member(chance, f"/{passkey}/announce", quoted[torrent], client, numwant))
    chance.shuffle(population)
    return population


def with_events(population, laps, events, seed=3):
    """Laps of a population, in which some announces begin or end something.

    `events` are the chances of each event in one announce. A peer that stopped starts next.
    """
    chance = random.Random(seed)
    names, weights = list(events), list(events.values())
    stopped = set()
    announces = []
    for _ in range(laps):
        for number, peer in enumerate(population):
            if number in stopped:
                stopped.remove(number)
                event = "started"
            elif chance.random() < sum(weights):
                event = chance.choices(names, weights)[0]
            else:
                announces.append(peer)
                continue
            if event == "stopped":
                stopped.add(number)
            announces.append(Peer(peer.head, f"{peer.tail}&event={event}"))
    return announces


def info_hash(number):
    """The same 20 bytes for the same number, and otherwise random."""
    return random.Random(number).randbytes(20)


def sample(port, peers, totals, connection="keep-alive"):
    """Announces for some peers, on one connection or on one each; the sizes of the bodies.

    A reply that is not a success ends the benchmark: fast failures are no figures.
    """
    if connection == "close":
        return [size for peer in peers for size in sample_connection(port, [peer], totals, connection)]
    return sample_connection(port, peers, totals, connection)


def sample_connection(port, peers, totals, kind):
    sizes = []
    with socket.create_connection(("127.0.0.1", port), REPLY_SECONDS_MAX) as connection:
        stream = connection.makefile("rb")
        for peer in peers:
            connection.sendall(peer.request(totals, kind).encode())
            status, headers, body = read_reply(stream)
            good = body.startswith(b"d") and b"8:interval" in body and b"failure reason" not in body
            if status != 200 or not good:
                raise Fault(f"a reply is no success: status {status}, {headers}, body {body[:200]!r}")
            sizes.append(len(body))
    return sizes


def read_reply(stream):
    """Status, headers and body of one HTTP reply."""
    status = stream.readline()
    if not status:
        raise Fault("the server closed the connection instead of answering")
    headers = {}
    while (line := stream.readline().strip()):
        name, _, value = line.decode().partition(":")
        headers[name.lower()] = value.strip()
    body = stream.read(int(headers.get("content-length", 0)))
    return int(status.split()[1]), headers, body


def member(chance, path, quoted_hash, client, numwant):
    left = chance.choice((0, 0, 16384 * chance.randrange(1, 60000)))
    head = f"{path}?info_hash={quoted_hash}&peer_id={client}&port={chance.randrange(1024, 65536)}&uploaded="
    tail = (
        f"&left={left}&corrupt=0&key={chance.getrandbits(32):08X}&numwant={numwant}"
        "&compact=1&no_peer_id=1&supportcrypto=1&redundant=0"
    )
    return Peer(head, tail)


def peer_id(chance):
    return "-LT20B0-" + "".join(chance.choices(string.ascii_letters + string.digits, k=12))


def skewed(chance, count):
    return int(count * chance.random() ** SKEW)
