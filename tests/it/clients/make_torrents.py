"""Makes .torrent files of one payload, one for each user, and prints their info hashes.

The only argument is a JSON object: payload, folder (where 0.torrent, 1.torrent, … go), users (a
list of announce URLs for each), private, hybrid. On stdout: {"v1": hex, "v2": hex of the 20 bytes that go over the wire or null}.
"""

import json
import os
import sys

import libtorrent

arguments = json.loads(sys.argv[1])
files = libtorrent.file_storage()
libtorrent.add_files(files, arguments["payload"])
# Transmission 3.00 and aria2 can't read hybrid torrents, which libtorrent makes by default.
flags = 0 if arguments["hybrid"] else libtorrent.create_torrent.v1_only
torrent = libtorrent.create_torrent(files, piece_size=64 * 1024, flags=flags)
torrent.set_priv(arguments["private"])
libtorrent.set_piece_hashes(torrent, os.path.dirname(arguments["payload"]))
made = torrent.generate()
for number, urls in enumerate(arguments["users"]):
    made[b"announce"] = urls[0].encode()
    made[b"announce-list"] = [[url.encode()] for url in urls] # a tier each
    with open(os.path.join(arguments["folder"], f"{number}.torrent"), "wb") as file:
        file.write(libtorrent.bencode(made))
hashes = libtorrent.torrent_info(made).info_hashes()
print(json.dumps({
    "v1": str(hashes.v1),
    "v2": str(hashes.v2)[:40] if hashes.has_v2() else None,
}))
