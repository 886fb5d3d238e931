"""Checks that SIGHUP makes the server show a new certificate, and that one it can't use changes nothing:
reload.py URL DIRECTORY SERVER_PID LOG.

DIRECTORY has the server's cert.pem and key.pem, which are replaced, and `next`, one with others.
"""

import hashlib
import os
import shutil
import signal
import socket
import ssl
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from checks import Checks, equal

SECONDS = 60


class Server:
    """The server's process, files and log."""

    def __init__(self, url: str, directory: str, pid: str, log: str) -> None:
        host, port = urlsplit(url).netloc.split(":")
        self.address = (host, int(port))
        self.directory = Path(directory)
        self.pid = int(pid)
        self.log = Path(log)

    def connect(self) -> ssl.SSLSocket:
        # Which certificate comes is what is asked here, so none is refused.
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
        return context.wrap_socket(socket.create_connection(self.address, timeout=SECONDS))

    def shown(self) -> str:
        """The fingerprint of the certificate that a handshake shows."""
        with self.connect() as stream:
            return fingerprint(stream)

    def reload(self, expected_log: str) -> str:
        """Sends SIGHUP, and returns the line of the log that it leads to."""
        seen = len(self.log.read_text())
        os.kill(self.pid, signal.SIGHUP)
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            # Whole lines: the last one may be there in part.
            for line in self.log.read_text()[seen:].rpartition("\n")[0].splitlines():
                if expected_log in line:
                    return line
            time.sleep(0.02)
        raise AssertionError(f"no {expected_log!r} in\n{self.log.read_text()[seen:]}")

    def install(self, source: Path, *names: str) -> None:
        for name in names:
            shutil.copyfile(source / name, self.directory / name)


def fingerprint(stream: ssl.SSLSocket) -> str:
    return hashlib.sha256(stream.getpeercert(binary_form=True) or b"").hexdigest()


def fingerprint_of(pem: Path) -> str:
    return hashlib.sha256(ssl.PEM_cert_to_DER_cert(pem.read_text())).hexdigest()


def new_certificate(server: Server) -> None:
    old, new = (
        fingerprint_of(directory / "cert.pem")
        for directory in (server.directory, server.directory / "next")
    )
    equal(server.shown(), old)
    with server.connect() as before:
        server.install(server.directory / "next", "cert.pem", "key.pem")
        # Files alone change nothing.
        equal(server.shown(), old)
        server.reload("certificates reloaded")
        equal(server.shown(), new)
        # A connection from before goes on.
        before.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
        equal(before.recv(12), b"HTTP/1.1 200")


def unusable(server: Server, name: str, content: bytes, reason: str) -> None:
    shown = server.shown()
    kept = (server.directory / name).read_bytes()
    (server.directory / name).write_bytes(content)
    try:
        line = server.reload("cannot reload the certificates: the previous ones stay in use")
        equal(server.shown(), shown)
        for words in (name, reason):
            if words not in line:
                raise AssertionError(f"no {words!r} in {line!r}")
    finally:
        (server.directory / name).write_bytes(kept)


def usable_again(server: Server) -> None:
    shown = server.shown()
    server.reload("certificates reloaded")
    equal(server.shown(), shown)


def main(*arguments: str) -> None:
    server = Server(*arguments)
    # That of the start, before `next` is installed over it.
    other_key = (server.directory / "key.pem").read_bytes()
    garbage = b"-----BEGIN CERTIFICATE-----\nbroken\n-----END CERTIFICATE-----\n"
    checks = Checks("reload")
    checks.run("SIGHUP shows the new certificate", lambda: new_certificate(server))
    for what, name, content, reason in (
        ("a broken certificate", "cert.pem", garbage, "cannot be parsed"),
        ("an empty certificate", "cert.pem", b"", "holds no certificate"),
        ("an empty key", "key.pem", b"", "holds no private key"),
        ("the key of another certificate", "key.pem", other_key, "does not belong"),
    ):
        checks.run(
            f"SIGHUP with {what}: the old one stays",
            lambda: unusable(server, name, content, reason),
        )
    checks.run("SIGHUP with a good one again", lambda: usable_again(server))
    checks.exit()


if __name__ == "__main__":
    main(*sys.argv[1:])
