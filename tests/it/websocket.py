"""A WebSocket server that echoes, and a client that checks the echo: websocket.py serve|talk PORT."""

import asyncio
import sys

import websockets

PORT = int(sys.argv[2])


async def echo(socket):
    async for message in socket:
        await socket.send(message)


async def serve():
    async with websockets.serve(echo, "127.0.0.1", PORT, max_size=None):
        await asyncio.Future()


async def talk():
    async with websockets.connect(f"ws://127.0.0.1:{PORT}/", max_size=None) as socket:
        for message in ["hello", "", "x" * 200_000, b"\x00" * 3_000_000]:
            await socket.send(message)
            assert await socket.recv() == message
        await (await socket.ping())
    print("ok")


asyncio.run(serve() if sys.argv[1] == "serve" else asyncio.wait_for(talk(), 20))
