"""Checks the site example behind nginx and haproxy.

check_proxies.py SITE DRIVER NGINX HAPROXY DIRECTORY: cert.pem and key.pem are in the directory, and logs go there.
"""

import asyncio
import contextlib
import http.client
import json
import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

import client_websockets as messages
from checks import Checks, equal
from program import free_port, serving

# The proxies connect from 127.0.0.1, clients from here.
CLIENT = "127.0.0.9"
TRUSTED = "127.0.0.0/8"
SECONDS = 60
REQUESTS = 50

NGINX = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {directory}/nginx-body;
    proxy_temp_path {directory}/nginx-proxy;
    fastcgi_temp_path {directory}/nginx-fastcgi;
    uwsgi_temp_path {directory}/nginx-uwsgi;
    scgi_temp_path {directory}/nginx-scgi;
    map $http_upgrade $connection_for_upstream {{
        default upgrade;
        '' '';
    }}
    upstream site {{
        server 127.0.0.1:{plain};
        keepalive 4;
    }}
    upstream site_behind_two {{
        server 127.0.0.1:{behind_two};
    }}
    proxy_http_version 1.1;
    proxy_set_header Host $host;
    proxy_set_header Upgrade $http_upgrade;
    proxy_set_header Connection $connection_for_upstream;
    proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
    server {{
        listen 127.0.0.1:{nginx};
        location / {{ proxy_pass http://site; }}
    }}
    server {{
        listen 127.0.0.1:{nginx_second};
        location / {{ proxy_pass http://site_behind_two; }}
    }}
}}
"""

HAPROXY = """
global
    nbthread 1
defaults
    timeout connect 60s
    timeout client 60s
    timeout server 60s
    timeout tunnel 60s
listen http
    mode http
    option forwardfor
    bind 127.0.0.1:{haproxy}
    server site 127.0.0.1:{plain}
listen http_before_nginx
    mode http
    option forwardfor
    bind 127.0.0.1:{haproxy_first}
    server nginx 127.0.0.1:{nginx_second}
listen v1
    mode tcp
    bind 127.0.0.1:{v1}
    server site 127.0.0.1:{proxied} send-proxy
listen v2
    mode tcp
    bind 127.0.0.1:{v2}
    server site 127.0.0.1:{proxied} send-proxy-v2
listen v1_before_tls
    mode tcp
    bind 127.0.0.1:{v1_tls}
    server site 127.0.0.1:{proxied_tls} send-proxy
listen v2_before_tls
    mode tcp
    bind 127.0.0.1:{v2_tls}
    server site 127.0.0.1:{proxied_tls} send-proxy-v2
"""

PORTS = (
    *("plain", "behind_two", "proxied", "proxied_tls"),
    *("nginx", "nginx_second", "haproxy", "haproxy_first", "v1", "v2", "v1_tls", "v2_tls"),
)


@dataclass(frozen=True)
class Way:
    """A way to the site through proxies."""

    name: str
    port: int
    is_secure: bool = False
    # Whether the client's address is that of the connection (PROXY protocol), or in X-Forwarded-For.
    has_header: bool = False

    def url(self, path: str) -> str:
        # The certificate names it, and it is an address of IPv4 for whoever connects from one.
        return f"{'wss' if self.is_secure else 'ws'}://127.0.0.1:{self.port}{path}"

    def http(self) -> http.client.HTTPConnection:
        kind = http.client.HTTPSConnection if self.is_secure else http.client.HTTPConnection
        return kind("127.0.0.1", self.port, timeout=SECONDS, source_address=(CLIENT, 0))

    def socket(self, path: str, **options) -> connect:
        options |= {"local_addr": (CLIENT, 0), "max_size": None, "proxy": None}
        options |= {"open_timeout": SECONDS, "close_timeout": SECONDS, "ping_timeout": SECONDS}
        return connect(self.url(path), **options)


def ask(connection: http.client.HTTPConnection, method: str, path: str, body=None, **headers: str) -> tuple[int, bytes]:
    """The status and the body of an answer; the connection stays."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body=body, headers=named, encode_chunked=not isinstance(body, str | None))
    response = connection.getresponse()
    return response.status, response.read()


def check_way(way: Way, run: Checks) -> None:
    def on_socket(check) -> Callable[[], None]:
        async def connected() -> None:
            async with asyncio.timeout(SECONDS), way.socket("/echo") as socket:
                await check(socket)

        return lambda: asyncio.run(connected())

    def client_closes_and_server_closes() -> None:
        async def too_long() -> None:
            async with asyncio.timeout(SECONDS), way.socket("/ask", subprotocols=["ask"]) as socket:
                equal(socket.subprotocol, "ask")
                await socket.send("x" * 101)
                with contextlib.suppress(ConnectionClosed):
                    await socket.recv()
                equal(socket.close_code, 1009)

        on_socket(messages.close)()
        asyncio.run(too_long())

    def requests() -> None:
        connection = way.http()
        connection.connect()
        first = connection.sock
        for _ in range(REQUESTS):
            equal(ask(connection, "GET", "/healthz"), (200, b"ok\n"))
        equal(connection.sock is first, True)
        note = json.dumps("long " * 50_000)
        pieces = [note[at : at + 10_000].encode() for at in range(0, len(note), 10_000)]
        equal(ask(connection, "PUT", "/api/notes/x", iter(pieces))[0], 201)
        equal(ask(connection, "GET", "/api/notes/x"), (200, note.encode()))
        equal(ask(connection, "DELETE", "/api/notes/x")[0], 204)

    def address_of_requests() -> None:
        # What the client says of itself counts for nothing.
        status, body = ask(way.http(), "GET", "/client", X_Forwarded_For="6.6.6.6")
        equal(status, 200)
        seen = json.loads(body)
        peer = seen["address"].rpartition(":")[0]
        if way.has_header:
            equal((peer, seen["forwarded_for"]), (CLIENT, "6.6.6.6"))
        else:
            equal((peer, seen["forwarded_for"]), ("127.0.0.1", CLIENT))

    def address_of_sockets() -> None:
        async def address() -> None:
            async with asyncio.timeout(SECONDS), way.socket("/ask", subprotocols=["ask"]) as socket:
                await socket.send("address")
                own = f"{CLIENT}:{socket.local_address[1]}"
                seen = await socket.recv()
                equal(seen if way.has_header else seen.rpartition(":")[0], own if way.has_header else "127.0.0.1")

        asyncio.run(address())

    def refused() -> None:
        upgrade = {"Upgrade": "websocket", "Connection": "Upgrade", "Sec_WebSocket_Version": "13"}
        equal(ask(way.http(), "GET", "/echo", **upgrade)[0], 400)
        equal(ask(way.http(), "GET", "/echo")[0], 426)

    run.run(f"{way.name}: messages of 0 bytes to 1 MiB", on_socket(messages.echoes))
    run.run(f"{way.name}: fragments", on_socket(messages.fragments))
    run.run(f"{way.name}: pings", on_socket(messages.ping))
    run.run(f"{way.name}: 100 messages in flight", on_socket(messages.pipelined))
    run.run(f"{way.name}: close codes of both sides", client_closes_and_server_closes)
    run.run(f"{way.name}: requests and bodies", requests)
    run.run(f"{way.name}: the client's address in a request", address_of_requests)
    run.run(f"{way.name}: the client's address at a socket", address_of_sockets)
    run.run(f"{way.name}: a refused upgrade", refused)


def check_reuse(direct: Way, nginx: Way, run: Checks) -> None:
    def accepts() -> int:
        return json.loads(ask(direct.http(), "GET", "/stats")[1])["total"]["accepts"]

    def kept() -> None:
        connection = nginx.http()
        equal(ask(connection, "GET", "/healthz")[0], 200)
        before = accepts()
        for _ in range(REQUESTS):
            equal(ask(connection, "GET", "/healthz")[0], 200)
        # One for the question itself.
        equal(accepts() - before, 1)

    run.run(f"nginx: {REQUESTS} requests on a connection to the site", kept)


def check_refusals(proxied: Way, run: Checks) -> None:
    def no_header() -> None:
        try:
            answer = ask(proxied.http(), "GET", "/healthz")
        except (http.client.RemoteDisconnected, ConnectionResetError):
            return
        raise AssertionError(f"it was answered: {answer}")

    run.run("who sends no PROXY header is not answered", no_header)


@contextlib.contextmanager
def all_serving(site: str, driver: str, nginx: str, haproxy: str, directory: Path) -> Iterator[dict[str, int]]:
    """Runs three sites and the proxies in front of them, and gives everybody's ports."""
    ports = {name: free_port() for name in PORTS}
    certificate = ("--cert", str(directory / "cert.pem"), "--key", str(directory / "key.pem"))
    for name, text in (("nginx.conf", NGINX), ("haproxy.cfg", HAPROXY)):
        (directory / name).write_text(text.format(directory=directory, **ports))

    def listen(name: str, flag: str = "--listen") -> tuple[str, str]:
        return flag, f"127.0.0.1:{ports[name]}"

    site_on_driver = (site, "--driver", driver, "--pin", "none")
    behind_headers = (*listen("proxied_tls", "--tls-listen"), *certificate, "--proxy-protocol", TRUSTED)
    with contextlib.ExitStack() as programs:

        def serve(name: str, port: str, *command: str) -> None:
            programs.enter_context(serving(directory / f"{name}.log", *command, port=ports[port]))

        serve("site", "plain", *site_on_driver, *listen("plain"))
        serve("site-behind-two", "behind_two", *site_on_driver, *listen("behind_two"), "--forwarded-hops", "2")
        serve("site-proxied", "proxied_tls", *site_on_driver, *listen("proxied"), *behind_headers)
        serve("nginx", "nginx", nginx, "-c", str(directory / "nginx.conf"), "-p", str(directory))
        serve("haproxy", "haproxy", haproxy, "-db", "-f", str(directory / "haproxy.cfg"))
        yield ports


def main() -> None:
    site, driver, nginx, haproxy, directory = sys.argv[1:]
    run = Checks("proxies")
    with all_serving(site, driver, nginx, haproxy, Path(directory)) as ports:
        behind_nginx = Way("nginx", ports["nginx"])
        for way in (
            behind_nginx,
            Way("haproxy", ports["haproxy"]),
            Way("haproxy before nginx", ports["haproxy_first"]),
            Way("haproxy, PROXY 1", ports["v1"], has_header=True),
            Way("haproxy, PROXY 2", ports["v2"], has_header=True),
            Way("haproxy, PROXY 1 before TLS", ports["v1_tls"], is_secure=True, has_header=True),
            Way("haproxy, PROXY 2 before TLS", ports["v2_tls"], is_secure=True, has_header=True),
        ):
            check_way(way, run)
        check_reuse(Way("direct", ports["plain"]), behind_nginx, run)
        check_refusals(Way("direct", ports["proxied"]), run)
    run.exit()


main()
