"""transmission-daemon, driven over its RPC port."""

import json
import os
import time
import urllib.error

import driver

RPC = "http://127.0.0.1:9091/transmission/rpc"
SEEDING = 6 # a torrent's `status`


class Client:
    def __init__(self, arguments):
        config = os.path.join(arguments["folder"], ".transmission")
        os.makedirs(config)
        settings = {
            "download-dir": arguments["folder"],
            "dht-enabled": False,
            "lpd-enabled": False,
            "pex-enabled": False,
            "port-forwarding-enabled": False,
            "utp-enabled": False, # it crawls towards libtorrent for its first minute
            "peer-port": 6881,
            "rpc-bind-address": "127.0.0.1",
            "incomplete-dir-enabled": False,
        }
        with open(os.path.join(config, "settings.json"), "w") as file:
            json.dump(settings, file)
        self.session_id = ""
        self.process = driver.spawn(["transmission-daemon", "--foreground", "--config-dir", config])
        driver.until(self.listens)
        self.call("torrent-add", {"filename": arguments["torrent"]})

    def announced(self):
        self.answered_at = self.tracker()["lastAnnounceTime"]
        return self.tracker()["lastAnnounceSucceeded"]

    def complete(self):
        return self.torrent("status") == SEEDING and self.answered_again()

    def stop(self):
        # Its clock ticks once a second and may be one behind: only then does a new answer show.
        self.answered_at = self.tracker()["lastAnnounceTime"]
        driver.until(lambda: time.time() >= self.answered_at + 2)
        self.call("torrent-stop")
        # Announces wait in a queue, and a daemon that ends leaves out what is in it.
        driver.until(self.answered_again)
        statistics = {
            "uploaded": self.torrent("uploadedEver"),
            # Not `downloadedEver`, which has blocks that came twice: Transmission reports to the tracker
            # of whole pieces that it got from peers, and this one began with none.
            "downloaded": self.torrent("haveValid"),
        }
        self.call("session-close")
        if self.process.wait() != 0:
            raise SystemExit(f"transmission-daemon ended with {self.process.returncode}")
        return statistics

    def answered_again(self):
        """Whether the tracker has answered another announce since `answered_at`."""
        tracker = self.tracker()
        return tracker["lastAnnounceSucceeded"] and tracker["lastAnnounceTime"] > self.answered_at

    def listens(self):
        try:
            self.call("session-get")
            return True
        except OSError:
            return False

    def tracker(self):
        return self.torrent("trackerStats")[0]

    def torrent(self, field):
        return self.call("torrent-get", {"fields": [field]})["torrents"][0][field]

    def call(self, method, arguments=None):
        body = {"method": method, "arguments": arguments or {}}
        try:
            reply = driver.post_json(RPC, body, {"X-Transmission-Session-Id": self.session_id})
        except urllib.error.HTTPError as error:
            if error.code != 409: # the daemon names the session id that it wants
                raise
            self.session_id = error.headers["X-Transmission-Session-Id"]
            return self.call(method, arguments)
        if reply["result"] != "success":
            raise SystemExit(f"{method}: {reply['result']}")
        return reply["arguments"]


driver.run(Client)
