"""An echo server on the Python library `websockets`: server_websockets.py PORT [CERTIFICATE KEY].

It agrees to compression, to the subprotocol `echo`, and refuses /refuse with 401.
"""

import asyncio
import ssl
import sys

from websockets.asyncio.server import Request, Response, ServerConnection, serve
from websockets.exceptions import ConnectionClosed


async def echo(connection: ServerConnection) -> None:
    try:
        async for message in connection:
            await connection.send(message)
    except ConnectionClosed:
        # A client may close with any code.
        pass


def refuse(connection: ServerConnection, request: Request) -> Response | None:
    if request.path != "/refuse":
        return None
    response = connection.respond(401, "Who are you?\n")
    response.headers["WWW-Authenticate"] = 'Basic realm="echo"'
    return response


def choose(_connection: ServerConnection, offered: list[str]) -> str | None:
    return "echo" if "echo" in offered else None


async def main(port: str, *certificate: str) -> None:
    tls = None
    if certificate:
        tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        tls.load_cert_chain(*certificate)
    async with serve(
        echo,
        "127.0.0.1",
        int(port),
        ssl=tls,
        select_subprotocol=choose,
        process_request=refuse,
    ) as server:
        await server.serve_forever()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
