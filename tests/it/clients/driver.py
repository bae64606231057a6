"""What the client drivers share: they are started by tests/it/clients, one process a client.

The only argument is a JSON object: torrent, folder, addresses, deadline (seconds). On stdout a
driver prints one JSON object a line: {"state": "announced"} when the tracker has answered,
{"state": "complete"} when the whole payload is there, and, after a line or the end of its
stdin and a `stopped` announce that the tracker answered, {"state": "stopped"} with the
client's own statistics `uploaded` and `downloaded`.
"""

import atexit
import json
import signal
import subprocess
import sys
import time
import urllib.request


def run(start):
    """Runs a client from its start to its clean stop. `start` gets the arguments as a dict."""
    arguments = json.loads(sys.argv[1])
    signal.signal(signal.SIGALRM, lambda *_: sys.exit("the client missed its deadline"))
    signal.alarm(arguments["deadline"])
    client = start(arguments)
    until(client.announced)
    emit("announced")
    until(client.complete)
    emit("complete")
    sys.stdin.readline()
    emit("stopped", **client.stop())


def emit(state, **more):
    print(json.dumps({"state": state, **more}), flush=True)


def until(condition):
    """Polls `condition`; the alarm set by `run` bounds it."""
    while not condition():
        time.sleep(0.02)


def spawn(command):
    """Starts a client program, which ends with the driver; its own output goes to the driver's stderr."""
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=sys.stderr)
    atexit.register(process.kill)
    return process


def post_json(url, body, headers=None):
    """One JSON request to a client's control port on loopback."""
    request = urllib.request.Request(url, json.dumps(body).encode(), headers or {})
    with urllib.request.urlopen(request, timeout=10) as reply:
        return json.load(reply)
