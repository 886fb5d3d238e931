"""Checks TLS itself, with `openssl s_client`, `curl` and Python's ssl: client_openssl.py URL CERTIFICATE.

URL begins with `wss://`; CERTIFICATE is the PEM file of the certificate that the server shows.
"""

import re
import socket
import ssl
import subprocess
import sys
import tempfile
from pathlib import Path
from urllib.parse import urlsplit

from checks import Checks, equal

SECONDS = 60
VERSIONS = ("1.2", "1.3")

# With the key and the answer of RFC 6455 §1.3.
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
ACCEPT = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
# Masked with zeros: the close code is 1000.
CLOSE_FRAME = b"\x88\x82\0\0\0\0\x03\xe8"


class Peer:
    """The server, and the certificate by which it is known."""

    def __init__(self, url: str, certificate: str) -> None:
        self.address = urlsplit(url).netloc
        self.certificate = certificate

    def s_client(self, *options: str) -> str:
        """What s_client has to say about a connection that is kept until the server ends it."""
        output, status = self.try_s_client(*options)
        if status != 0:
            raise AssertionError(f"s_client's exit status was {status}\n{output}")
        return output

    def try_s_client(self, *options: str) -> tuple[str, int]:
        return run(
            *("openssl", "s_client", "-connect", self.address, "-CAfile", self.certificate),
            *("-verify_return_error", "-verify_ip", "127.0.0.1", "-msg", "-ign_eof", *options),
            to_send=REQUEST + CLOSE_FRAME,
        )

    def try_to_say(self, to_send: bytes, *options: str) -> tuple[bytes, int]:
        """What comes through s_client, and its exit status."""
        command = ("openssl", "s_client", "-connect", self.address, "-CAfile", self.certificate)
        result = subprocess.run(
            (*command, "-verify_return_error", "-quiet", "-ign_eof", *options),
            input=to_send,
            capture_output=True,
            timeout=SECONDS,
        )
        return result.stdout, result.returncode

    def curl(self, *options: str, scheme: str = "https") -> str:
        output, status = run(
            *("curl", "--silent", "--show-error", "--cacert", self.certificate, *options),
            f"{scheme}://{self.address}/",
        )
        if status != 0:
            raise AssertionError(f"curl's exit status was {status}\n{output}")
        return output

    def connect(self) -> socket.socket:
        host, port = self.address.split(":")
        return socket.create_connection((host, int(port)), timeout=SECONDS)


def run(*command: str, to_send: bytes = b"") -> tuple[str, int]:
    result = subprocess.run(command, input=to_send, capture_output=True, timeout=SECONDS)
    return (result.stdout + result.stderr).decode(errors="replace"), result.returncode


def finds(pattern: str, output: str) -> None:
    if not re.search(pattern, output, re.MULTILINE):
        raise AssertionError(f"no {pattern!r} in\n{output}")


def upgrade(peer: Peer, version: str) -> None:
    output = peer.s_client(tls(version), "-alpn", "http/1.1")
    finds(rf"^New, TLSv{version}, Cipher is ", output)
    finds(r"Verify return code: 0 \(ok\)", output)
    finds("^ALPN protocol: http/1.1", output)
    finds("^HTTP/1.1 101 ", output)
    finds(f"(?i)^sec-websocket-accept: {re.escape(ACCEPT)}", output)


def clean_close(peer: Peer, version: str) -> None:
    # The close frame is answered first: then close_notify, and only then the end of the stream.
    output = peer.s_client(tls(version))
    finds(rf"^<<< TLS {version}, Alert .*\bclose_notify$", output)
    finds("^closed$", output)


def linger(peer: Peer, version: str) -> None:
    # 300 KB, a close frame, and a ping behind it: the echo and the close frame come, and a clean end.
    length = 300_000
    message = b"\x82\xff" + length.to_bytes(8, "big") + bytes(4) + b"x" * length
    ping = b"\x89\x80\0\0\0\0"
    output, status = peer.try_to_say(REQUEST + message + CLOSE_FRAME + ping, tls(version))
    equal(status, 0)
    echo = b"\x82\x7f" + length.to_bytes(8, "big") + b"x" * length
    equal(output.partition(b"\r\n\r\n")[2] == echo + b"\x88\x02\x03\xe8", True)


def resumption(peer: Peer, version: str) -> None:
    with tempfile.TemporaryDirectory() as directory:
        session = str(Path(directory) / "session.pem")
        finds(rf"^New, TLSv{version},", peer.s_client(tls(version), "-sess_out", session))
        output = peer.s_client(tls(version), "-sess_in", session)
    finds(rf"^Reused, TLSv{version},", output)
    finds("^HTTP/1.1 101 ", output)


def reconnect(peer: Peer) -> None:
    # Five more handshakes with the session of the first, which TLS 1.2 has at once.
    output = peer.s_client("-tls1_2", "-reconnect")
    equal(len(re.findall("^Reused, TLSv1.2,", output, re.MULTILINE)), 5)


def client_ends_first(peer: Peer, version: str) -> None:
    context = ssl.create_default_context(cafile=peer.certificate)
    context.minimum_version = context.maximum_version = {
        "1.2": ssl.TLSVersion.TLSv1_2,
        "1.3": ssl.TLSVersion.TLSv1_3,
    }[version]
    with context.wrap_socket(peer.connect(), server_hostname="localhost") as stream:
        stream.sendall(REQUEST)
        # The whole head comes in one record.
        head = stream.recv(1024)
        equal((head[:12], head[-4:]), (b"HTTP/1.1 101", b"\r\n\r\n"))
        # Sends close_notify, and fails unless one comes back.
        stream.unwrap().close()


def old_version(peer: Peer) -> None:
    # OpenSSL has to be talked into TLS 1.1. Without the extensions of later versions rustls says
    # handshake_failure where RFC 5246 §E.1 has protocol_version.
    output, status = peer.try_s_client("-tls1_1", "-cipher", "DEFAULT:@SECLEVEL=0")
    equal(status, 1)
    finds(r"^<<< TLS 1\.\d, Alert .*\bfatal (protocol_version|handshake_failure)$", output)


def page(peer: Peer, version: str) -> None:
    body = peer.curl(f"--tlsv{version}", "--tls-max", version)
    finds("new WebSocket", body)


def plain_http(peer: Peer) -> None:
    answer = peer.curl("--include", scheme="http")
    finds("^HTTP/1.1 400 ", answer)
    finds("This port speaks TLS", answer)


def garbage(peer: Peer) -> None:
    with peer.connect() as stream:
        stream.sendall(bytes(range(128, 192)))
        # An alert or nothing at all, but an end.
        while stream.recv(1024):
            pass
    upgrade(peer, "1.3")


def tls(version: str) -> str:
    return f"-tls{version.replace('.', '_')}"


def main(url: str, certificate: str) -> None:
    peer = Peer(url, certificate)
    checks = Checks("openssl")
    for version in VERSIONS:
        name = f"TLS {version}"
        checks.run(f"{name}, and an upgrade by hand", lambda: upgrade(peer, version))
        checks.run(f"{name}, close_notify at the end", lambda: clean_close(peer, version))
        checks.run(f"{name}, echo and Close before a late ping", lambda: linger(peer, version))
        checks.run(
            f"{name}, close_notify answered",
            lambda: client_ends_first(peer, version),
        )
        checks.run(f"{name}, session resumed", lambda: resumption(peer, version))
        checks.run(f"{name}, page fetched by curl", lambda: page(peer, version))
    checks.run("TLS 1.2, session resumed five times", lambda: reconnect(peer))
    checks.run("TLS 1.1 refused", lambda: old_version(peer))
    checks.run("plain HTTP answered with a 400", lambda: plain_http(peer))
    checks.run("garbage instead of a handshake", lambda: garbage(peer))
    checks.exit()


if __name__ == "__main__":
    main(*sys.argv[1:])
