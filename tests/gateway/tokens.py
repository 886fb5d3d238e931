"""JSON Web Tokens as another service makes them (RFC 7519, HS256), connections with them, waiting, and runs of checks."""

import asyncio
import base64
import hashlib
import hmac
import json
import os
import sys
import time
import traceback
import uuid

from websockets.asyncio.client import connect


def encode(value):
    data = value if isinstance(value, bytes) else json.dumps(value).encode()
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def token(username, sub=None, secret=None, **claims):
    """A token that is valid for five minutes, if the claims say nothing else."""
    now = int(time.time())
    said = {
        "sub": sub or str(uuid.uuid5(uuid.NAMESPACE_DNS, username)),
        "username": username,
        "email": f"{username}@example.org",
        "exp": now + 300,
        "iat": now,
        "jti": str(uuid.uuid4()),
    } | claims
    signed = f'{encode({"alg": "HS256", "typ": "JWT"})}.{encode(said)}'
    key = (secret or os.environ["JWT_SECRET"]).encode()
    return f"{signed}.{encode(hmac.digest(key, signed.encode(), hashlib.sha256))}"


def user_id(username):
    """The id in the tokens of a name."""
    return str(uuid.uuid5(uuid.NAMESPACE_DNS, username))


class Socket:
    """A connection. Not one of websockets.sync, which reads and writes in two threads: OpenSSL does not allow that, and
    CPython sees to it from 3.13 on only. Pings are answered while something is waited for."""

    def __init__(self, address, subprotocols=None):
        async def open():
            patience = {"open_timeout": 60, "close_timeout": 60, "ping_timeout": 60}
            return await connect(address, subprotocols=subprotocols, proxy=None, **patience)

        self.loop = asyncio.new_event_loop()
        self.connection = self.loop.run_until_complete(open())

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.loop.run_until_complete(self.connection.close())
        self.loop.close()

    def send(self, text):
        self.loop.run_until_complete(self.connection.send(text))

    def recv(self, timeout):
        return self.loop.run_until_complete(asyncio.wait_for(self.connection.recv(), timeout))

    @property
    def close_code(self):
        return self.connection.close_code

    @property
    def close_reason(self):
        return self.connection.close_reason


def open_socket(url, username, sub=None, subprotocol=None, **claims):
    """The WebSocket of a user. The certificate is checked against SSL_CERT_FILE."""
    address = "ws" + url.removeprefix("http") + "/ws?token=" + token(username, sub, **claims)
    return Socket(address, subprotocol and [subprotocol])


def until(condition):
    """Presence is told by other workers: it may take a moment."""
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline, "it does not come to that"
        time.sleep(0.02)


def run_checks(of, checks, before=lambda: None):
    """Runs each, with a line for it that begins with ok or FAILED, and exits with whether one failed."""
    failed = False
    for check in checks:
        name = check.__name__.replace("_", " ")
        try:
            before()
            check()
            print(f"ok {of}: {name}", flush=True)
        except Exception:
            failed = True
            print(f"FAILED {of}: {name}", flush=True)
            traceback.print_exc()
    sys.exit(failed)
