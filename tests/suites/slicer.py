"""A TCP proxy that cuts the first 256 bytes of every read into writes of 1 to 3 bytes, either way.

It delays nothing and loses nothing. Usage: slicer.py LISTEN TARGET, ports of 127.0.0.1."""

import asyncio
import random
import resource
import socket
import sys

SLICED = 256  # of every read: a head, an array's first arguments; all of it would only take longer


async def carry(loop, source, sink, dice):
    """Until the source ends; then the sink's writing side ends too. A reset resets both."""
    try:
        while data := await loop.sock_recv(source, 65536):
            at = 0
            while at < min(SLICED, len(data)):
                size = dice.randint(1, 3)
                await loop.sock_sendall(sink, data[at : at + size])
                await asyncio.sleep(0)
                at += size
            if at < len(data):
                await loop.sock_sendall(sink, data[at:])
        sink.shutdown(socket.SHUT_WR)
    except OSError:
        for end in (source, sink):
            try:
                end.shutdown(socket.SHUT_RDWR)
            except OSError:
                pass


async def serve(loop, client, target):
    server = socket.socket()
    server.setblocking(False)
    try:
        await loop.sock_connect(server, ("127.0.0.1", target))
        for end in (client, server):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        ways = ((client, server, random.Random(1)), (server, client, random.Random(2)))
        await asyncio.gather(*(carry(loop, *way) for way in ways))
    except OSError:
        pass
    finally:
        client.close()
        server.close()


async def main(listen, target):
    loop, tasks = asyncio.get_running_loop(), set()
    listener = socket.create_server(("127.0.0.1", listen), backlog=1024)
    listener.setblocking(False)
    while True:
        client, _ = await loop.sock_accept(listener)
        client.setblocking(False)
        task = loop.create_task(serve(loop, client, target))
        tasks.add(task)
        task.add_done_callback(tasks.discard)


if __name__ == "__main__":
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2])))
