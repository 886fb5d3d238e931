"""Checks ordinary HTTP on the `site` example with Python's http.client and with curl: client_http.py URL [CERTIFICATE].

URL begins with `http://` or `https://`; CERTIFICATE is the PEM file of the certificate that the server shows.
"""

import http.client
import json
import re
import ssl
import subprocess
import sys
from urllib.parse import urlsplit

from checks import Checks, equal

SECONDS = 60
LONG = 200_000


class Site:
    """The server, and how it is reached."""

    def __init__(self, url: str, certificate: str | None) -> None:
        self.url = url.rstrip("/")
        self.parts = urlsplit(url)
        self.certificate = certificate

    def connect(self) -> http.client.HTTPConnection:
        address = self.parts.netloc
        if self.certificate is None:
            return http.client.HTTPConnection(address, timeout=SECONDS)
        context = ssl.create_default_context(cafile=self.certificate)
        return http.client.HTTPSConnection(address, timeout=SECONDS, context=context)

    def curl(self, *options: str) -> tuple[str, str]:
        """What curl writes, and what it says about it."""
        trust = () if self.certificate is None else ("--cacert", self.certificate)
        result = subprocess.run(
            ("curl", "--silent", "--show-error", "--verbose", "--max-time", str(SECONDS), *trust, *options),
            capture_output=True,
            text=True,
        )
        if result.returncode != 0:
            raise AssertionError(f"curl's exit status was {result.returncode}\n{result.stderr}")
        return result.stdout, result.stderr


def ask(connection, method, path, body=None, headers=None, **options):
    """The status, the headers and the body of an answer; the connection stays."""
    connection.request(method, path, body=body, headers=headers or {}, **options)
    response = connection.getresponse()
    return response.status, response.headers, response.read()


def expect(condition: bool, text: str) -> None:
    if not condition:
        raise AssertionError(text)


def check_http_client(site: Site, checks: Checks) -> None:
    def one_connection() -> None:
        connection = site.connect()
        connection.connect()
        socket = connection.sock
        for _ in range(100):
            equal(ask(connection, "GET", "/healthz")[::2], (200, b"ok\n"))
        expect(connection.sock is socket, "the connection was made anew")

    def notes() -> None:
        connection = site.connect()
        note = {"text": "Grüße, 世界", "numbers": list(range(100))}
        equal(ask(connection, "PUT", "/api/notes/py", json.dumps(note))[0], 201)
        status, headers, body = ask(connection, "GET", "/api/notes/py")
        equal((status, headers["Content-Type"], json.loads(body)), (200, "application/json", note))
        equal(ask(connection, "PUT", "/api/notes/py", "no JSON")[0], 400)
        equal(ask(connection, "DELETE", "/api/notes/py")[::2], (204, b""))
        equal(ask(connection, "GET", "/api/notes/py")[0], 404)

    def chunked() -> None:
        connection = site.connect()
        text = json.dumps("x" * LONG)
        pieces = [text[at : at + 1000].encode() for at in range(0, len(text), 1000)]
        status, _, _ = ask(connection, "PUT", "/api/notes/long", iter(pieces), encode_chunked=True)
        equal(status, 201)
        equal(ask(connection, "GET", "/api/notes/long")[2].decode(), text)
        equal(ask(connection, "DELETE", "/api/notes/long")[0], 204)

    def head() -> None:
        connection = site.connect()
        page = ask(connection, "GET", "/")[2]
        status, headers, body = ask(connection, "HEAD", "/")
        equal((status, int(headers["Content-Length"]), body), (200, len(page), b""))
        equal(ask(connection, "GET", "/healthz")[0], 200)

    def methods() -> None:
        connection = site.connect()
        status, headers, _ = ask(connection, "POST", "/api/notes")
        equal((status, headers["Allow"]), (405, "GET, HEAD, OPTIONS"))
        equal(ask(connection, "OPTIONS", "/api/notes")[0], 204)
        equal(ask(connection, "GET", "/nowhere")[0], 404)
        equal(ask(connection, "GET", "/echo")[0], 426)

    def too_long() -> None:
        connection = site.connect()
        equal(ask(connection, "PUT", "/api/notes/x", b"x" * (2 << 20))[0], 413)

    def not_modified() -> None:
        connection = site.connect()
        tag = ask(connection, "GET", "/")[1]["ETag"]
        status, headers, body = ask(connection, "GET", "/", headers={"If-None-Match": tag})
        equal((status, headers["ETag"], body), (304, tag, b""))

    checks.run("http.client: a hundred requests on a connection", one_connection)
    checks.run("http.client: JSON is put, got and deleted", notes)
    checks.run("http.client: a chunked body", chunked)
    checks.run("http.client: HEAD", head)
    checks.run("http.client: methods and paths that are not there", methods)
    checks.run("http.client: a body that is too long", too_long)
    checks.run("http.client: a page that it has already", not_modified)


def check_curl(site: Site, checks: Checks) -> None:
    def reused() -> None:
        output, log = site.curl(f"{site.url}/healthz", f"{site.url}/healthz", f"{site.url}/healthz")
        equal(output, "ok\n" * 3)
        expect(re.search("Re-?using existing", log), log)

    def old() -> None:
        output, log = site.curl("--http1.0", "--no-alpn", f"{site.url}/healthz")
        equal(output, "ok\n")
        expect("connection: close" in log.lower(), log)

    def expecting() -> None:
        options = ("--header", "Expect: 100-continue", "--request", "PUT", "--data", '"curl"')
        _, log = site.curl(*options, f"{site.url}/api/notes/curl")
        expect("HTTP/1.1 100 Continue" in log and "HTTP/1.1 201 Created" in log, log)

    def chunked() -> None:
        options = ("--header", "Transfer-Encoding: chunked", "--request", "PUT", "--data", '"chunks"')
        _, log = site.curl(*options, f"{site.url}/api/notes/curl")
        expect("HTTP/1.1 204 No Content" in log, log)
        equal(site.curl(f"{site.url}/api/notes/curl")[0], '"chunks"')

    def head() -> None:
        output, _ = site.curl("--head", f"{site.url}/")
        expect("etag: " in output and "date: " in output, output)

    def redirect() -> None:
        output, _ = site.curl("--location", f"{site.url}/old")
        expect(output.startswith("<!doctype html>"), output)

    def absolute() -> None:
        output, _ = site.curl("--request-target", "http://other/healthz", f"{site.url}/healthz")
        equal(output, "ok\n")

    def upgrade() -> None:
        options = (
            *("--header", "Connection: Upgrade", "--header", "Upgrade: websocket"),
            *("--header", "Sec-WebSocket-Version: 13"),
            *("--header", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
        )
        status = ("--output", "/dev/null", "--write-out", "%{http_code}")
        equal(site.curl(*options, *status, f"{site.url}/nowhere")[0], "404")

    checks.run("curl: a connection is used again", reused)
    checks.run("curl: HTTP/1.0", old)
    checks.run("curl: 100-continue", expecting)
    checks.run("curl: a chunked body", chunked)
    checks.run("curl: HEAD", head)
    checks.run("curl: a redirect", redirect)
    checks.run("curl: the absolute form", absolute)
    checks.run("curl: an upgrade where there is no WebSocket", upgrade)


def main() -> None:
    site = Site(sys.argv[1], sys.argv[2] if len(sys.argv) > 2 else None)
    checks = Checks("HTTP")
    check_http_client(site, checks)
    check_curl(site, checks)
    checks.exit()


main()
