"""Checks the `client` example against real servers and through real proxies.

check_client.py CLIENT TUNGSTENITE_SERVER DIRECTORY: cert.pem and key.pem are in the directory, and logs go there.
"""

import contextlib
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import checks
from checks import Checks, equal
from program import Run, Served, free_port, run_client, serving

HERE = Path(__file__).parent
USER = "user"
# tinyproxy knows letters and digits only.
WORD = "password"
PASSWORD, ENCODED = "pass:word/@", "pass%3Aword%2F%40"
TEXTS = [line.replace("\0", "").encode() for line in ("", "x", checks.UNICODE, "ab" * 60_000)]
# Lines of the program have no line feeds, and lose a carriage return at their end.
BINARY = [bytes(byte for byte in range(256) if byte not in b"\r\n") * count for count in (1, 300)]


class Client:
    """The client example, and what it is checked with."""

    def __init__(self, program: str, directory: Path) -> None:
        self.program = program
        self.directory = directory
        self.certificate = str(directory / "cert.pem")
        self.key = str(directory / "key.pem")

    def run(self, *flags: str, lines: list[bytes] | None = None) -> Run:
        return run_client([self.program, "--linger", "0", *flags], lines or [])

    def echo(self, *flags: str, lines: list[bytes] = TEXTS) -> Run:
        run = self.run(*flags, lines=lines)
        if run.status:
            raise AssertionError(run.told)
        equal(run.lines, lines)
        return run

    def failure(self, *flags: str, within: float = 30) -> str:
        """What the client says that is to fail, in bounded time."""
        run = self.run("--timeout", "20s", *flags)
        equal((run.status, run.lines), (1, []))
        if run.seconds > within:
            raise AssertionError(f"it took {run.seconds:.1f} s")
        return run.told


def has(text: str, *parts: str) -> None:
    for part in parts:
        if part not in text:
            raise AssertionError(f"{part!r} is not in {text!r}")


def check_server(client: Client, name: str, command: list[str], *, deflate: bool) -> None:
    run = Checks(name).run
    with serving(client.directory / f"{name}.log", *command, "PORT") as served:
        url = f"ws://127.0.0.1:{served.port}/"
        run("text", lambda: client.echo(url))
        run("binary", lambda: client.echo(url, "--binary", lines=BINARY))
        run("ping", lambda: has(client.echo(url, "--ping", "hello").told, "Pong"))
        run("close code and reason", lambda: check_close(client, url))
        run("compression offered", lambda: check_deflate(client, url, agreed=deflate))
        run("compression not offered", lambda: check_no_deflate(client, url))


def check_close(client: Client, url: str) -> None:
    code = ["--close-code", str(checks.CLOSE_CODE), "--close-reason", checks.CLOSE_REASON]
    has(client.echo(url, *code).told, f"closed: {checks.CLOSE_CODE}")


def check_deflate(client: Client, url: str, *, agreed: bool) -> None:
    lines = TEXTS + [b"the same again and again"] * 20 + TEXTS
    told = client.echo(url, "--deflate", lines=lines).told
    equal("compression: agreed on" in told, agreed)
    client.echo(url, "--deflate", "--binary", lines=BINARY * 2)


def check_no_deflate(client: Client, url: str) -> None:
    equal("compression" in client.echo(url).told, False)


def check_server_over_tls(client: Client, name: str, command: list[str]) -> None:
    run = Checks(f"{name} over TLS").run
    files = [client.certificate, client.key]
    log = client.directory / f"{name}-tls.log"
    with serving(log, *command, "PORT", *files) as served:
        for host in ("localhost", "127.0.0.1"):
            url = f"wss://{host}:{served.port}/"
            run(f"{host} with --ca", lambda url=url: client.echo(url, "--ca", client.certificate))
        run("compression", lambda: client.echo(url, "--ca", client.certificate, "--deflate"))
        run("--insecure", lambda: client.echo(url, "--insecure"))
        run("a certificate of nobody", lambda: has(client.failure(url), "certificate"))


def check_refusals(client: Client, served: Served) -> None:
    run = Checks("refusals").run
    url = f"ws://127.0.0.1:{served.port}"
    run("401 with a body", lambda: has(client.failure(f"{url}/refuse"), "401", "Who are you?"))
    subprotocol = ["--protocol", "other", "--protocol", "echo"]
    run("subprotocol", lambda: has(client.echo(f"{url}/", *subprotocol).told, "subprotocol: echo"))
    nobody = f"ws://127.0.0.1:{free_port()}/"
    run("nobody listens", lambda: has(client.failure(nobody), "cannot connect", "refused"))
    name = "no-such-host.invalid"
    run("no such name", lambda: has(client.failure(f"ws://{name}/"), f"cannot find {name}"))


@contextlib.contextmanager
def tinyproxy(client: Client, name: str, *lines: str) -> Iterator[Served]:
    port = free_port()
    settings = client.directory / f"{name}.conf"
    common = [f"Port {port}", "Listen 127.0.0.1", "Timeout 60", "MaxClients 20", "LogLevel Connect"]
    settings.write_text("\n".join([*common, *lines, ""]))
    log = client.directory / f"{name}.log"
    with serving(log, "/usr/bin/tinyproxy", "-d", "-c", str(settings), port=port) as served:
        yield served


def check_connect(client: Client, servers: tuple[Served, Served]) -> None:
    plain, _ = servers
    with (
        tinyproxy(client, "tinyproxy") as free,
        tinyproxy(client, "tinyproxy-auth", f"BasicAuth {USER} {WORD}") as closed,
    ):
        has_passed = lambda proxy, server: has(proxy.log(), f"CONNECT 127.0.0.1:{server.port}")
        login = f"http://{USER}:{WORD}@"
        check_proxy(client, "tinyproxy", login, (free, closed), servers, has_passed)
        run = Checks("tinyproxy").run
        url = f"ws://127.0.0.1:{plain.port}/"
        address = f"127.0.0.1:{closed.port}"
        run("no password", lambda: has(client.failure(url, "-x", f"http://{address}"), "407"))
        wrong = f"http://{USER}:wrong@{address}"
        run("a wrong password", lambda: has(client.failure(url, "-x", wrong), "401"))


def check_socks(client: Client, servers: tuple[Served, Served]) -> None:
    plain, _ = servers
    command = ["/usr/bin/microsocks", "-i", "127.0.0.1", "-p", "PORT"]
    log = client.directory / "microsocks.log"
    log_of_closed = client.directory / "microsocks-auth.log"
    with (
        serving(log, *command) as free,
        serving(log_of_closed, *command, "-u", USER, "-P", PASSWORD) as closed,
    ):
        has_passed = lambda proxy, server: has(proxy.log(), f"127.0.0.1:{server.port}")
        login = f"socks5://{USER}:{ENCODED}@"
        check_proxy(client, "microsocks", login, (free, closed), servers, has_passed)
        run = Checks("microsocks").run
        named = [f"ws://localhost:{plain.port}/", "-x", f"socks5h://127.0.0.1:{free.port}"]
        run("a name that the proxy looks up", lambda: client.echo(*named))
        unknown = ["ws://no-such-host.invalid/", "-x", f"socks5h://127.0.0.1:{free.port}"]
        run("a name that it does not find", lambda: has(client.failure(*unknown), "proxy"))
        url = f"ws://127.0.0.1:{plain.port}/"
        address = f"127.0.0.1:{closed.port}"
        run("no password", lambda: has(client.failure(url, "-x", f"socks5://{address}"), "proxy"))
        wrong = f"socks5://{USER}:wrong@{address}"
        run("a wrong password", lambda: has(client.failure(url, "-x", wrong), "proxy"))


def check_proxy(
    client: Client,
    name: str,
    login: str,
    proxies: tuple[Served, Served],
    servers: tuple[Served, Served],
    has_passed: Callable[[Served, Served], None],
) -> None:
    """Plain and over TLS, through a proxy for everybody and one that asks for a password. `login` is the beginning of the
    second one's URL."""
    run = Checks(name).run
    without = login.split("//")[0] + "//"
    for proxy, prefix in zip(proxies, (without, login), strict=True):
        for server, scheme in zip(servers, ("ws", "wss"), strict=True):

            def check(proxy=proxy, prefix=prefix, server=server, scheme=scheme) -> None:
                url = f"{scheme}://127.0.0.1:{server.port}/"
                through = f"{prefix}127.0.0.1:{proxy.port}"
                client.echo(url, "--ca", client.certificate, "-x", through)
                has_passed(proxy, server)

            run(f"{scheme}{' with a password' if prefix == login else ''}", check)


def main(program: str, tungstenite: str, directory: str) -> None:
    client = Client(program, Path(directory))
    websockets = [sys.executable, str(HERE / "server_websockets.py")]
    ws = ["node", str(HERE / "server_ws.mjs")]
    check_server(client, "websockets", websockets, deflate=True)
    check_server(client, "ws", ws, deflate=True)
    check_server(client, "tokio-tungstenite", [tungstenite], deflate=False)
    check_server_over_tls(client, "websockets", websockets)
    check_server_over_tls(client, "ws", ws)
    log, tls_log = client.directory / "server.log", client.directory / "server-tls.log"
    with (
        serving(log, *websockets, "PORT") as plain,
        serving(tls_log, *websockets, "PORT", client.certificate, client.key) as secure,
    ):
        check_refusals(client, plain)
        check_connect(client, (plain, secure))
        check_socks(client, (plain, secure))


if __name__ == "__main__":
    main(*sys.argv[1:])
