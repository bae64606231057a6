"""How long it takes until one node hands out a peer that has announced to another."""

import os
import socket
import struct
import time

from .fault import Fault
from .process import CONNECT_REQUEST

ANSWER_SECONDS_MAX = 15
PROPAGATION_SECONDS_MAX = 10
# Between two announces of the peer that asks.
POLL_SECONDS = 0.002

ANNOUNCE = struct.Struct(">QII20s20sQQQIIIiH")
LEECHING_BYTES = 1 << 30
STARTED = 2


class Client:
    """A client that announces to one node over UDP, from an address of its own."""

    def __init__(self, server, address, passkey=None):
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind((address, 0))
        self._socket.connect(("127.0.0.1", server))
        self._socket.settimeout(ANSWER_SECONDS_MAX)
        self._socket.send(CONNECT_REQUEST)
        (self._id,) = struct.unpack(">Q", self._socket.recv(64)[8:16])
        path = f"/{passkey}/announce".encode() if passkey else b""
        self._option = bytes([2, len(path)]) + path if path else b""
        self.endpoint = None

    def close(self):
        self._socket.close()

    def announce(self, info_hash, peer_id, port, event=0):
        """The endpoints that the node hands out."""
        transaction = int.from_bytes(os.urandom(3), "big")
        totals = (0, LEECHING_BYTES, 0)
        head = (self._id, 1, transaction, info_hash, peer_id, *totals, event, 0, 1, 200, port)
        self._socket.send(ANNOUNCE.pack(*head) + self._option)
        while True:
            reply = self._socket.recv(4096)
            action, number = struct.unpack(">II", reply[:8])
            if action == 3:
                raise Fault(f"a probe is refused: {reply[8:]!r}")
            if (action, number) == (1, transaction):
                peers = reply[20:]
                return {peers[at : at + 6] for at in range(0, len(peers), 6)}


class Probe:
    """Peers that come to node `one`, and a peer at node `other` that waits for them."""

    def __init__(self, one, other, passkeys):
        self._comer = Client(one, "127.0.2.1", passkeys[0])
        self._asker = Client(other, "127.0.2.2", passkeys[1])

    def close(self):
        self._comer.close()
        self._asker.close()

    def ask(self, info_hash):
        self._asker.announce(info_hash, b"-LT20B0-asker-------", 5002)

    def seconds(self, info_hash, number):
        """From the answer to the peer that comes until it is handed out."""
        port = 1024 + number
        peer_id = b"-LT20B0-%012d" % number
        self._comer.announce(info_hash, peer_id, port, STARTED)
        start = time.monotonic()
        wanted = socket.inet_aton("127.0.2.1") + struct.pack(">H", port)
        while wanted not in self._asker.announce(info_hash, b"-LT20B0-asker-------", 5002):
            if time.monotonic() - start > PROPAGATION_SECONDS_MAX:
                raise Fault(f"a peer is not handed out by the other node after {PROPAGATION_SECONDS_MAX} s")
            time.sleep(POLL_SECONDS)
        return time.monotonic() - start
