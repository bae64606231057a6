"""Writes .torrent files of all kinds to the folder that is the only argument, numbered, and prints
what libtorrent makes of each: a JSON list of {"file", "what", "v1", "v2", "error"}, where v2 is cut to
the 20 bytes that announces carry, and error is null if libtorrent loads the file.
"""

import json
import os
import random
import sys
import warnings

import libtorrent

warnings.simplefilter("ignore")

ROOT = b"r" * 32
corpus = []


class Raw(bytes):
    """Bytes that are bencode already."""


class Items(list):
    """A dictionary as a list of pairs, in this order."""


def encode(value):
    if isinstance(value, Raw):
        return bytes(value)
    if isinstance(value, int):
        return b"i%de" % value
    if isinstance(value, bytes):
        return b"%d:%s" % (len(value), value)
    if isinstance(value, Items):
        return b"d" + b"".join(encode(part) for pair in value for part in pair) + b"e"
    if isinstance(value, list):
        return b"l" + b"".join(map(encode, value)) + b"e"
    return encode(Items(sorted(value.items())))


def add(what, contents):
    corpus.append((what, contents))


def key(name):
    return name.replace("_", " ").encode()


def v1(top={}, drop=(), **info):
    """A v1 torrent of one file with these changes to its info dictionary."""
    made = {b"name": b"n", b"piece length": 16384, b"length": 5, b"pieces": b"p" * 20}
    made.update({key(name): value for name, value in info.items()})
    made = {name: value for name, value in made.items() if name.decode() not in drop}
    return encode({b"info": made, **top})


def listed(*files, **info):
    """A v1 torrent of these files."""
    return v1(drop=["length"], files=list(files), **info)


def v2(tree, layers={}, **info):
    """A v2 torrent of that file tree."""
    made = {b"file tree": tree, b"meta version": 2, b"name": b"n", b"piece length": 16384}
    made.update({key(name): value for name, value in info.items()})
    top = {} if layers is None else {b"piece layers": layers}
    return encode({b"info": made, **top})


def leaf(length, root=ROOT, **more):
    file = {b"length": length, **{key(name): value for name, value in more.items()}}
    if root is not None:
        file[b"pieces root"] = root
    return {b"": file}


def file(name, length, **more):
    return {b"length": length, b"path": [name], **{key(k): v for k, v in more.items()}}


def pad(length, **more):
    return {b"attr": b"p", b"length": length, b"path": [b".pad", b"%d" % length], **more}


def link(name, target):
    return {b"attr": b"l", b"path": [name], b"symlink path": target}


def add_encodings():
    plain = v1()
    add("a plain v1 torrent", plain)
    add("bytes after the end", plain + b"junk\n")
    add("a blank in front", b" " + plain)
    add("a byte order mark", b"\xef\xbb\xbf" + plain)
    add("cut short", plain[:-1])
    add("info not last", v1({b"url-list": b"http://x", b"zzz": 1}))
    add("an info dictionary before it", b"d4:infod1:ai1ee" + plain[1:])
    add("an info of another type before it", b"d4:infoi1e" + plain[1:])
    add("an info of another type after it", plain[:-1] + b"4:infoi1ee")
    add("zeros in the length of a text", b"d04:info" + plain[7:])
    for digits in (2, 16, 17, 20):
        add(f"{digits} digits", v1({b"x": Raw(b"0" * (digits - 1) + b"1:a")}))
    for number in (b"-0", b"-01", b"007", b"0" * 20, b"0" * 21, b"9" * 19, b"9" * 20, b"-", b"", b"1x", b"+1"):
        add(f"the integer {number}", v1({b"x": Raw(b"i" + number + b"e")}))
        add(f"private {number}", v1(private=Raw(b"i" + number + b"e")))
    add("a piece length of 03", v1(piece_length=Raw(b"i03e"), pieces=b"p" * 40))
    add("a length of -0", v1(length=Raw(b"i-0e"), pieces=b""))
    add("unsorted keys", encode({b"info": Items([(b"pieces", b"p" * 20), (b"name", b"n"), (b"length", 5), (b"piece length", 16384)])}))
    add("a key twice", v1().replace(b"4:name1:n", b"4:name1:n4:name2:xx"))
    for depth in (10, 97, 98, 99, 100, 5000):
        add(f"{depth} levels", v1({b"x": Raw(b"l" * depth + b"e" * depth)}))
    add("empty lists and nodes", v1({b"announce-list": [], b"url-list": [], b"nodes": [[b"h", 1], [], b"x"]}))
    add("no dictionary", b"le")
    add("nothing", b"")
    add("no info", encode({b"announce": b"http://x"}))
    add("a magnet link", encode({b"magnet-uri": b"magnet:?xt=urn:btih:" + b"ab" * 20 + b"&dn=x"}))
    add("a magnet link of v2", encode({b"magnet-uri": b"magnet:?xt=urn:btmh:1220" + b"ab" * 32}))
    add("a magnet link of nothing", encode({b"magnet-uri": b"magnet:?dn=x"}))
    add("11 MB", v1({b"comment": b"c" * 11_000_000}))


def add_names():
    add("no name", v1(drop=["name"]))
    add("name.utf-8 alone", v1(drop=["name"], **{"name.utf-8": b"u"}))
    for name in (b"", b".", b"..", b"...", b"/", b"//", b"//..", b"./", b"a/b", b"..\\a", b"\x1b[31m", b"\xff\xfe", b"\xe2\x80\xae", b"a\0b", b"\xed\xa0\x80", b"x" * 300, b"\xcf\xf0"):
        add(f"the name {name}", v1({b"encoding": b"windows-1251"}, name=name))
        add(f"the folder {name}", listed(file(b"a", 5), name=name))
        add(f"the name.utf-8 {name}", v1(**{"name.utf-8": name}))
        add(f"the path {name}", listed(file(name, 5)))
        add(f"the v2 file {name}", v2({name: leaf(5)}))
        add(f"the v2 files {name}", v2({name: leaf(5), b"z": leaf(5)}))
        add(f"the v2 name {name}", v2({b"a": leaf(5)}, name=name))
        add(f"the hybrid {name}", v2({name: leaf(5)}, name=name, length=5, pieces=b"p" * 20))
    add("a name of another type", v1(name=3))
    add("a v2 name of another type", v2({b"a": leaf(5)}, name=3))


def add_pieces():
    add("no piece length", v1(drop=["piece length"]))
    add("no pieces", v1(drop=["pieces"]))
    for length in (-1, 0, 1, 2**30 - 1, 2**30, 2**31):
        add(f"pieces of {length}", v1(piece_length=length))
        add(f"v2 pieces of {length}", v2({b"a": leaf(5)}, piece_length=length))
    for length in (100, 16384, 16385, 2**20, 2**29):
        add(f"v2 pieces of {length}", v2({b"a": leaf(5)}, piece_length=length))
    for count in (0, 19, 20, 21, 40):
        add(f"{count} bytes of pieces", v1(pieces=b"p" * count))
        add(f"{count} bytes of pieces in v2", v2({b"a": leaf(5)}, pieces=b"p" * count))
    add("two million pieces", v1(length=2**21, piece_length=1, pieces=b"p" * 20 * 2**21))
    add("one piece too many", v1(length=2**21 + 1, piece_length=1, pieces=b"p" * 20 * (2**21 + 1)))
    for length in (0, -5, 2**43, 2**44 - 16385, 2**44 - 16384, 2**44, 2**62):
        add(f"a length of {length}", v1(length=length, piece_length=2**29, pieces=b"p" * 20 * max(0, min(-(-length // 2**29), 2**16))))
    add("too much together", listed(*[file(b"%d" % at, 2**43) for at in range(40)], piece_length=2**29))


def add_files():
    one = file(b"a", 5)
    add("a list of one file", listed(one))
    add("a list beside a length", v1(files=[one]))
    add("an empty list", listed())
    add("an empty list beside a length", v1(files=[]))
    add("a list of another type", v1(files=b"x"))
    add("a list that holds a text", listed(b"x"))
    add("a file without a path", listed({b"length": 5}))
    add("a file with an empty path", listed({b"length": 5, b"path": []}))
    add("a file with a number in its path", listed({b"length": 5, b"path": [3]}))
    add("path.utf-8 alone", listed({b"length": 5, b"path.utf-8": [b"a"]}))
    add("a negative length", listed(file(b"a", -5), file(b"b", 10)))
    add("two files of one name", listed(one, one, pieces=b"p" * 20))
    add("a padding file without a path", listed({b"attr": b"p", b"length": 5}))
    add("padding between", listed(one, pad(16379), file(b"b", 5), pieces=b"p" * 40))
    add("a link", listed(one, link(b"b", [b"a"])))
    add("a link with a number", listed(one, link(b"b", [3])))
    add("a link without a target", listed(one, {b"attr": b"l", b"path": [b"b"]}))
    add("empty files", listed(file(b"a", 0), pieces=b""))
    for depth in (10, 80, 99, 200):
        add(f"a path of {depth}", listed({b"length": 5, b"path": [b"d"] * depth}))
        tree = leaf(5)
        for _ in range(depth):
            tree = {b"d": tree}
        add(f"a tree of {depth}", v2(tree))


def add_versions():
    for version in (-1, 0, 1, 2, 3, 2**32, 2**32 + 2):
        add(f"v1 with meta version {version}", v1(meta_version=version))
        add(f"v2 with meta version {version}", v2({b"a": leaf(5)}, meta_version=version))
    add("a meta version of another type", v1(meta_version=b"2"))
    add("meta version 1, unsorted", v1(meta_version=1).replace(b"4:name1:n12:piece lengthi16384e", b"12:piece lengthi16384e4:name1:n"))
    add("a v1 torrent with a tree", v1(file_tree={}))
    add("v2", v2({b"a": leaf(5)}))
    add("v2 without layers", v2({b"a": leaf(5)}, None))
    add("v2 of several files", v2({b"a": leaf(5), b"b": leaf(0, None), b"d": {b"c": leaf(7)}, b"e": {}}))
    add("v2 unsorted", v2({b"a": leaf(5)}).replace(b"4:name1:n12:piece lengthi16384e", b"12:piece lengthi16384e4:name1:n"))
    for number in (b"-0", b"03", b"-03", b"9" * 20):
        add(f"v2 with {number}", v2({b"a": leaf(5, mtime=Raw(b"i" + number + b"e"))}))
    for root in (None, b"r" * 31, b"\0" * 32):
        add(f"v2 with the root {root}", v2({b"a": leaf(5, root)}))
        add(f"v2, empty, with the root {root}", v2({b"a": leaf(5), b"b": leaf(0, root)}))
    add("v2 of nothing", v2({}))
    add("v2 with a list", v2([]))
    add("v2 with a text for a file", v2({b"a": b"x"}))
    add("v2 with a text for a leaf", v2({b"a": {b"": b"x"}}))
    add("v2 with more than a leaf", v2({b"a": {**leaf(5), b"b": {}}}))
    add("v2 without a length", v2({b"a": {b"": {b"pieces root": ROOT}}}))
    add("v2 with a padding file", v2({b"a": leaf(5, attr=b"p")}))
    add("v2 with an executable", v2({b"a": leaf(5, attr=b"x")}))
    for target in ([b"a"], [], [3], b"a"):
        add(f"v2 with a link to {target}", v2({b"a": leaf(5), b"b": {b"": {b"attr": b"l", b"symlink path": target}}}))
    add("v2 with a link alone", v2({b"a": {b"": {b"attr": b"l", b"symlink path": [b"a"]}}}))


def add_hybrids():
    pieces = b"p" * 40
    pair = {b"a": leaf(5), b"c": leaf(7)}
    a, c = file(b"a", 5), file(b"c", 7)
    add("a hybrid of one file", v2({b"n": leaf(5)}, length=5, pieces=b"p" * 20))
    add("a hybrid without pieces", v2({b"n": leaf(5)}, length=5))
    add("a hybrid of a list of one", v2({b"a": leaf(5)}, files=[a], pieces=b"p" * 20))
    add("a hybrid", v2(pair, files=[a, pad(16379), c], pieces=pieces))
    add("a hybrid with padding at the end", v2(pair, files=[a, pad(16379), c, pad(16377)], pieces=pieces))
    add("a hybrid without padding", v2(pair, files=[a, c], pieces=b"p" * 20))
    add("a hybrid in another order", v2(pair, files=[c, pad(16377), a], pieces=pieces))
    add("a hybrid with a file less", v2(pair, files=[a], pieces=b"p" * 20))
    add("a hybrid with a file more", v2({b"a": leaf(5)}, files=[a, pad(16379), c], pieces=pieces))
    add("a hybrid of another size", v2({b"n": leaf(5)}, length=6, pieces=b"p" * 20))
    add("a hybrid of another name", v2({b"x": leaf(5)}, length=5, pieces=b"p" * 20))
    add("a hybrid of other letters", v2({b"A": leaf(5)}, files=[a], pieces=b"p" * 20))
    add("a hybrid with a wrong length", v2({b"n": leaf(5)}, length=b"x"))
    add("a hybrid with a separator", v2({b"a/b": leaf(5)}, files=[file(b"ab", 5)], pieces=b"p" * 20))
    add("a hybrid with a folder", v2({b"d": {b"a": leaf(5)}}, files=[{b"length": 5, b"path": [b"d", b"a"]}], pieces=b"p" * 20))
    for where in (1, 2, 3):
        files = [a, pad(16379), c]
        files.insert(where, file(b"b", 0))
        add(f"a hybrid with an empty file at {where}", v2({**pair, b"b": leaf(0, None)}, files=files, pieces=pieces))
    add("a hybrid with an empty file in v1", v2(pair, files=[a, file(b"b", 0), pad(16379), c], pieces=pieces))
    add("a hybrid with an empty file in v2", v2({**pair, b"b": leaf(0)}, files=[a, pad(16379), c], pieces=pieces))
    linked = {b"a": leaf(5), b"b": {b"": {b"attr": b"l", b"symlink path": [b"a"]}}}
    add("a hybrid with a link", v2(linked, files=[a, link(b"b", [b"a"])], pieces=b"p" * 20))
    add("a hybrid with two links", v2(linked, files=[a, link(b"b", [b"b"])], pieces=b"p" * 20))
    add("a hybrid with attributes", v2({b"n": leaf(5, attr=b"x", mtime=3)}, length=5, pieces=b"p" * 20))


def add_made():
    """What libtorrent makes itself."""
    for flags in (0, libtorrent.create_torrent.v1_only, libtorrent.create_torrent.v2_only):
        for sizes in ([5], [40000], [5, 0, 70000, 16384]):
            files = libtorrent.file_storage()
            for number, size in enumerate(sizes):
                files.add_file(f"made/{number}" if len(sizes) > 1 else "made", size)
            made = libtorrent.create_torrent(files, piece_size=16384, flags=flags)
            for piece in range(made.num_pieces()):
                if flags != libtorrent.create_torrent.v2_only:
                    made.set_hash(piece, b"h" * 20)
            try:
                add(f"made {sizes} {flags}", libtorrent.bencode(made.generate()))
            except RuntimeError:
                pass  # it wants all v2 hashes


def add_mutants():
    """Valid files with a few bytes changed: all readers must agree on them."""
    chance = random.Random(1)
    parents = [
        v1({b"announce": b"http://x"}),
        listed(file(b"a", 5), pad(16379), file(b"b", 5), pieces=b"p" * 40),
        v2({b"a": leaf(5), b"d": {b"c": leaf(7)}}),
        v2({b"a": leaf(5), b"c": leaf(7)}, files=[file(b"a", 5), pad(16379), file(b"c", 7)], pieces=b"p" * 40),
    ]
    for number in range(2000):
        mutant = bytearray(chance.choice(parents))
        for _ in range(chance.randint(1, 2)):
            at = chance.randrange(len(mutant))
            kind = chance.randrange(3)
            if kind == 0:
                mutant[at] = chance.choice(b"0123456789deil:-a\x00/.")
            elif kind == 1:
                del mutant[at : at + chance.randint(1, 4)]
            else:
                mutant[at:at] = chance.choice([b"0", b"-", b"e", b"i0e", b"0:", b"de", b"le", b"1:a"])
        add(f"mutant {number}", bytes(mutant))


def main(folder):
    for adds in (add_encodings, add_names, add_pieces, add_files, add_versions, add_hybrids, add_made, add_mutants):
        adds()
    results = []
    for number, (what, contents) in enumerate(corpus):
        name = f"{number:05}.torrent"
        with open(os.path.join(folder, name), "wb") as out:
            out.write(contents)
        result = {"file": name, "what": what, "v1": None, "v2": None, "error": None}
        try:
            hashes = libtorrent.torrent_info(contents).info_hashes()
            result["v1"] = str(hashes.v1) if hashes.has_v1() else None
            result["v2"] = str(hashes.v2)[:40] if hashes.has_v2() else None
        except (RuntimeError, ValueError) as error:
            result["error"] = str(error)
        results.append(result)
    json.dump(results, sys.stdout)


main(sys.argv[1])
