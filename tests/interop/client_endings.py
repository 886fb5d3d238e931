"""Checks how connections end, with Python's sockets, OpenSSL and `websockets`: client_endings.py URL.

The checks run side by side. Over TLS the end of a stream is close_notify, and TCP stays open.
"""

import socket
import ssl
import struct
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import websockets.exceptions
import websockets.sync.client
from checks import Checks, equal

SECONDS = 60
COUNT = 20_000
LENGTH = 100
REQUEST = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
)
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
CLOSE_PAYLOAD = b"\x03\xe8bye"
LATE = {"ping": (PING, b""), "text": (TEXT, b"late"), "second close": (CLOSE, b"\x03\xe8")}


class Stream:
    """A connection, plain or over TLS, whose ends of stream are its own to give."""

    def __init__(self, url: str, receive_buffer: int = 0) -> None:
        address = urlsplit(url)
        self.socket = socket.socket()
        self.socket.settimeout(SECONDS)
        if receive_buffer:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
        self.socket.connect((address.hostname, address.port))
        # What has come over the wire, in bytes.
        self.received = 0
        self.tls = None
        if address.scheme == "wss":
            self.incoming, self.outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
            self.tls = ssl.create_default_context().wrap_bio(
                self.incoming, self.outgoing, server_hostname=address.hostname
            )
            while not self.shake_hands():
                pass

    def shake_hands(self) -> bool:
        try:
            self.tls.do_handshake()
        except ssl.SSLWantReadError:
            self.socket.sendall(self.outgoing.read())
            self.incoming.write(self.socket.recv(65536))
            return False
        self.socket.sendall(self.outgoing.read())
        return True

    def seal(self, data: bytes, *, ended: bool) -> bytes:
        """What goes over the wire."""
        if self.tls is None:
            return data
        # One record at a time: a write of more could be taken in part.
        for start in range(0, len(data), 16384):
            self.tls.write(data[start : start + 16384])
        if ended:
            try:
                self.tls.unwrap()
            except ssl.SSLWantReadError:
                # close_notify is said, and the server's is for later.
                pass
        return self.outgoing.read()

    def say(self, data: bytes) -> None:
        self.socket.sendall(self.seal(data, ended=False))

    def say_and_end(self, data: bytes) -> threading.Thread:
        sealed = self.seal(data, ended=True)

        def send() -> None:
            self.socket.sendall(sealed)
            if self.tls is None:
                self.socket.shutdown(socket.SHUT_WR)

        sender = threading.Thread(target=send)
        sender.start()
        return sender

    def receive(self, most: int = 65536) -> bytes:
        """Some bytes, of which `most` come over the wire; none at the end of the stream. A reset is an error, and so is FIN
        without close_notify."""
        if self.tls is None:
            return self.receive_raw(most)
        while True:
            try:
                return self.tls.read(65536)
            except ssl.SSLZeroReturnError:
                return b""
            except ssl.SSLWantReadError:
                received = self.receive_raw(most)
                if received:
                    self.incoming.write(received)
                else:
                    self.incoming.write_eof()

    def receive_raw(self, most: int) -> bytes:
        received = self.socket.recv(most)
        self.received += len(received)
        return received

    def rest(self) -> bytes:
        """All until the end of the stream, and then FIN."""
        everything = b"".join(iter(self.receive, b""))
        if self.tls is not None:
            equal(self.socket.recv(1), b"")
        self.socket.close()
        return everything


def frame(opcode: int, payload: bytes) -> bytes:
    """A client's frame, masked with zeros."""
    return header(opcode, len(payload), 0x80) + bytes(4) + payload


def reply(opcode: int, payload: bytes) -> bytes:
    return header(opcode, len(payload), 0) + payload


def header(opcode: int, length: int, mask: int) -> bytes:
    if length < 126:
        return struct.pack("!BB", 0x80 | opcode, mask | length)
    if length < 65536:
        return struct.pack("!BBH", 0x80 | opcode, mask | 126, length)
    return struct.pack("!BBQ", 0x80 | opcode, mask | 127, length)


def numbered(number: int) -> bytes:
    return struct.pack("!I", number).ljust(LENGTH, b"x")


def same(actual: bytes, expected: bytes) -> None:
    # Without printing a mebibyte.
    equal(len(actual), len(expected))
    if actual != expected:
        raise AssertionError("the bytes differ")


def upgraded(url: str, receive_buffer: int = 0) -> Stream:
    stream = Stream(url, receive_buffer)
    stream.say(REQUEST)
    head = b""
    while not head.endswith(b"\r\n\r\n"):
        received = stream.receive()
        if not received:
            raise AssertionError(f"the stream ends in {head!r}")
        head += received
    equal(head[:13], b"HTTP/1.1 101 ")
    return stream


def half_close(url: str) -> None:
    stream = upgraded(url)
    sender = stream.say_and_end(b"".join(frame(BINARY, numbered(it)) for it in range(COUNT)))
    # Replies wait in the server.
    time.sleep(0.3)
    same(stream.rest(), b"".join(reply(BINARY, numbered(it)) for it in range(COUNT)))
    sender.join()


def all_at_once(url: str) -> None:
    stream = Stream(url)
    stream.say_and_end(REQUEST + frame(TEXT, b"hello")).join()
    answer = stream.rest()
    equal((answer[:13], answer[-11:]), (b"HTTP/1.1 101 ", b"\r\n\r\n" + reply(TEXT, b"hello")))


def close_and_end(url: str) -> None:
    payload = b"x" * (1 << 20)
    stream = upgraded(url)
    sender = stream.say_and_end(frame(BINARY, payload) + frame(CLOSE, CLOSE_PAYLOAD))
    same(stream.rest(), reply(BINARY, payload) + reply(CLOSE, CLOSE_PAYLOAD))
    sender.join()


def linger(url: str, late: tuple[int, bytes]) -> None:
    payload = b"x" * 300_000
    stream = upgraded(url)
    stream.say(frame(BINARY, payload) + frame(CLOSE, CLOSE_PAYLOAD))
    time.sleep(0.02)
    stream.say(frame(*late))
    time.sleep(0.3)
    same(stream.rest(), reply(BINARY, payload) + reply(CLOSE, CLOSE_PAYLOAD))


def library(url: str) -> None:
    # The library has no half-close of its own, and Python's sockets over TLS have none.
    with websockets.sync.client.connect(url, proxy=None, open_timeout=SECONDS) as connection:
        for number in range(1000):
            connection.send(numbered(number))
        connection.socket.shutdown(socket.SHUT_WR)
        heard = 0
        try:
            while True:
                equal(connection.recv(timeout=SECONDS), numbered(heard))
                heard += 1
        except websockets.exceptions.ConnectionClosedError:
            equal(heard, 1000)


def side_by_side(checks: Checks, all_checks: dict[str, Callable[[], None]]) -> None:
    with ThreadPoolExecutor(len(all_checks)) as pool:
        running = {name: pool.submit(check) for name, check in all_checks.items()}
        for name, check in running.items():
            checks.run(name, check.result)


def main() -> None:
    url = sys.argv[1]
    checks = Checks("endings")
    all_checks = {
        f"{COUNT} messages and the end of the stream: all replies": lambda: half_close(url),
        "request, message and end at once": lambda: all_at_once(url),
        "1 MiB, Close and the end of the stream": lambda: close_and_end(url),
    }
    for name, late in LATE.items():
        all_checks[f"300 KB, Close and a late {name}"] = lambda late=late: linger(url, late)
    if url.startswith("ws:"):
        all_checks["websockets: replies after a half-close"] = lambda: library(url)
    side_by_side(checks, all_checks)
    checks.exit()


if __name__ == "__main__":
    main()
