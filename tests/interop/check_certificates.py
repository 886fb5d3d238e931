"""Checks what people have and do: certificates as `openssl req -x509` makes them, and addresses with a zone.

check_certificates.py ECHO CLIENT DIRECTORY DRIVER: certificates and logs go to the directory.
"""

import os
import socket
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from checks import Checks, equal
from program import free_port, run_client, serving

LINES = [b"hello", "Grüße".encode()]


class Programs:
    """The server and the client, and where their files are."""

    def __init__(self, echo: str, client: str, directory: str, driver: str) -> None:
        self.echo = [echo, "--driver", driver, "--pin", "none", "--io-workers", "1"]
        self.client = client
        self.directory = Path(directory)

    def path(self, name: str) -> str:
        return str(self.directory / name)

    def openssl(self, *arguments: str) -> str:
        result = subprocess.run(
            ["openssl", *arguments], cwd=self.directory, capture_output=True, text=True, timeout=60, check=False
        )
        if result.returncode:
            raise AssertionError(result.stderr)
        return result.stdout + result.stderr

    @contextmanager
    def serving(self, cert: str, key: str) -> Iterator[tuple[int, str]]:
        port = free_port()
        address = f"127.0.0.1:{port}"
        flags = ["--listen", "127.0.0.1:0", "--tls-listen", address, "--cert", self.path(cert), "--key", self.path(key)]
        with serving(self.directory / f"{cert}.log", *self.echo, *flags, port=port) as served:
            yield port, served.log()

    def refusal(self, cert: str, key: str) -> str:
        """Why the server does not start."""
        flags = ["--tls-listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"]
        command = [*self.echo, *flags, "--cert", self.path(cert), "--key", self.path(key)]
        result = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        equal(result.returncode == 0, False)
        return result.stderr

    def connects(self, host: str, port: int, *flags: str) -> None:
        command = [self.client, "--linger", "0", *flags, f"wss://{host}:{port}/"]
        run = run_client(command, LINES)
        if run.status:
            raise AssertionError(run.told)
        equal(run.lines, LINES)

    def is_refused(self, host: str, port: int, *flags: str) -> str:
        run = run_client([self.client, "--linger", "0", *flags, f"wss://{host}:{port}/"], [])
        equal(run.status, 1)
        return run.told


def has(text: str, *parts: str) -> None:
    for part in parts:
        if part not in text:
            raise AssertionError(f"{part!r} is not in {text!r}")


def handshake(ca: str, port: int) -> None:
    """Python's ssl, with the certificate as the only authority."""
    context = ssl.create_default_context(cafile=ca)
    with (
        socket.create_connection(("127.0.0.1", port), timeout=60) as plain,
        context.wrap_socket(plain, server_hostname="localhost") as secure,
    ):
        secure.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        has(secure.recv(1 << 16).decode(), "HTTP/1.1 200 OK")


def curl(ca: str, port: int) -> None:
    url = f"https://localhost:{port}/"
    command = ["curl", "--silent", "--show-error", "--fail", "--cacert", ca, url]
    subprocess.run(command, capture_output=True, timeout=60, check=True)


def check_of_openssl(programs: Programs) -> None:
    """The command that everybody knows, to the letter."""
    run = Checks("openssl req -x509").run
    command = 'req -x509 -newkey rsa:2048 -keyout k -out c -days 365 -nodes -subj /CN=localhost'
    programs.openssl(*command.split())
    ca = programs.path("c")
    with programs.serving("c", "k") as (port, log):
        run("a warning names subjectAltName", lambda: has(log, "WARN", "subjectAltName"))
        run("client --ca", lambda: programs.connects("localhost", port, "--ca", ca))
        run("client without", lambda: has(programs.is_refused("localhost", port), "certificate"))
        other = lambda: has(programs.is_refused("127.0.0.1", port, "--ca", ca), "not valid for name")
        run("client --ca for another name", other)
        run("Python's ssl", lambda: handshake(ca, port))
        run("curl", lambda: curl(ca, port))
        # The server's key is RSA.
        run("no common signature scheme", lambda: check_alert(port, "-sigalgs", "ECDSA+SHA256"))
    programs.openssl(*command.split(), "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1")
    with programs.serving("c", "k") as (port, log):
        run("with names there is no warning", lambda: equal("subjectAltName" in log, False))
        run("client --ca for an address", lambda: programs.connects("127.0.0.1", port, "--ca", ca))
        run("Python's ssl with names", lambda: handshake(ca, port))


def check_alert(port: int, *flags: str) -> None:
    command = ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-tls1_2", *flags]
    result = subprocess.run(command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False)
    # handshake_failure (RFC 5246 §7.2).
    has(result.stderr + result.stdout, "SSL alert number 40")


def check_refusals(programs: Programs) -> None:
    run = Checks("certificates that cannot be used").run
    openssl = programs.openssl
    openssl("pkey", "-in", "k", "-aes256", "-passout", "pass:x", "-out", "encrypted")
    openssl("rsa", "-in", "k", "-aes256", "-traditional", "-passout", "pass:x", "-out", "encrypted-old")
    openssl("x509", "-in", "c", "-outform", "der", "-out", "der")
    openssl("pkcs12", "-export", "-in", "c", "-inkey", "k", "-passout", "pass:x", "-out", "p12")
    for kind, key in (("p521", "ec -pkeyopt ec_paramgen_curve:P-521"), ("rsa1024", "rsa:1024")):
        openssl("req", "-x509", "-newkey", *key.split(), "-keyout", f"{kind}.key", "-out", kind, "-nodes", "-subj", "/CN=x")
    openssl(*"req -x509 -newkey rsa:2048 -keyout ca.key -out ca -nodes -subj /CN=ca".split())
    names = "-addext subjectAltName=DNS:localhost -addext basicConstraints=critical,CA:FALSE"
    leaf = f"req -x509 -newkey rsa:2048 -keyout leaf.key -out leaf -nodes -subj /CN=x -CA ca -CAkey ca.key {names}"
    openssl(*leaf.split())
    read = lambda name: (programs.directory / name).read_bytes()
    (programs.directory / "reversed").write_bytes(read("ca") + read("leaf"))
    (programs.directory / "bom").write_bytes(b"\xef\xbb\xbf" + read("c"))
    for cert, key, parts in (
        ("c", "encrypted", ("is encrypted", "openssl pkey")),
        ("c", "encrypted-old", ("is encrypted", "openssl pkey")),
        ("der", "k", ("binary (DER or PKCS#12)", "openssl x509")),
        ("p12", "k", ("binary (DER or PKCS#12)", "openssl pkcs12")),
        ("bom", "k", ("byte order mark",)),
        ("reversed", "leaf.key", ("wrong order", "leaf first")),
        ("p521", "p521.key", ("P-521", "not supported", "use P-256")),
        ("rsa1024", "rsa1024.key", ("RSA of less than 2048 bits", "not supported", "use P-256")),
        ("c", "leaf.key", ("does not belong",)),
    ):
        run(f"{cert} with {key}", lambda cert=cert, key=key, parts=parts: has(programs.refusal(cert, key), *parts))


def check_zones(programs: Programs) -> None:
    """In a network namespace of its own, whose loopback interface has a link-local address."""
    run = Checks("IPv6 zones").run
    for zone in ("%25lo", "%lo"):
        command = ["unshare", "--net", sys.executable, __file__, "--zone", zone, programs.client]

        def check(command: list[str] = command) -> None:
            result = subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)
            equal((result.returncode, result.stderr), (0, ""))

        run(f"a URL with {zone}", check)


def inside(zone: str, client: str) -> None:
    """Listens on the link-local address, and looks at what the client says there."""
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    subprocess.run(["ip", "addr", "add", "fe80::9/64", "dev", "lo", "nodad"], check=True)
    scope = socket.if_nametoindex("lo")
    with socket.socket(socket.AF_INET6) as listener:
        listener.settimeout(60)
        listener.bind(("fe80::9", 0, 0, scope))
        listener.listen()
        port = listener.getsockname()[1]
        seen = []

        def answer() -> None:
            connection, _ = listener.accept()
            with connection:
                seen.append(connection.recv(1 << 16).decode())
                connection.sendall(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n")

        answering = threading.Thread(target=answer)
        answering.start()
        command = [client, f"ws://[fe80::9{zone}]:{port}/"]
        result = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=60, check=False
        )
        answering.join()
    has(result.stderr, "403")
    has(seen[0], f"\r\nHost: [fe80::9]:{port}\r\n")
    # RFC 6874 §4: it is of no use, and told to nobody.
    equal("%" in seen[0], False)


def main() -> None:
    if sys.argv[1] == "--zone":
        inside(*sys.argv[2:])
        return
    programs = Programs(*sys.argv[1:])
    os.makedirs(programs.directory, exist_ok=True)
    check_of_openssl(programs)
    check_refusals(programs)
    check_zones(programs)


if __name__ == "__main__":
    main()
