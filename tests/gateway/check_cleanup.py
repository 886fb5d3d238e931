"""Checks that users go who are made inactive while they are connected: check_cleanup.py URL DATABASE request|itself.

On request of an administrator, or by itself every so often.
"""

import json
import os
import sqlite3
import subprocess
import sys
import traceback

from websockets.exceptions import ConnectionClosed

from tokens import open_socket, until, user_id

url, path, how = sys.argv[1:]


def database(statement, *values):
    with sqlite3.connect(path, timeout=30) as connection:
        connection.execute(statement, values)


def api(method, target):
    key = f'X-Api-Key: {os.environ["GATEWAY_API_KEY"]}'
    command = ["curl", "-sS", "--fail", "--max-time", "30", "-X", method, "-H", key, url + target]
    return json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def check():
    for name in ("ann", "ben", "cat"):
        database(
            "INSERT INTO gateway_users (id, username, email, active) VALUES (?, ?, ?, 1)",
            user_id(name), name, f"{name}@example.org",
        )
    with open_socket(url, "ann") as ann, open_socket(url, "ben") as ben, open_socket(url, "cat") as cat:
        until(lambda: api("GET", "/ws/stats")["total_connections"] == 3)
        database("UPDATE gateway_users SET active = 0 WHERE username = 'ann'")
        database("DELETE FROM gateway_users WHERE username = 'cat'")
        if how == "request":
            assert api("POST", "/ws/cleanup") == {"connections": 2}
        for socket, reason in ((ann, "inactive"), (cat, "unknown_user")):
            try:
                while True:
                    socket.recv(timeout=30)
            except ConnectionClosed:
                assert (socket.close_code, socket.close_reason) == (4003, reason), socket.close_reason
        ben.send(json.dumps({"id": "1", "message_type": "ping", "data": {}}))
        while json.loads(ben.recv(timeout=30))["message_type"] != "pong":
            pass
        # A connection counts until its close handshake is over.
        until(lambda: api("GET", "/ws/stats")["total_connections"] == 1)
        assert api("GET", "/ws/stats")["unique_users"] == 1
        if how == "request":
            assert api("POST", "/ws/cleanup") == {"connections": 0}


name = "by request" if how == "request" else "by itself"
try:
    check()
    print(f"ok cleanup: users who are inactive go, {name}")
except Exception:
    print(f"FAILED cleanup: users who are inactive go, {name}")
    traceback.print_exc()
    sys.exit(1)
