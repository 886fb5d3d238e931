"""Who the gateway lets in, by real tokens and real connections."""

import argparse
import asyncio
import contextlib
import json
import os
import re
import signal
import ssl
import subprocess
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

import jwt
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

sys.path.insert(0, str(Path(__file__).parent.parent / "interop"))
from checks import Checks, equal  # noqa: E402

SECRET = "a secret of these tests that is long enough for every algorithm"
OTHER_SECRET = "another secret of these tests, as long as that"
API_KEY = "an API key of these tests"
PASSWORD = "correct horse battery staple"
USER = "6a1f0e2c-8d3b-4f57-9a64-0c2b7e1d5f38"
PATIENCE = 60
# Of a token that expires while it is looked on: long enough to connect, and to be served.
LIFETIME = 6

arguments = argparse.ArgumentParser()
arguments.add_argument("--program", required=True)
arguments.add_argument("--driver", required=True)
arguments.add_argument("--out", type=Path, required=True)
arguments.add_argument("--postgresql", required=True)
arguments.add_argument("--tls", action="store_true")
options = arguments.parse_args()
checks = Checks("auth over TLS" if options.tls else "auth")
# What must not be in any log.
secrets = {SECRET, OTHER_SECRET, API_KEY, PASSWORD, "a-password-of-the-tests"}
logs: list[Path] = []


def environment(more: dict[str, str]) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RINGWIRE_")}
    return {**kept, "RUST_LOG": "trace", "NO_COLOR": "1", **more}


class Client:
    """A connection. Not one of websockets.sync, which reads and writes in two threads: OpenSSL does not allow that, and
    CPython sees to it from 3.13 on only."""

    loop = asyncio.new_event_loop()

    def __init__(self, url: str, **more: object) -> None:
        async def open() -> object:
            return await connect(url, open_timeout=PATIENCE, ping_timeout=PATIENCE, proxy=None, **more)

        self.connection = self.loop.run_until_complete(open())

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.run_until_complete(self.connection.close())

    def send(self, message: object) -> None:
        self.loop.run_until_complete(self.connection.send(json.dumps(message)))

    def receive(self) -> dict[str, object]:
        async def receive() -> str:
            return await asyncio.wait_for(self.connection.recv(), PATIENCE)

        return json.loads(self.loop.run_until_complete(receive()))

    @property
    def certificate(self) -> bytes:
        return self.connection.transport.get_extra_info("ssl_object").getpeercert(binary_form=True)


class Gateway:
    """A gateway of this test's own."""

    def __init__(self, name: str, *flags: str, **variables: str) -> None:
        self.log = options.out / f"{name}.log"
        self.output = options.out / f"{name}.out"
        logs.extend((self.log, self.output))
        listen = ["--listen", "127.0.0.1:0"]
        if options.tls:
            for file in ("cert", "key"):
                copy = options.out / f"{name}-{file}.pem"
                copy.write_bytes((options.out / f"{file}.pem").read_bytes())
            listen += ["--tls-listen", "127.0.0.1:0"]
            listen += ["--cert", str(options.out / f"{name}-cert.pem")]
            listen += ["--key", str(options.out / f"{name}-key.pem")]
        engine = ["--driver", options.driver, "--io-workers", "2", "--pin", "none"]
        self.process = subprocess.Popen(
            [options.program, *engine, *listen, *flags],
            env=environment({"JWT_SECRET": SECRET, **variables}),
            stdout=self.output.open("wb"),
            stderr=self.log.open("wb"),
        )
        scheme = "wss" if options.tls else "ws"
        self.url = self.wait_for(self.output, f"listening on ({scheme}://[^/\\s]+)").rstrip("/")

    def wait_for(self, file: Path, pattern: str) -> str:
        """What a line of a file says, once it is there."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            found = re.search(pattern, file.read_text(errors="replace"))
            if found:
                return found[found.lastindex or 0]
            if self.process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"no line {pattern!r}: {file.read_text(errors='replace')[-2000:]}")

    def connect(self, token: str | None = None, **more: object) -> Client:
        if token is not None:
            secrets.add(token)
        query = "" if token is None else f"?token={token}"
        context = None
        if options.tls:
            context = ssl.create_default_context(cafile=options.out / "cert.pem")
        return Client(f"{self.url}/ws{query}", ssl=context, **more)

    def lets_in(self, token: str | None, **more: object) -> None:
        with self.connect(token, **more) as connection:
            is_served(connection)

    def refusal(self, token: str | None, **more: object) -> tuple[int, str]:
        """The status and the body of the answer to a token that does not hold."""
        try:
            self.lets_in(token, **more)
        except InvalidStatus as refused:
            response = refused.response
            if response.status_code == 401:
                assert response.headers["WWW-Authenticate"].startswith("Bearer")
            return response.status_code, response.body.decode()
        raise AssertionError("it was let in")

    def reload(self, then: str = "the keys of tokens were read again") -> None:
        before = len(re.findall(then, self.log.read_text(errors="replace")))
        self.process.send_signal(signal.SIGHUP)
        self.wait_for(self.log, f"(?s)(?:{then}.*){{{before + 1}}}")

    def stop(self) -> int:
        self.process.terminate()
        return self.process.wait(PATIENCE)


@contextlib.contextmanager
def gateway(name: str, *flags: str, **variables: str) -> Iterator[Gateway]:
    server = Gateway(name, *flags, **variables)
    try:
        yield server
        equal(server.stop(), 0)
    finally:
        server.process.kill()
        server.process.wait()


def claims(**changes: object) -> dict[str, object]:
    now = int(time.time())
    said = {
        "sub": USER,
        "username": "ann",
        "email": "ann@example.org",
        "exp": now + 600,
        "iat": now,
        "jti": str(uuid.uuid4()),
        **changes,
    }
    return {name: value for name, value in said.items() if value is not None}


def token(key: object = SECRET, algorithm: str = "HS256", kid: str | None = None, **changes: object) -> str:
    headers = {"kid": kid} if kid else None
    return jwt.encode(claims(**changes), key, algorithm, headers=headers)


def is_served(connection: Client) -> None:
    """It answers a ping of the application's own."""
    asked = str(uuid.uuid4())
    connection.send({"id": asked, "message_type": "ping", "data": {}, "timestamp": "2024-01-01T00:00:00Z"})
    while True:
        if connection.receive()["message_type"] == "pong":
            return


def end_of(connection: Client) -> tuple[int, str]:
    """The code and the reason that a connection ends with."""
    try:
        while True:
            connection.receive()
    except ConnectionClosed as closed:
        assert closed.rcvd is not None, "it was cut off"
        return closed.rcvd.code, closed.rcvd.reason


def pem(public: object) -> bytes:
    return public.public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )


def command(*words: str, stdin: str = "", **variables: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [options.program, *words],
        env=environment({"RUST_LOG": "info", **variables}),
        input=stdin,
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )


def three_places() -> None:
    with gateway("places") as server:
        with server.connect(token()) as connection:
            is_served(connection)
            equal(connection.connection.subprotocol, None)
        good = token()
        secrets.add(good)
        with server.connect(additional_headers={"Authorization": f"Bearer {good}"}) as connection:
            is_served(connection)
        with server.connect(subprotocols=["bearer", good]) as connection:
            is_served(connection)
            equal(connection.connection.subprotocol, "bearer")
        equal(server.refusal(None), (401, "missing"))


def each_refusal() -> None:
    revoked = options.out / "revoked-refusals"
    revoked.write_text("stolen\n")
    flags = ["--jwt-audiences", "chat", "--jwt-issuers", "us", "--jwt-revoked", str(revoked)]
    now = int(time.time())
    fit = {"aud": "chat", "iss": "us"}
    with gateway("refusals", *flags) as server:
        server.lets_in(token(**fit))
        for reason, refused in {
            "malformed": "no.token.atall",
            "algorithm": token(algorithm="HS384", **fit),
            "signature": token(OTHER_SECRET, **fit),
            "claims": token(email=None, **fit),
            "audience": token(iss="us"),
            "issuer": token(aud="chat", iss="them"),
            "not_yet_valid": token(nbf=now + 600, **fit),
            "expired": token(exp=now - 1, **fit),
            "revoked": token(jti="stolen", **fit),
        }.items():
            equal(server.refusal(refused), (401, reason))
        # Nothing of a token that is not signed is secret.
        unsigned = jwt.encode(claims(**fit), None, "none")
        equal(server.refusal(unsigned), (401, "malformed"))


def keys_of_each_kind() -> None:
    keys = {
        "RS256": rsa.generate_private_key(public_exponent=65537, key_size=2048),
        "ES256": ec.generate_private_key(ec.SECP256R1()),
        "EdDSA": ed25519.Ed25519PrivateKey.generate(),
    }
    files = []
    for algorithm, key in keys.items():
        files.append(options.out / f"{algorithm}.pem")
        files[-1].write_bytes(pem(key.public_key()))
    with gateway("pem", "--jwt-keys", ",".join(map(str, files)), JWT_SECRET="") as server:
        for algorithm, key in keys.items():
            with server.connect(token(key, algorithm)) as connection:
                is_served(connection)
        equal(server.refusal(token(keys["RS256"], "PS256")), (401, "algorithm"))
        equal(server.refusal(token()), (401, "algorithm"))
        # A public key is no secret of HS256: PyJWT refuses to sign with one, so its check is taken away.
        public = files[0].read_text()
        parts = jwt.encode(claims(), OTHER_SECRET, "HS256").split(".")[:2]
        forged = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
        signature = forged.sign(".".join(parts).encode(), public.encode())
        equal(server.refusal(".".join([*parts, jwt.utils.base64url_encode(signature).decode()])), (401, "algorithm"))
    jwks = options.out / "jwks.json"

    def write(*names: str) -> None:
        def jwk(name: str) -> dict[str, str]:
            kind = jwt.algorithms.get_default_algorithms()[name]
            return {**kind.to_jwk(keys[name].public_key(), as_dict=True), "kid": name}

        jwks.write_text(json.dumps({"keys": [jwk(name) for name in names]}))

    write("RS256", "ES256")
    with gateway("jwks", "--jwt-keys", str(jwks), JWT_SECRET="") as server:
        for algorithm in ("RS256", "ES256"):
            server.lets_in(token(keys[algorithm], algorithm, kid=algorithm))
        equal(server.refusal(token(keys["RS256"], "RS256", kid="other")), (401, "unknown_key"))
        equal(server.refusal(token(keys["EdDSA"], "EdDSA", kid="EdDSA")), (401, "algorithm"))
        # Keys are rotated.
        write("ES256", "EdDSA")
        server.reload()
        server.lets_in(token(keys["EdDSA"], "EdDSA", kid="EdDSA"))
        equal(server.refusal(token(keys["RS256"], "RS256", kid="RS256")), (401, "algorithm"))
        jwks.write_text("{")
        server.reload("cannot reload the token keys")
        server.lets_in(token(keys["EdDSA"], "EdDSA", kid="EdDSA"))


def expiry_and_refresh() -> None:
    with gateway("expiry") as server:
        with server.connect(token(exp=int(time.time()) + LIFETIME)) as connection:
            is_served(connection)
            equal(end_of(connection), (4102, "expired: refresh first"))
        end = int(time.time()) + LIFETIME
        with server.connect(token(exp=end)) as connection:
            renewed = token(exp=end + 600)
            secrets.add(renewed)
            asked = {"id": "r", "message_type": "refresh", "data": {"token": renewed}, "timestamp": "2024-01-01T00:00:00Z"}
            connection.send(asked)
            while time.time() < end + 1:
                is_served(connection)
                time.sleep(0.2)
            is_served(connection)


def revoked_while_connected() -> None:
    revoked = options.out / "revoked"
    revoked.write_text("")
    secret = options.out / "secret"
    secret.write_text(f"{SECRET}\n")
    flags = ["--jwt-revoked", str(revoked), "--jwt-secret-file", str(secret)]
    with gateway("revoked", *flags, JWT_SECRET="") as server:
        with server.connect(token(jti="a")) as first, server.connect(token(jti="b")) as second:
            is_served(first)
            is_served(second)
            revoked.write_text("# stolen\na\n")
            secret.write_text(f"{OTHER_SECRET}\n")
            server.reload()
            equal(end_of(first), (4003, "revoked"))
            is_served(second)
        equal(server.refusal(token(jti="b")), (401, "signature"))
        server.lets_in(token(OTHER_SECRET))
        equal(server.refusal(token(OTHER_SECRET, jti="a")), (401, "revoked"))


def another_certificate() -> None:
    with gateway("certificate") as server:
        with server.connect(token()) as connection:
            before = connection.certificate
        folder = options.out / "next"
        folder.mkdir()
        lines = 'source "$0"; self_signed_certificate "$1"'
        library = Path(__file__).parent.parent / "lib.sh"
        subprocess.run(["bash", "-euc", lines, library, folder], check=True)
        for file in ("cert", "key"):
            path = options.out / f"certificate-{file}.pem"
            path.write_bytes((folder / f"{file}.pem").read_bytes())
        server.reload()
        context = ssl.create_default_context(cafile=folder / "cert.pem")
        good = token()
        secrets.add(good)
        with Client(f"{server.url}/ws?token={good}", ssl=context) as connection:
            assert connection.certificate != before
            is_served(connection)


def sigterm_drains() -> None:
    server = Gateway("drain", "--drain", "1s", "--shutdown-grace", "30s")
    try:
        with contextlib.ExitStack() as stack:
            users = [token(sub=str(uuid.uuid4())) for _ in range(20)]
            connections = [stack.enter_context(server.connect(user)) for user in users]
            for connection in connections:
                is_served(connection)
            server.process.terminate()
            equal({end_of(connection)[0] for connection in connections}, {4112})
            equal(server.process.wait(PATIENCE), 0)
    finally:
        server.process.kill()
        server.process.wait()


def users_of(name: str, url: str) -> None:
    """Users in a database: who is missing or inactive is refused, and who has a password can log in."""

    def user(*words: str, stdin: str = "") -> None:
        done = command("user", *words, stdin=stdin, DATABASE_URL=url)
        assert done.returncode == 0, done.stderr

    bob = str(uuid.uuid4())
    user("ann", "--id", USER, "--role", "admin", stdin=f"{PASSWORD}\n")
    user("bob", "--id", bob, "--no-password")
    user("eve", "--id", str(uuid.uuid4()), "--inactive", stdin=f"{PASSWORD}\n")
    empty = command("user", "joe", stdin="\n", DATABASE_URL=url)
    assert empty.returncode == 1 and "password" in empty.stderr, empty.stderr
    with gateway(name, "--login", "true", "--login-timeout", "6s", DATABASE_URL=url) as server:
        with server.connect(token()) as connection:
            is_served(connection)
        equal(server.refusal(token(sub=str(uuid.uuid4()))), (401, "unknown_user"))
        with server.connect(token(sub=bob, username="robert")) as connection:
            is_served(connection)
        user("bob", "--inactive", "--no-password")
        equal(server.refusal(token(sub=bob)), (401, "inactive"))

        @contextlib.contextmanager
        def log_in(username: str, password: str) -> Iterator[Client]:
            with server.connect() as connection:
                connection.send({"username": username, "password": password})
                yield connection

        with log_in("ann", PASSWORD) as connection:
            equal(connection.receive()["status"], "ok")
            is_served(connection)
        for username, password, code, reason in (
            ("ann", "guessed", 4001, "credentials"),
            ("nobody", PASSWORD, 4001, "credentials"),
            ("bob", "", 4001, "credentials"),
            ("eve", PASSWORD, 4003, "inactive"),
            ("eve", "guessed", 4001, "credentials"),
        ):
            with log_in(username, password) as connection:
                equal(connection.receive()["status"], "refused")
                equal(end_of(connection), (code, reason))
        with server.connect() as connection:
            equal(end_of(connection)[0], 4001)


def settings() -> None:
    file = options.out / "gateway.toml"
    file.write_text(f"jwt_issuers = ['us', 'them']\nlogin_timeout = '7s'\n[rooms]\nmax_members = 7\n")
    check = command(
        "--config", str(file), "--check", "--jwt-leeway", "2s", JWT_SECRET=SECRET, GATEWAY_API_KEY=API_KEY,
        RINGWIRE_LOGIN_LIFETIME="2h", DATABASE_URL="sqlite:nowhere.db",
    )
    equal(check.returncode, 0)
    for line in (
        "# jwt_secret is set # JWT_SECRET",
        "# api_key is set # GATEWAY_API_KEY",
        "# database_url is set # DATABASE_URL",
        f'jwt_issuers = "us,them" # {file}:1',
        f'login_timeout = "7s" # {file}:2',
        f"rooms.max_members = 7 # {file}:4",
        'jwt_leeway = "2s" # --jwt-leeway',
        'login_lifetime = "2h" # RINGWIRE_LOGIN_LIFETIME',
    ):
        assert line in check.stdout.splitlines(), (line, check.stdout)
    for secret in (SECRET, API_KEY, "nowhere"):
        assert secret not in check.stdout + check.stderr
    for words, variables, expected in (
        ([], {}, "set JWT_SECRET"),
        (["--jwt-keys", "/nowhere.pem"], {}, "/nowhere.pem: "),
        (["--jwt-keys", "RS265:key.pem"], {}, "--jwt-keys"),
        (["--login", "true"], {"JWT_SECRET": SECRET}, "set DATABASE_URL"),
        (["--login", "perhaps"], {"JWT_SECRET": SECRET}, "--login: login can't be \"perhaps\""),
        (["--rooms-max-members", "0"], {"JWT_SECRET": SECRET}, "--rooms-max-members"),
        (["--tls-listen", "127.0.0.1:0"], {"JWT_SECRET": SECRET}, "--cert and --key"),
        (["--set", "jwt_isuers=us"], {"JWT_SECRET": SECRET}, "did you mean jwt_issuers?"),
        (["--colour", "red"], {"JWT_SECRET": SECRET}, "--colour"),
    ):
        done = command("--check", *words, **variables)
        equal((words, done.returncode), (words, 2))
        assert expected in done.stderr, done.stderr
    wrong = command("--listen", "127.0.0.1:0", JWT_SECRET=SECRET, DATABASE_URL="mysql://root:a-password-of-the-tests@x")
    equal(wrong.returncode, 1)
    assert "sqlite:" in wrong.stderr and "a-password" not in wrong.stderr, wrong.stderr


def tokens_of_the_program() -> None:
    key = options.out / "private.pem"
    private = ec.generate_private_key(ec.SECP256R1())
    key.write_bytes(
        private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    words = ["token", "--username", "ann", "--role", "admin", "--lifetime", "60"]
    made = command(*words, "--count", "3", JWT_SECRET=SECRET).stdout.split()
    equal(len(made), 3)
    said = [jwt.decode(token, SECRET, ["HS256"]) for token in made]
    equal([one["username"] for one in said], ["ann1", "ann2", "ann3"])
    equal(len({one["sub"] for one in said}), 3)
    equal([one["exp"] - one["iat"] for one in said], [60] * 3)
    equal({one["role"] for one in said}, {"admin"})
    signed = command(*words, "--private-key", str(key), "--key-id", "k", "--jwt-audiences", "chat")
    token = signed.stdout.strip()
    equal(jwt.get_unverified_header(token), {"typ": "JWT", "alg": "ES256", "kid": "k"})
    jwt.decode(token, private.public_key(), ["ES256"], audience="chat")
    with gateway("made") as server:
        for token in made:
            server.lets_in(token)
    nothing = command("token")
    assert nothing.returncode == 1 and "JWT_SECRET" in nothing.stderr, nothing.stderr


def no_secret_in_a_log() -> None:
    texts = {log: log.read_text(errors="replace") for log in logs}
    assert sum(map(len, texts.values())) > 10_000, "the logs say much"
    for log, text in texts.items():
        for secret in secrets:
            assert secret not in text, f"{log.name} has {secret}"


checks.run("a token stands in one of three places", three_places)
checks.run("each refusal has its reason", each_refusal)
checks.run("keys of each kind, in files that may change", keys_of_each_kind)
checks.run("a token expires, unless it is refreshed", expiry_and_refresh)
checks.run("revoked tokens lose their connections", revoked_while_connected)
if options.tls:
    checks.run("another certificate takes over", another_certificate)
checks.run("SIGTERM sends everybody elsewhere", sigterm_drains)
checks.run("users in SQLite", lambda: users_of("sqlite", f"sqlite:{options.out}/users.db?mode=rwc"))
checks.run("users in PostgreSQL", lambda: users_of("postgresql", options.postgresql))
checks.run("settings", settings)
checks.run("tokens of the program", tokens_of_the_program)
checks.run("no secret in a log", no_secret_in_a_log)
checks.exit()
