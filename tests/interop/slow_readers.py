"""Checks that who reads slowly stays and who reads nothing goes: slow_readers.py SCHEME LOG COMMAND...

COMMAND is an echo server of this project, which is told where to listen, over TLS if SCHEME is `wss`. It runs with short
limits, so that each check takes twenty seconds or so, and its output goes to LOG. The checks run side by side.
"""

import contextlib
import queue
import select
import sys
import threading
import time
from functools import partial
from pathlib import Path

from checks import Checks, equal
from client_endings import BINARY, CLOSE, PING, PONG, TEXT, frame, side_by_side, upgraded
from program import free_port, serving

# More than a machine may stall for while readers are to read.
STALL = 4
SETTINGS = (
    *("--set", f"write_stall_timeout={STALL}s"),
    *("--set", "ping_interval=1s"),
    *("--set", f"pong_timeout={STALL}s"),
    *("--set", "max_queued_len=64MiB"),
)
# Longer than all limits together.
LASTS = 5 * STALL
RATE = 60_000
RECEIVE_BUFFER = 32 << 10
CHUNK = 256 << 10


class Reader:
    """A peer that asks for an echo of so many bytes, reads at some rate, and answers pings in their turn."""

    def __init__(self, url: str, chunks: int, length: int = CHUNK) -> None:
        self.stream = upgraded(url, RECEIVE_BUFFER)
        self.stream.socket.settimeout(None)
        self.begin, self.before = time.monotonic(), self.stream.received
        self.pending = bytearray()
        # Payloads of messages that came, and how many pings.
        self.heard: list[bytes] = []
        self.pings = 0
        self.outgoing: queue.Queue[bytes] = queue.Queue()
        for _ in range(chunks):
            self.say(BINARY, b"x" * length)
        threading.Thread(target=self.send, daemon=True).start()

    def say(self, opcode: int, payload: bytes) -> None:
        self.outgoing.put(self.stream.seal(frame(opcode, payload), ended=False))

    def send(self) -> None:
        # The server ends some, and does not read while its replies wait.
        with contextlib.suppress(OSError):
            while True:
                self.stream.socket.sendall(self.outgoing.get())

    def take(self) -> None:
        """Reads some, if it is time for that."""
        due = self.begin + (self.stream.received - self.before) / RATE
        time.sleep(max(0.0, due - time.monotonic()))
        received = self.stream.receive(RATE // 10)
        if not received:
            raise AssertionError("the server has ended the stream")
        self.pending += received
        while self.take_frame():
            pass

    def take_frame(self) -> bool:
        if len(self.pending) < 2:
            return False
        length, start = self.pending[1], 2
        extended = {126: 2, 127: 8}.get(length, 0)
        if extended:
            start += extended
            length = int.from_bytes(self.pending[2:start], "big")
        if len(self.pending) < max(start, start + length):
            return False
        opcode, payload = self.pending[0] & 15, bytes(self.pending[start : start + length])
        del self.pending[: start + length]
        if opcode == PING:
            self.pings += 1
            self.say(PONG, payload)
        elif opcode == CLOSE:
            raise AssertionError(f"the server has closed: {payload!r}")
        else:
            self.heard.append(payload)
        return True


def steady(url: str) -> None:
    reader = Reader(url, 24)
    end = time.monotonic() + LASTS
    while time.monotonic() < end:
        reader.take()
    equal(len(reader.heard) >= 1, True)
    reader.stream.socket.close()


def one_reply(url: str) -> None:
    length = RATE * LASTS // 2
    reader = Reader(url, 1, length)
    begin = time.monotonic()
    while not reader.heard:
        reader.take()
    equal(time.monotonic() - begin > 2 * STALL, True)
    equal(reader.heard.pop(), b"x" * length)
    reader.say(TEXT, b"still here")
    while not reader.heard:
        reader.take()
    equal(reader.heard, [b"still here"])
    equal(reader.pings > 0, True)
    reader.stream.socket.close()


def nothing(url: str) -> None:
    reader = Reader(url, 96)
    poll = select.poll()
    # Nothing but the end of the connection.
    poll.register(reader.stream.socket, 0)
    ended = poll.poll(1000 * LASTS)
    took = time.monotonic() - reader.begin
    if not ended or took < STALL:
        raise AssertionError(f"ended: {ended} after {took:.1f} s")


def main() -> None:
    scheme, log, *command = sys.argv[1:]
    checks = Checks("slow readers")
    all_checks = {
        f"{RATE // 1000} KB/s for {LASTS} s": steady,
        "one long reply, and a ping behind it": one_reply,
        "who reads nothing is ended": nothing,
    }
    port = free_port()
    listen = ("--tls-listen" if scheme == "wss" else "--listen", f"127.0.0.1:{port}")
    url = f"{scheme}://127.0.0.1:{port}/"
    with serving(Path(log), *command, *listen, *SETTINGS, port=port):
        side_by_side(checks, {name: partial(check, url) for name, check in all_checks.items()})
    checks.exit()


if __name__ == "__main__":
    main()
