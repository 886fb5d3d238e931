"""JSON Web Tokens as another service makes them (RFC 7519, HS256), and connections with them."""

import base64
import hashlib
import hmac
import json
import os
import time
import uuid

from websockets.sync.client import connect


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


def open_socket(url, username, sub=None):
    """The WebSocket of a user. The certificate is checked against SSL_CERT_FILE."""
    address = "ws" + url.removeprefix("http") + "/ws?token=" + token(username, sub)
    return connect(address, open_timeout=30, close_timeout=30)
