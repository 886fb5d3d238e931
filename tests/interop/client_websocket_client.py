"""Checks the echo server with the Python client `websocket-client`: client_websocket_client.py URL."""

import struct
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

from websocket import ABNF, WebSocket, create_connection

import checks
from checks import Checks, equal


def echoes(socket: WebSocket) -> None:
    for length in checks.LENGTHS:
        socket.send_text(checks.text(length))
        equal(socket.recv_data(), (ABNF.OPCODE_TEXT, checks.text(length).encode()))
        socket.send_binary(checks.binary(length))
        equal(socket.recv_data(), (ABNF.OPCODE_BINARY, checks.binary(length)))


def unicode(socket: WebSocket) -> None:
    socket.send(checks.UNICODE)
    equal(socket.recv(), checks.UNICODE)


def fragments(socket: WebSocket) -> None:
    socket.send_frame(ABNF.create_frame("one, ", ABNF.OPCODE_TEXT, fin=0))
    socket.send_frame(ABNF.create_frame("", ABNF.OPCODE_CONT, fin=0))
    socket.ping("between fragments")
    socket.send_frame(ABNF.create_frame("two", ABNF.OPCODE_CONT, fin=1))
    opcode, frame = socket.recv_data_frame(control_frame=True)
    equal((opcode, frame.data), (ABNF.OPCODE_PONG, b"between fragments"))
    equal(socket.recv(), "one, two")


def ping(socket: WebSocket) -> None:
    for payload in (b"", b"are you there?", checks.binary(125)):
        socket.ping(payload)
        opcode, frame = socket.recv_data_frame(control_frame=True)
        equal((opcode, frame.data), (ABNF.OPCODE_PONG, payload))


def unsolicited_pong(socket: WebSocket) -> None:
    socket.pong("nobody asked")
    unicode(socket)


def close(socket: WebSocket) -> None:
    reason = checks.CLOSE_REASON.encode()
    socket.send_close(checks.CLOSE_CODE, reason)
    frame = socket.recv_frame()
    equal(frame.opcode, ABNF.OPCODE_CLOSE)
    equal(frame.data, struct.pack("!H", checks.CLOSE_CODE) + reason)


def concurrent(url: str) -> None:
    def one(number: int) -> None:
        socket = create_connection(url, timeout=60)
        for index in range(checks.MESSAGES):
            message = f"connection {number}, message {index}"
            socket.send(message)
            equal(socket.recv(), message)
        socket.close()

    with ThreadPoolExecutor(checks.CONNECTIONS) as threads:
        for _ in threads.map(one, range(checks.CONNECTIONS)):
            pass


def connected(url: str, check: Callable[[WebSocket], None]) -> None:
    socket = create_connection(url, timeout=60)
    try:
        check(socket)
    finally:
        socket.shutdown()


def main(url: str) -> None:
    run = Checks("websocket-client")
    for name, check in {
        "text and binary, empty to 1 MiB": echoes,
        "unicode": unicode,
        "fragmented message with a ping inside": fragments,
        "ping answered with its payload": ping,
        "unsolicited pong": unsolicited_pong,
        "close code and reason echoed": close,
    }.items():
        run.run(name, lambda: connected(url, check))
    run.run(f"{checks.CONNECTIONS} connections at once", lambda: concurrent(url))
    run.exit()


if __name__ == "__main__":
    main(sys.argv[1])
