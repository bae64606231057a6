"""A connection to Redis that speaks RESP2: answers with any bytes, which `redis-cli` would print as text."""

import socket

from .fault import Fault

ANSWER_SECONDS_MAX = 60


class Connection:
    def __init__(self, port):
        self._socket = socket.create_connection(("127.0.0.1", port), ANSWER_SECONDS_MAX)
        self._stream = self._socket.makefile("rb")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self._stream.close()
        self._socket.close()

    def ask(self, *words):
        parts = [word if isinstance(word, bytes) else str(word).encode() for word in words]
        head = b"*%d\r\n" % len(parts)
        self._socket.sendall(head + b"".join(b"$%d\r\n%s\r\n" % (len(part), part) for part in parts))
        return self._answer()

    def info(self, section):
        """The lines `name:value` of a section."""
        lines = self.ask("INFO", section).decode().splitlines()
        return dict(line.split(":", 1) for line in lines if ":" in line)

    def keys(self, pattern):
        found, cursor = [], b"0"
        while True:
            cursor, page = self.ask("SCAN", cursor, "MATCH", pattern, "COUNT", 10_000)
            found += page
            if cursor == b"0":
                return found

    def _answer(self):
        line = self._stream.readline()
        if not line:
            raise Fault("Redis closed the connection")
        kind, rest = line[:1], line[1:].strip()
        if kind == b"-":
            raise Fault(f"Redis: {rest.decode(errors='replace')}")
        if kind == b":":
            return int(rest)
        if kind == b"$":
            return self._bytes(int(rest))
        if kind == b"*":
            return [self._answer() for _ in range(max(int(rest), 0))]
        return rest

    def _bytes(self, length):
        if length < 0:
            return None
        return self._stream.read(length + 2)[:length]
