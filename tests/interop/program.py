"""Programs that the checks run: servers and proxies, each on a port of its own, and the client."""

import contextlib
import random
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

SECONDS = 60
# Below those that the kernel gives to clients (`ip_local_port_range`): none of them takes one meanwhile.
PORTS = range(10_000, 30_000)
given: set[int] = set()


@dataclass
class Served:
    """A program that listens."""

    port: int
    log_file: Path

    def log(self) -> str:
        return self.log_file.read_text(errors="replace")


def free_port() -> int:
    """One at which nothing listens; no port is given twice."""
    for port in random.sample(PORTS, len(PORTS)):
        with contextlib.suppress(OSError), socket.create_server(("127.0.0.1", port)):
            if port not in given:
                given.add(port)
                return port
    raise RuntimeError("there are no ports left")


@contextlib.contextmanager
def serving(log_file: Path, *command: str, port: int | None = None) -> Iterator[Served]:
    """Runs a program, in whose arguments PORT stands for its port, until the block is left."""
    port = port or free_port()
    command = tuple(str(port) if word == "PORT" else word for word in command)
    with log_file.open("wb") as log:
        process = subprocess.Popen(command, stdout=log, stderr=log, stdin=subprocess.DEVNULL)
    served = Served(port, log_file)
    try:
        await_port(process, served)
        yield served
    finally:
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def await_port(process: subprocess.Popen, served: Served) -> None:
    for _ in range(SECONDS * 10):
        try:
            socket.create_connection(("127.0.0.1", served.port)).close()
            return
        except ConnectionRefusedError:
            if process.poll() is not None:
                break
            time.sleep(0.1)
    raise RuntimeError(f"{process.args[0]} does not listen:\n{served.log()}")


@dataclass
class Run:
    """How a run of the client ended."""

    status: int
    lines: list[bytes]
    told: str
    seconds: float


def run_client(command: list[str], lines: list[bytes]) -> Run:
    """Gives the client lines, waits for as many, and then ends its input."""
    begin = time.monotonic()
    pipe = subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, stderr=pipe) as process:
        timer = threading.Timer(SECONDS, process.kill)
        timer.start()
        told: list[bytes] = []
        listening = threading.Thread(target=lambda: told.append(process.stderr.read()))
        listening.start()
        writing = threading.Thread(target=write_lines, args=(process, lines))
        writing.start()
        received = []
        while len(received) < len(lines) and (line := process.stdout.readline()):
            received.append(line.removesuffix(b"\n"))
        writing.join()
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        received += process.stdout.read().splitlines()
        status = process.wait()
        listening.join()
        timer.cancel()
    return Run(status, received, told[0].decode(errors="replace"), time.monotonic() - begin)


def write_lines(process: subprocess.Popen, lines: list[bytes]) -> None:
    # A client that cannot connect reads none.
    with contextlib.suppress(BrokenPipeError):
        for line in lines:
            process.stdin.write(line + b"\n")
            process.stdin.flush()
