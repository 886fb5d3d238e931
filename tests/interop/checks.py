"""What the Python clients share: the messages that are echoed, and one line of output for each check."""

import sys
import traceback
from collections.abc import Callable

LENGTHS = (0, 1, 125, 126, 65_535, 65_536, 1 << 20)
UNICODE = "Grüße, 世界, \U0001f44b\U0001f3fd, e\u0301, \u0000 and \U0010ffff"
CONNECTIONS = 50
MESSAGES = 20
CLOSE_CODE = 4001
CLOSE_REASON = "that is all – danke"


class Checks:
    """Runs the checks of one client and remembers whether any of them failed."""

    def __init__(self, client: str) -> None:
        self.client = client
        self.failed = False

    def run(self, name: str, check: Callable[[], None]) -> None:
        try:
            check()
        except Exception:
            self.failed = True
            print(f"FAILED {self.client}: {name}", flush=True)
            traceback.print_exc(file=sys.stdout)
        else:
            print(f"ok {self.client}: {name}", flush=True)

    def exit(self) -> None:
        sys.exit(self.failed)


def binary(length: int) -> bytes:
    return bytes(index * 7 % 251 for index in range(length))


def text(length: int) -> str:
    return "".join(chr(ord("a") + index % 26) for index in range(length))


def equal(actual: object, expected: object) -> None:
    if actual != expected:
        raise AssertionError(f"expected {shortened(expected)}, got {shortened(actual)}")


def shortened(value: object) -> str:
    words = repr(value)
    return words if len(words) <= 80 else f"{words[:60]}… ({len(words)} characters)"
