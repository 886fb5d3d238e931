"""Checks the echo server with the Python client `websockets`: client_websockets.py URL."""

import asyncio
import sys
from collections.abc import Awaitable, Callable

from websockets.asyncio.client import ClientConnection, connect

import checks
from checks import Checks, equal


# More than the defaults of ten and twenty seconds.
PATIENCE = {"open_timeout": 60, "close_timeout": 60, "ping_timeout": 60}


async def echoes(socket: ClientConnection) -> None:
    for length in checks.LENGTHS:
        for message in (checks.text(length), checks.binary(length)):
            await socket.send(message)
            equal(await socket.recv(), message)


async def unicode(socket: ClientConnection) -> None:
    await socket.send(checks.UNICODE)
    equal(await socket.recv(), checks.UNICODE)


async def fragments(socket: ClientConnection) -> None:
    await socket.send(["one, ", "", "zwei – ", "三"])
    equal(await socket.recv(), "one, zwei – 三")
    parts = [checks.binary(length) for length in (70_000, 1, 0, 126)]
    await socket.send(parts)
    equal(await socket.recv(), b"".join(parts))


async def ping(socket: ClientConnection) -> None:
    for payload in (b"", b"are you there?", checks.binary(125)):
        # Resolves when a pong of this very payload arrives.
        await (await socket.ping(payload))


async def unsolicited_pong(socket: ClientConnection) -> None:
    await socket.pong(b"nobody asked")
    await unicode(socket)


async def pipelined(socket: ClientConnection) -> None:
    messages = [checks.binary(length) for length in range(0, 5000, 50)]
    for message in messages:
        await socket.send(message)
    for message in messages:
        equal(await socket.recv(), message)


async def close(socket: ClientConnection) -> None:
    await socket.close(checks.CLOSE_CODE, checks.CLOSE_REASON)
    equal((socket.close_code, socket.close_reason), (checks.CLOSE_CODE, checks.CLOSE_REASON))
    equal(socket.protocol.close_rcvd, socket.protocol.close_sent)


async def concurrent(url: str) -> None:
    async def one(number: int) -> None:
        async with connect(url, **PATIENCE) as socket:
            for index in range(checks.MESSAGES):
                message = f"connection {number}, message {index}"
                await socket.send(message)
                equal(await socket.recv(), message)

    await asyncio.gather(*(one(number) for number in range(checks.CONNECTIONS)))


async def connected(url: str, check: Callable[[ClientConnection], Awaitable[None]]) -> None:
    async with asyncio.timeout(60), connect(url, max_size=None, **PATIENCE) as socket:
        await check(socket)


def main(url: str) -> None:
    run = Checks("websockets")
    for name, check in {
        "text and binary, empty to 1 MiB": echoes,
        "unicode": unicode,
        "fragmented messages": fragments,
        "ping answered with its payload": ping,
        "unsolicited pong": unsolicited_pong,
        "100 messages in flight": pipelined,
        "close code and reason echoed": close,
    }.items():
        run.run(name, lambda: asyncio.run(connected(url, check)))
    run.run(
        f"{checks.CONNECTIONS} connections at once",
        lambda: asyncio.run(asyncio.wait_for(concurrent(url), 60)),
    )
    run.exit()


if __name__ == "__main__":
    main(sys.argv[1])
