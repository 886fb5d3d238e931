"""Checks HTTP for administrators with curl, as the documentation shows it: check_http.py URL."""

import json
import os
import re
import subprocess
import sys
import time
import uuid
from contextlib import ExitStack

from tokens import open_socket, run_checks, token, until, user_id

URL = sys.argv[1]
KEY = os.environ["GATEWAY_API_KEY"]
ADMIN = ["-H", f"X-Api-Key: {KEY}"]
ALICE, BOB = user_id("alice"), user_id("bob")


def curl(path, *arguments, auth=ADMIN):
    """Status, headers by lower-case name, and body: JSON where it is."""
    run = subprocess.run(
        ["curl", "-sS", "-i", "--http1.1", "--max-time", "30", *auth, *arguments, URL + path],
        capture_output=True,
        text=True,
        check=True,
    )
    head, _, body = run.stdout.partition("\n\n") if "\r\n" not in run.stdout else run.stdout.partition("\r\n\r\n")
    lines = head.splitlines()
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
    is_json = "json" in headers.get("content-type", "")
    return int(lines[0].split()[1]), headers, json.loads(body) if is_json and body else body


def post(path, body, *arguments, auth=ADMIN):
    data = body if isinstance(body, str) else json.dumps(body)
    return curl(path, "-X", "POST", "-H", "Content-Type: application/json", "-d", data, *arguments, auth=auth)


def is_problem(answer, status):
    """RFC 9457 §3."""
    got, headers, body = answer
    assert got == status, answer
    assert headers["content-type"] == "application/problem+json", headers
    assert body["type"] == "about:blank" and body["status"] == status and body["title"] and body["detail"], body


def read(socket, message_type):
    """The next message of a type; those of others are of users who come and go."""
    while True:
        message = json.loads(socket.recv(timeout=30))
        if message["message_type"] == message_type:
            return message


def online():
    return {user["user_id"] for user in curl("/ws/online")[2]["users"]}


def nobody_comes_in_without_being_an_administrator():
    paths = ["/ws/online", "/ws/stats"]
    orders = [("/ws/send", {}), ("/ws/broadcast", {}), ("/ws/cleanup", {}), ("/ws/disconnect", {})]
    bearer = lambda text: ["-H", f"Authorization: Bearer {text}"]
    for auth, status in [
        ([], 401),
        (bearer("nonsense"), 401),
        (bearer(token("alice", secret="another", role="admin")), 401),
        (bearer(token("alice", role="admin", exp=int(time.time()) - 60)), 401),
        (["-H", "X-Api-Key: wrong"], 401),
        (["-H", f"X-Api-Key: {KEY[:-1]}"], 401),
        (bearer(token("alice")), 403),
        (bearer(token("alice", role="user")), 403),
    ]:
        answers = [curl(path, auth=auth) for path in paths] + [post(path, body, auth=auth) for path, body in orders]
        for answer in answers:
            is_problem(answer, status)
            assert ("www-authenticate" in answer[1]) == (status == 401), answer
    for path in paths:
        assert curl(path, auth=bearer(token("alice", role="admin")))[0] == 200


def users_are_listed_in_pages():
    names = [f"user-{number}" for number in range(7)]
    with ExitStack() as stack:
        for name in names:
            stack.enter_context(open_socket(URL, name))
        ids = {user_id(name) for name in names}
        until(lambda: ids <= online())
        status, headers, body = curl("/ws/online")
        assert status == 200 and headers["cache-control"] == "no-store", headers
        assert set(body) == {"count", "users", "next"} and body["count"] == len(body["users"]), body
        user = next(user for user in body["users"] if user["user_id"] == user_id("user-3"))
        assert user["username"] == "user-3", user
        assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", user["connected_at"]), user
        pages, after = [], ""
        while after is not None:
            page = curl(f"/ws/online?limit=3{after and '&after=' + after}")[2]
            assert 0 < len(page["users"]) <= 3 and page["count"] == body["count"], page
            pages += page["users"]
            after = page["next"]
        assert pages == body["users"], pages
    until(lambda: not ids & online())
    for query in ["limit=0", "limit=1001", "limit=many", "limit=-1", "after=somebody"]:
        is_problem(curl(f"/ws/online?{query}"), 400)


def statistics_count():
    with open_socket(URL, "alice") as first, open_socket(URL, "alice") as second, open_socket(URL, "bob"):
        def counts():
            stats = curl("/ws/stats")[2]
            return stats["unique_users"], stats["total_connections"]

        until(lambda: counts() == (2, 3))
        before = curl("/ws/stats")[2]
        assert isinstance(before["server_uptime"], int) and before["memory_bytes"] > 1 << 20, before
        for socket in (first, second):
            ping = {"id": str(uuid.uuid4()), "message_type": "ping", "data": {}, "timestamp": "2024-01-01T00:00:00Z"}
            socket.send(json.dumps(ping))
            assert read(socket, "pong")["id"] == ping["id"]
        after = curl("/ws/stats")[2]
        assert after["messages_by_type"]["ping"] == before["messages_by_type"]["ping"] + 2, (before, after)
        assert after["messages_received"] >= before["messages_received"] + 2, (before, after)


def a_message_reaches_all_connections_of_its_user():
    data = {"content": "You have a new notice", "type": "info"}
    with open_socket(URL, "alice") as first, open_socket(URL, "alice") as second, open_socket(URL, "bob") as other:
        until(lambda: curl("/ws/stats")[2]["total_connections"] == 3)
        body = {"to_user_id": ALICE, "message_type": "notification", "data": data}
        status, _, answer = post("/ws/send", body)
        assert status == 202 and answer["connections"] == 2, (status, answer)
        for socket in (first, second):
            message = read(socket, "notification")
            assert message["data"] == data and message["id"] == answer["id"], message
            assert message["to_user_id"] == ALICE and "from_user_id" not in message, message
        # Of an administrator who is a user it says so.
        status, _, answer = post("/ws/send", body | {"message_type": "text"}, auth=["-H", f'Authorization: Bearer {token("boss", role="admin")}'])
        assert status == 202 and read(first, "text")["from_user_id"] == user_id("boss"), answer
        # What comes next for somebody else is not that.
        assert post("/ws/broadcast", {"message_type": "system_message", "data": {"content": "x"}})[0] == 202
        seen = json.loads(other.recv(timeout=30))
        while seen["message_type"] in ("user_joined", "user_left"):
            seen = json.loads(other.recv(timeout=30))
        assert seen["message_type"] == "system_message", seen


def nobody_home_is_404():
    is_problem(post("/ws/send", {"to_user_id": BOB, "message_type": "text", "data": {}}), 404)
    is_problem(post("/ws/disconnect", {"user_id": BOB}), 404)
    with open_socket(URL, "bob"):
        until(lambda: BOB in online())
        assert post("/ws/send", {"to_user_id": BOB, "message_type": "text", "data": {}})[0] == 202
    until(lambda: BOB not in online())
    is_problem(post("/ws/send", {"to_user_id": BOB, "message_type": "text", "data": {}}), 404)
    assert post("/ws/broadcast", {"message_type": "text", "data": {}})[2]["connections"] == 0


def a_broadcast_reaches_everybody():
    with ExitStack() as stack:
        sockets = [stack.enter_context(open_socket(URL, f"user-{number}")) for number in range(5)]
        until(lambda: curl("/ws/stats")[2]["total_connections"] == 5)
        data = {"content": "Maintenance at noon", "priority": "high"}
        status, _, answer = post("/ws/broadcast", {"message_type": "system_message", "data": data})
        assert status == 202 and answer["connections"] == 5, answer
        for socket in sockets:
            message = read(socket, "system_message")
            assert message["data"] == data and message["id"] == answer["id"] and "to_user_id" not in message, message


def bodies_are_checked():
    good = {"to_user_id": ALICE, "message_type": "text", "data": {}}
    for body, status in [
        ("", 400),
        ("{", 400),
        ('{"a":' * 200 + "1" + "}" * 200, 400),
        ("[]", 422),
        ([ALICE, "text", {}], 422),
        (good | {"to_user_id": "alice"}, 422),
        (good | {"message_type": "user_joined"}, 422),
        (good | {"message_type": "pong"}, 422),
        (good | {"data": "text"}, 422),
        (good | {"surplus": 1}, 422),
        ({"message_type": "text", "data": {}}, 422),
        (good, 404),
    ]:
        is_problem(post("/ws/send", body), status)
    is_problem(curl("/ws/send", "-d", json.dumps(good)), 415)
    is_problem(post("/ws/disconnect", {"user_id": ALICE, "reason": "x" * 121}), 422)
    assert curl("/ws/send")[0] == 405 and "POST" in curl("/ws/send")[1]["allow"]
    is_problem(curl("/ws/nothing"), 404)


def a_disconnect_closes_all_connections_of_a_user():
    with open_socket(URL, "alice") as first, open_socket(URL, "alice") as second, open_socket(URL, "bob") as other:
        until(lambda: curl("/ws/stats")[2]["total_connections"] == 3)
        status, _, answer = post("/ws/disconnect", {"user_id": ALICE, "reason": "account closed"})
        assert status == 202 and answer == {"connections": 2}, answer
        for socket in (first, second):
            try:
                while True:
                    socket.recv(timeout=30)
            except Exception:
                assert (socket.close_code, socket.close_reason) == (4003, "account closed"), socket.close_code
        until(lambda: online() == {BOB})
        assert read(other, "user_left")["data"]["username"] == "alice"


def cleaning_up_leaves_healthy_connections():
    with open_socket(URL, "alice") as socket:
        until(lambda: ALICE in online())
        status, _, answer = curl("/ws/cleanup", "-X", "POST")
        assert status == 202 and answer == {"connections": 0}, answer
        socket.send(json.dumps({"id": "1", "message_type": "ping", "data": {}}))
        assert read(socket, "pong")["id"] == "1"


def metrics_tell_of_users():
    # From this machine without a proxy everybody may read them, from elsewhere whoever has the key.
    proxied = ["-H", "X-Forwarded-For: 192.0.2.1"]
    assert curl("/metrics", auth=[])[0] == 200
    is_problem(curl("/metrics", *proxied, auth=[]), 401)
    assert curl("/metrics", *proxied)[0] == 200
    assert curl("/metrics", *proxied, auth=["-H", f"Authorization: Bearer {KEY}"])[0] == 200

    def metrics():
        lines = curl("/metrics")[2].splitlines()
        return {name: float(value) for name, _, value in (it.rpartition(" ") for it in lines if it[0] != "#")}

    before = metrics()
    curl("/ws/online", auth=["-H", f"Authorization: Bearer {token('alice', exp=1)}"])
    with open_socket(URL, "alice") as socket, open_socket(URL, "alice"):
        until(lambda: metrics()["gateway_connections"] == 2)
        socket.send(json.dumps({"id": "1", "message_type": "ping", "data": {}}))
        read(socket, "pong")
        now = metrics()
        assert now["gateway_unique_users"] == 1, now
        assert now['gateway_messages_total{type="ping"}'] == before['gateway_messages_total{type="ping"}'] + 1
        expired = 'gateway_refused_total{reason="expired"}'
        assert now[expired] == before.get(expired, 0) + 1, now[expired]
        assert now["process_resident_memory_bytes"] > 1 << 20 and now["process_cpu_seconds_total"] > 0
        assert now["gateway_uptime_seconds"] >= before["gateway_uptime_seconds"] > 0
    assert curl("/healthz", auth=[])[0] == curl("/readyz", auth=[])[0] == 200


checks = [
    nobody_comes_in_without_being_an_administrator,
    users_are_listed_in_pages,
    statistics_count,
    a_message_reaches_all_connections_of_its_user,
    nobody_home_is_404,
    a_broadcast_reaches_everybody,
    bodies_are_checked,
    a_disconnect_closes_all_connections_of_a_user,
    cleaning_up_leaves_healthy_connections,
    metrics_tell_of_users,
]
# Before each, those of the check before are gone.
run_checks("http", checks, before=lambda: until(lambda: not online()))
