"""aria2, driven over its JSON-RPC port and observed through its log."""

import os
import re
import signal

import driver

RPC = "http://127.0.0.1:6800/jsonrpc"
ANNOUNCE = re.compile(r"GET \S*announce\?\S*&downloaded=(\d+)")
ANSWER = "Now processing tracker response."


class Client:
    def __init__(self, arguments):
        folder = arguments["folder"]
        self.log = os.path.join(folder, "aria2.log")
        self.process = driver.spawn([
            "aria2c", f"--dir={folder}", f"--log={self.log}", "--log-level=debug", "--no-conf",
            "--quiet", "--enable-rpc", "--rpc-listen-port=6800", "--listen-port=6881",
            "--enable-dht=false", "--enable-dht6=false", "--bt-enable-lpd=false",
            "--enable-peer-exchange=false", "--seed-ratio=0", "--file-allocation=none",
            arguments["torrent"],
        ])
        driver.until(lambda: os.path.exists(self.log))

    def announced(self):
        return self.answers() >= 1

    def complete(self):
        status = self.status()
        return status["completedLength"] == status["totalLength"] and self.answers() >= 2

    def stop(self):
        uploaded = int(self.status()["uploadLength"])
        # A graceful end: the tracker's answer to `stopped` is awaited.
        self.process.send_signal(signal.SIGINT)
        if self.process.wait() != 0:
            raise SystemExit(f"aria2 ended with {self.process.returncode}")
        if self.answers() < 3:
            raise SystemExit("the tracker did not answer aria2's last announce")
        # aria2 counts blocks that came twice as downloaded, and shows that figure only to the
        # tracker: the RPC has only the length of the verified pieces.
        downloaded = int(ANNOUNCE.findall(self.read_log())[-1])
        return {"uploaded": uploaded, "downloaded": downloaded}

    def status(self):
        body = {"jsonrpc": "2.0", "id": 1, "method": "aria2.tellActive"}
        return driver.post_json(RPC, body)["result"][0]

    def answers(self):
        return self.read_log().count(ANSWER)

    def read_log(self):
        with open(self.log, errors="replace") as log:
            return log.read()


driver.run(Client)
