#!/usr/bin/env python3
"""Writes twemproxy.txt: which server a real twemproxy (Debian's nutcracker) asks for a key.

usage: tests/sharding/vectors.py > tests/sharding/twemproxy.txt

Each server is a few lines here that answer GET with their own place. The ports are fixed, because
the ring is made of addresses; so run it where they are free.
"""

import asyncio
import random
import string
import subprocess
import tempfile

HASHES = ["one_at_a_time", "md5", "crc16", "crc32", "crc32a", "fnv1_64", "fnv1a_64", "fnv1_32", "fnv1a_32",
          "hsieh", "murmur", "jenkins"]
# What a server is in the file of twemproxy: address, weight, and a name or none. In the order that
# twemproxy gives them, wherever they stand in its file: by the length of the name, then the name.
SETS = {
    "named": [("127.0.0.1", 21101, 1, "beta"), ("127.0.0.1", 21102, 1, "alpha"), ("127.0.0.1", 21103, 1, "gamma")],
    "weighted": [("127.0.0.1", 21104, 1, "w-one"), ("127.0.0.1", 21105, 2, "w-two"), ("127.0.0.1", 21106, 5, "w-five"),
                 ("127.0.0.1", 21107, 17, "w-many"), ("127.0.0.1", 21108, 3, "w-three")],
    "addresses": [("127.0.0.2", 11211, 1, None), ("127.0.0.3", 11211, 1, None), ("127.0.0.1", 21109, 2, None),
                  ("127.0.0.1", 21110, 1, None)],
}
TAGS = [None, "{}", "$$", "<>"]
LISTEN = 21100


def keys():
    draw = random.Random(5)
    made = [f"key:{n}".encode() for n in range(40)]
    made += ["".join(draw.choices(string.ascii_letters + ":._-", k=k)).encode() for k in range(1, 41)]
    made += [bytes(draw.choices(range(128, 256), k=k)) for k in range(1, 31)]
    made += [bytes(draw.choices(range(256), k=k)) for k in range(1, 31)]
    made += [f"{{user:{n}}}:a".encode() for n in range(6)] + [f"a{{user:{n}}}".encode() for n in range(3)]
    made += [b"{}x", b"x{}{y}", b"{", b"}", b"{{y}}", b"a{b", b"a}b{c}", b"$tag$rest", b"x$$y", b"$", b"a<b>c", b"a>b<c>d", b"<<b>>"]
    return made


async def serve(place, reader, writer):
    while head := await reader.readline():
        words = []
        for _ in range(int(head[1:])):
            size = int((await reader.readline())[1:])
            words.append((await reader.readexactly(size + 2))[:-2])
        writer.write(b"$1\r\n%c\r\n" % (ord("a") + place))
    writer.close()


async def owners(servers, distribution, hash, tag, wanted):
    started = [await asyncio.start_server(lambda r, w, place=place: serve(place, r, w), host, port)
               for place, (host, port, _, _) in enumerate(servers)]
    lines = [f"  - {host}:{port}:{weight}{' ' + name if name else ''}" for host, port, weight, name in servers]
    text = "\n".join(["pool:", f"  listen: 127.0.0.1:{LISTEN}", f"  hash: {hash}", f"  distribution: {distribution}",
                      "  redis: true"] + ([f'  hash_tag: "{tag}"'] if tag else []) + ["  servers:"] + lines) + "\n"
    with tempfile.TemporaryDirectory() as folder:
        with open(f"{folder}/nutcracker.yml", "w") as file:
            file.write(text)
        command = ["nutcracker", "-c", f"{folder}/nutcracker.yml", "-s", str(LISTEN + 50), "-o", f"{folder}/log", "-p", f"{folder}/pid"]
        proxy = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        try:
            for _ in range(100):
                try:
                    reader, writer = await asyncio.open_connection("127.0.0.1", LISTEN)
                    break
                except OSError:
                    await asyncio.sleep(0.02)
            found = ""
            for key in wanted:
                writer.write(b"*2\r\n$3\r\nGET\r\n$%d\r\n%s\r\n" % (len(key), key))
                assert await reader.readline() == b"$1\r\n", (hash, key)
                found += (await reader.readline()).decode()[0]
            writer.close()
        finally:
            proxy.terminate()
            proxy.wait()
            await asyncio.sleep(0.02)  # until its connections are seen closed
            for server in started:
                server.close()
    return found


async def main():
    wanted = keys()
    version = subprocess.run(["nutcracker", "-V"], capture_output=True, text=True)
    print(f"# {(version.stdout + version.stderr).splitlines()[0]}, by tests/sharding/vectors.py")
    print("# distribution hash tag servers (what the ring knows them by * weight) owners, one letter a key")
    print("keys", " ".join(key.hex() for key in wanted))
    for servers in SETS.values():
        known = ",".join(f"{name or (host if port == 11211 else f'{host}:{port}')}*{weight}" for host, port, weight, name in servers)
        for distribution in ["ketama", "modula"]:
            for hash in HASHES:
                print(distribution, hash, "-", known, await owners(servers, distribution, hash, None, wanted))
        for tag in TAGS[1:]:
            print("ketama", "fnv1a_64", tag, known, await owners(servers, "ketama", "fnv1a_64", tag, wanted))


asyncio.run(main())
