"""Checks the gateway behind nginx with the configuration that is published: check_nginx.py ADDRESS NGINX DIRECTORY.

cert.pem and key.pem are in the directory, and logs go there.
"""

import json
import os
import socket
import subprocess
import sys
import time
import traceback
from pathlib import Path

upstream, nginx, directory = sys.argv[1], sys.argv[2], Path(sys.argv[3])
os.environ["SSL_CERT_FILE"] = str(directory / "cert.pem")

from tokens import open_socket, token  # noqa: E402: the certificate is known first

sys.path.insert(0, str(Path(__file__).parent.parent / "interop"))
from program import free_port  # noqa: E402

PUBLISHED = Path(__file__).parents[2] / "examples/gateway/deploy/nginx.conf"
LOG = directory / "nginx-access.log"
FRAME = """
daemon off;
master_process off;
pid {directory}/nginx.pid;
error_log stderr;
events {{}}
http {{
    client_body_temp_path {directory}/nginx-body;
    proxy_temp_path {directory}/nginx-proxy;
    fastcgi_temp_path {directory}/nginx-fastcgi;
    uwsgi_temp_path {directory}/nginx-uwsgi;
    scgi_temp_path {directory}/nginx-scgi;
    {published}
}}
"""


def changed(text, changes):
    for was, is_now in changes.items():
        assert was in text, f"{was} is not in {PUBLISHED}"
        text = text.replace(was, is_now)
    return text


def curl(*arguments):
    command = ["curl", "-sS", "--max-time", "30", "--cacert", str(directory / "cert.pem"), "-w", "\n%{http_code}"]
    run = subprocess.run([*command, *arguments], capture_output=True, text=True, check=True)
    body, _, status = run.stdout.rpartition("\n")
    return int(status), body


def check(url):
    secret = token("ann")
    with open_socket(url, "ann") as ann:
        ann.send(json.dumps({"id": "1", "message_type": "ping", "data": {}}))
        assert json.loads(ann.recv(timeout=30))["message_type"] == "pong"
    status, page = curl(f"{url}/")
    assert status == 200 and "<title>Gateway</title>" in page, status
    key = ["-H", f'X-Api-Key: {os.environ["GATEWAY_API_KEY"]}']
    assert curl(*key, f"{url}/ws/stats")[0] == 200
    assert curl(f"{url}/ws/stats?token={secret}")[0] == 403
    assert curl(f"{url}/metrics")[0] == 404
    # Where somebody lets it through, the gateway still knows that a proxy is between.
    assert curl("-H", "X-Forwarded-For: 192.0.2.1", f"http://{upstream}/metrics")[0] == 401
    log = LOG.read_text()
    assert "/ws/stats 403" in log, log
    assert "eyJ" not in log and "token" not in log, "a token is in the log"


port = free_port()
configuration = directory / "nginx.conf"
configuration.write_text(
    FRAME.format(
        directory=directory,
        published=changed(
            PUBLISHED.read_text(),
            {
                "127.0.0.1:8000": upstream,
                "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
                "gateway.example.org": "localhost",
                "/etc/ssl/gateway/fullchain.pem": f"{directory}/cert.pem",
                "/etc/ssl/gateway/privkey.pem": f"{directory}/key.pem",
                "/var/log/nginx/gateway.log": str(LOG),
            },
        ),
    )
)
with open(directory / "nginx.log", "wb") as output:
    server = subprocess.Popen([nginx, "-e", "stderr", "-p", str(directory), "-c", str(configuration)], stderr=output)
try:
    deadline = time.monotonic() + 60
    while True:
        try:
            socket.create_connection(("127.0.0.1", port), 1).close()
            break
        except OSError:
            assert server.poll() is None and time.monotonic() < deadline, (directory / "nginx.log").read_text()
            time.sleep(0.05)
    check(f"https://127.0.0.1:{port}")
    print("ok nginx: the published configuration serves all, and its log has no token")
except Exception:
    print("FAILED nginx: the published configuration")
    traceback.print_exc()
    sys.exit(1)
finally:
    server.terminate()
    server.wait()
