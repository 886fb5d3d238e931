"""Checks what users say to each other, and what attackers say, over Python's websockets: check_messages.py URL."""

import base64
import hashlib
import hmac
import http.client
import json
import os
import socket
import ssl
import sys
import time
import urllib.parse
from contextlib import ExitStack

from websockets.exceptions import ConnectionClosed

from tokens import encode, open_socket, run_checks, token, until, user_id

URL = sys.argv[1]
PATIENCE = 30
NEWS = ("user_joined", "user_left")


def hear(peer):
    return json.loads(peer.recv(PATIENCE))


def arrival(peer):
    """Who comes first. Those of the check before may still be on their way out."""
    while True:
        news = hear(peer)
        if news.get("message_type") != "user_left" and "Leave" not in news:
            return news


def nobody_is_online():
    address = urllib.parse.urlsplit(URL)
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    line = kind(address.netloc, timeout=PATIENCE)
    line.request("GET", "/ws/online", headers={"X-Api-Key": os.environ["GATEWAY_API_KEY"]})
    users = json.load(line.getresponse())["users"]
    line.close()
    return not users


def words(peer):
    """The next message that is no news of who comes and goes."""
    while True:
        message = hear(peer)
        if message.get("message_type") not in NEWS and not {"Join", "Leave"} & set(message):
            return message


def ask(peer, message):
    peer.send(message if isinstance(message, str) else json.dumps(message))
    return words(peer)


def say(peer, line):
    peer.send(line)
    return peer.recv(PATIENCE)


def is_served(peer):
    """All that was said before has been answered."""
    peer.send(json.dumps({"id": "is it there?", "message_type": "ping"}))
    while words(peer)["id"] != "is it there?":
        pass


def end_of(peer):
    try:
        while True:
            peer.recv(PATIENCE)
    except ConnectionClosed:
        return peer.close_code, peer.close_reason


def envelopes():
    with ExitStack() as stack:
        enter = lambda name: stack.enter_context(open_socket(URL, name))
        ann, ben = enter("ann"), enter("ben")
        news = arrival(ann)
        assert news["message_type"] == "user_joined" and news["data"] == {"user_id": user_id("ben"), "username": "ben"}, news
        # What others are told of the first connection is not told of the second.
        phone = enter("ben")
        pong = ask(ann, {"id": "1", "message_type": "ping", "data": {"n": [1.50]}})
        assert (pong["id"], pong["message_type"], pong["data"]) == ("1", "pong", {"n": [1.5]}), pong
        # Who says it, and when, is the server's to say.
        spoof = {"id": "2", "message_type": "text", "data": {"content": "hi \U0001f44b"}, "timestamp": "1970-01-01T00:00:00Z", "from_user_id": user_id("ben")}
        ann.send(json.dumps(spoof))
        for peer in (ben, phone):
            heard = words(peer)
            assert (heard["id"], heard["data"]) == ("2", spoof["data"]), heard
            assert heard["from_user_id"] == user_id("ann") and "to_user_id" not in heard, heard
            age = time.time() - time.mktime(time.strptime(heard["timestamp"][:19], "%Y-%m-%dT%H:%M:%S")) + time.timezone
            assert -5 < age < PATIENCE, heard
        # To one user: to all of that user's connections, and to the sender's others.
        tablet, cem = enter("ann"), enter("cem")
        ann.send(json.dumps({"id": "3", "message_type": "text", "data": {}, "to_user_id": user_id("ben")}))
        for peer in (ben, phone, tablet):
            heard = words(peer)
            assert (heard["id"], heard["to_user_id"]) == ("3", user_id("ben")), heard
        offline = ask(ann, {"id": "4", "message_type": "text", "data": {}, "to_user_id": user_id("nobody")})
        assert (offline["id"], offline["data"]["error"]) == ("4", "offline"), offline
        for message, own, error in [
            ({"id": "5", "message_type": "shout"}, "5", "unknown_type"),
            ({"id": "6", "message_type": "user_joined", "data": {}}, "6", "not_allowed"),
            ({"id": "7", "message_type": "system_message", "data": {}}, "7", "not_allowed"),
            ('{"id":"8","message_type":', "8", "malformed"),
            ('{"id":"9","message_type":"text","message_type":"ping"}', "9", "malformed"),
            ({"id": "10", "message_type": "text", "to_user_id": "ben"}, "10", "malformed"),
            ("[]", None, "malformed"),
        ]:
            heard = ask(ann, message)
            assert heard["message_type"] == "error" and heard["data"]["error"] == error, heard
            assert own in (None, heard["id"]), heard
        # Nobody else has heard of any of it.
        for peer in (ben, phone, tablet, cem):
            is_served(peer)


def who_comes_and_goes():
    with open_socket(URL, "ann") as ann:
        with open_socket(URL, "dan"):
            with open_socket(URL, "dan", subprotocol="rooms.text"):
                assert arrival(ann)["message_type"] == "user_joined"
            is_served(ann)
        news = hear(ann)
        assert (news["message_type"], news["data"]["username"]) == ("user_left", "dan"), news


def rooms_in_text():
    room = "Käsekuchen\u2615"
    with ExitStack() as stack:
        ann, ben, cem = (stack.enter_context(open_socket(URL, name, subprotocol="rooms.text")) for name in ("ann", "ben", "cem"))
        assert ann.connection.subprotocol == "rooms.text"
        for peer in (ann, ben):
            assert say(peer, f"JOIN {room}") == f"Joined room: {room}"
        assert say(ann, "JOIN tea") == "Joined room: tea"
        assert say(cem, "ROOMS") == f"Rooms: {room} (2), tea (1)"
        assert say(ben, f"WHO {room}") == f"In {room}: ann, ben"
        assert say(cem, f"WHO {room}") == "ERROR not in this room"
        ann.send(f"SEND {room} hello all")
        for peer in (ann, ben):
            assert peer.recv(PATIENCE) == f"[{room}] ann: hello all"
        ben.send("BROADCAST to all")
        for peer in (ann, ben, cem):
            assert peer.recv(PATIENCE) == "ben: to all"
        assert say(ben, f"LEAVE {room}") == f"Left room: {room}"
        assert say(ann, f"SEND {room} alone") == f"[{room}] ann: alone"
        assert say(ben, f"SEND {room} x") == "ERROR not in this room"
        assert say(ben, "SHOUT") == "ERROR unknown command"


def rooms_in_json():
    with ExitStack() as stack:
        enter = lambda name: stack.enter_context(open_socket(URL, name, subprotocol="rooms.json"))
        ann, ben = enter("ann"), enter("ben")
        order = lambda kind, **more: {"type": kind, "topic": "news", "id": 1, **more}
        for peer in (ann, ben):
            assert ask(peer, order("subscribe")) == {"ack": 1}
        # The sender is the server's to say.
        assert ask(ann, order("publish", message={"n": 1}, **{"from": "ben"})) == {"ack": 1}
        for peer in (ann, ben):
            heard = hear(peer)
            position = {name: heard.pop(name) for name in ("epoch", "offset")}
            assert heard == {"type": "message", "topic": "news", "message": {"n": 1}, "from": "ann"}, heard
            assert position["epoch"] > 0 and position["offset"] > 0, position
        assert ask(ben, order("unsubscribe")) == {"ack": 1}
        assert ask(ann, order("publish", message=2)) == {"ack": 1}
        assert hear(ann)["message"] == 2
        assert ask(ben, order("unsubscribe")) == {"type": "error", "error": "not in this room", "ack": 1}
        assert ask(ben, order("shout"))["type"] == "error"


def chat():
    with open_socket(URL, "ann", subprotocol="chat.json") as ann:
        with open_socket(URL, "ben") as ben:
            assert arrival(ann) == {"Join": "ben"}
            ann.send(json.dumps({"Chat": {"user": "ben", "message": "hi", "timestamp": 0}}))
            heard = words(ben)
            assert (heard["data"], heard["from_user_id"]) == ({"content": "hi"}, user_id("ann")), heard
            ben.send(json.dumps({"message_type": "text", "data": {"content": "hello"}}))
            heard = words(ann)["Chat"]
            assert (heard["user"], heard["message"]) == ("ben", "hello") and abs(heard["timestamp"] - time.time()) < PATIENCE, heard
            assert "Error" in ask(ann, {"Join": "eve"})
        assert hear(ann) == {"Leave": "ben"}


def limits_of_rooms():
    with open_socket(URL, "ann", subprotocol="rooms.text") as ann, open_socket(URL, "ann", subprotocol="rooms.json") as phone:
        assert say(ann, "JOIN " + "x" * 64) == "Joined room: " + "x" * 64
        assert say(ann, "JOIN " + "ä" * 32) == "Joined room: " + "ä" * 32
        for name in ("x" * 65, "ä" * 33, "a b", "a\tb", "a\x00b", "a\u2028b", "\u3000", "x" * 100_000):
            assert say(ann, "JOIN " + name).startswith("ERROR"), name[:70]
            for kind in ("subscribe", "unsubscribe"):
                assert ask(phone, {"type": kind, "topic": name, "id": 0})["type"] == "error", name[:70]
        # Whatever a name is, it is no pattern, and costs nobody the connection.
        for name in ("", ">", "*", "a.>", "%", "x" * 100_000):
            ask(phone, {"type": "publish", "topic": name, "message": 1, "id": 0})
        for number in range(98):
            assert say(ann, f"JOIN {number}") == f"Joined room: {number}"
        assert say(ann, "JOIN more").startswith("ERROR you are in 100 rooms")
        assert ask(phone, {"type": "subscribe", "topic": "more", "id": 0})["type"] == "error"


def messages_that_are_attacks():
    # What gets through to others must be what their parsers take as well.
    deep = "[" * 200_000
    with open_socket(URL, "ann") as ann, open_socket(URL, "ben") as ben:
        for message in (
            deep,
            '{"id":"d","message_type":"ping","data":' + deep,
            '{"id":"d","message_type":"ping","x":' + deep + "]" * 200_000 + "}",
            '{"id":"d","message_type":"text","data":{"content":' + deep + "]" * 200_000 + "}}",
            '{"id":"d","message_type":"text","data":1e999999}',
            '{"id":"d","message_type":"text","data":' + "9" * 100_000 + "}",
            '{"id":"' + "x" * 100_000 + '","message_type":"nothing"}',
            '{"id":"\\ud800","message_type":"text"}',
            '{"id":"d","message_type":"te\\u0078t","data":{"content":"\\u0000"}}',
        ):
            ann.send(message)
        is_served(ann)
        is_served(ben)
        ann.send(b"\x00")
        assert end_of(ann)[0] == 1003
        ben.send("x" * (1 << 20) + "x")
        assert end_of(ben)[0] == 1009
    for subprotocol in ("rooms.json", "chat.json", "rooms.text"):
        with open_socket(URL, "ann", subprotocol=subprotocol) as ann:
            for message in (deep, '{"type":"publish","topic":"t","message":' + deep, '{"Chat":{"message":' + deep):
                ann.send(message)
            while "unknown" not in ann.recv(PATIENCE) and subprotocol == "rooms.text":
                pass


def refreshing():
    # With another's token, one that has expired, or none at all.
    with open_socket(URL, "ann") as ann:
        for wrong, error in ((token("ben"), "claims"), (token("ann", exp=1), "expired"), ("x", "malformed"), ("x" * 9000, "malformed")):
            heard = ask(ann, {"id": "r", "message_type": "refresh", "data": {"token": wrong}})
            assert (heard["id"], heard["message_type"], heard["data"]["error"]) == ("r", "error", error), heard
            # Nothing of a token comes back.
            assert wrong[:12] not in json.dumps(heard) or len(wrong) < 12, heard
        heard = ask(ann, {"id": "r", "message_type": "refresh", "data": {"token": token("ann")}})
        assert heard["message_type"] == "refresh", heard
    with open_socket(URL, "ann", exp=int(time.time()) + 6) as ann:
        assert end_of(ann) == (4102, "expired: refresh first")


def request(target, *headers):
    """Status and body of the answer to a request for a WebSocket that is written as it is."""
    address = urllib.parse.urlsplit(URL)
    line = socket.create_connection((address.hostname, address.port), PATIENCE)
    if address.scheme == "https":
        context = ssl.create_default_context(cafile=os.environ["SSL_CERT_FILE"])
        line = context.wrap_socket(line, server_hostname=address.hostname)
    with line:
        fields = ["Host: localhost", "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13"]
        fields += ["Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==", *headers]
        line.sendall(f"GET {target} HTTP/1.1\r\n".encode() + "".join(f"{field}\r\n" for field in fields).encode() + b"\r\n")
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += line.recv(4096) or b"\r\n\r\n"
        head, _, body = answer.partition(b"\r\n\r\n")
        length = [int(it.split(b":")[1]) for it in head.lower().split(b"\r\n") if it.startswith(b"content-length:")]
        while length and len(body) < length[0]:
            body += line.recv(4096)
        return int(head.split(b" ")[1]), body.decode(errors="replace")


def signed(header, claims):
    """A token with this header and these claims as they are written, signed with the secret."""
    text = f"{encode(header.encode())}.{encode(claims.encode())}"
    return f"{text}.{encode(hmac.digest(os.environ['JWT_SECRET'].encode(), text.encode(), hashlib.sha256))}"


def tokens_that_are_attacks():
    good = token("ann")
    head, claims, signature = good.split(".")
    decoded = json.loads(base64.urlsafe_b64decode(claims + "=="))
    now = int(time.time())
    hs256 = '{"alg":"HS256","typ":"JWT"}'
    said = lambda **changes: json.dumps({name: value for name, value in (decoded | changes).items() if value is not None})
    assert request(f"/ws?token={good}")[0] == 101
    assert request(f"/ws?token={signed(hs256, said())}")[0] == 101
    own = encode(b"the attacker's")
    for name, wrong, reason in [
        *((f"alg {alg}", f'{encode({"alg": alg, "typ": "JWT"})}.{claims}.{rest}', "malformed")
          for alg in ("none", "None", "NONE", "nOnE", "", "HS1") for rest in ("", signature)),
        ("no alg", f"{encode({})}.{claims}.{signature}", "malformed"),
        ("alg HS384", f'{encode({"alg": "HS384"})}.{claims}.{signature}', "algorithm"),
        ("alg RS256", f'{encode({"alg": "RS256"})}.{claims}.{signature}', "algorithm"),
        ("no signature", f"{head}.{claims}.", "signature"),
        ("no last part", f"{head}.{claims}", "malformed"),
        ("other claims", f'{head}.{encode(decoded | {"username": "root"})}.{signature}', "signature"),
        ("a key of its own", token("ann", secret="the attacker's").replace(head, encode({"alg": "HS256", "jwk": {"kty": "oct", "k": own}}), 1), "signature"),
        ("kid", f'{encode({"alg": "HS256", "kid": "../../dev/null"})}.{claims}.{signature}', "signature"),
        ("critical", signed('{"alg":"HS256","crit":["x"],"x":1}', said()), "malformed"),
        ("two claims of a name", signed(hs256, said()[:-1] + ',"sub":"' + user_id("root") + '"}'), "claims"),
        ("deep claims", signed(hs256, '{"sub":' + "[" * 3000), "claims"),
        ("expired", signed(hs256, said(exp=now - 1)), "expired"),
        ("expired long ago", signed(hs256, said(exp=0)), "expired"),
        ("negative", signed(hs256, said(exp=-1)), "claims"),
        ("exp as text", signed(hs256, said(exp=str(now + 60))), "claims"),
        ("exp beyond numbers", signed(hs256, said().replace(str(decoded["exp"]), "1e999")), "claims"),
        ("no exp", signed(hs256, said(exp=None)), "claims"),
        ("not yet", signed(hs256, said(nbf=now + 600)), "not_yet_valid"),
        ("for somebody", signed(hs256, said(aud="somebody")), None),
        ("sub", signed(hs256, said(sub="root' OR 1=1")), "claims"),
        ("no jti", signed(hs256, said(jti=None)), "claims"),
        ("no name", signed(hs256, said(username=7)), "claims"),
        ("many parts", ".".join([good] * 3), "malformed"),
        ("no base64", good.replace(".", ".%3D", 1), None),
    ]:
        status, body = request(f"/ws?token={wrong}")
        assert status == 401 and reason in (None, body), (name, status, body)
        assert wrong[:40] not in body, name
    # One that no head of a request has room for.
    assert request(f"/ws?token={signed(hs256, said(email='x' * 9000))}")[0] == 431
    # A time that no clock will see is still a time.
    for end in (253_402_300_799, 1 << 53, (1 << 64) - 1):
        with open_socket(URL, "ann", exp=end) as ann:
            is_served(ann)


def requests_that_are_attacks():
    good, bad = token("ann"), token("ann", secret="another")
    bearer = lambda it: f"Authorization: Bearer {it}"
    assert request("/ws", bearer(good))[0] == 101
    assert request("/ws", f"authorization: bEARER   {good}")[0] == 101
    for target, headers in [
        ("/ws", []),
        # The first one counts, and none makes up for another.
        (f"/ws?token={bad}&token={good}", []),
        (f"/ws?token={bad}", [bearer(good)]),
        (f"/ws?token=", [bearer(good)]),
        ("/ws", [bearer(bad), bearer(good)]),
        ("/ws", [bearer(bad), f"Sec-WebSocket-Protocol: bearer, {good}"]),
        ("/ws", [f"Authorization: Basic {good}"]),
        ("/ws", [f"Authorization: {good}"]),
        ("/ws", [f"Cookie: token={good}"]),
        ("/ws", [f"Sec-WebSocket-Protocol: {good}"]),
        ("/ws", [f"Sec-WebSocket-Protocol: {good}, bearer"]),
        (f"/ws#token={good}", []),
        (f"/ws?Token={good}", []),
    ]:
        status, body = request(target, *headers)
        assert status in (400, 401), (target[:20], headers and headers[0][:30], status, body)
        assert good not in body and bad not in body, body
    # What there is no end of is no request.
    assert request("/ws?token=" + "x" * 100_000)[0] in (414, 431)
    assert request("/ws", "Authorization: Bearer " + "x" * 100_000)[0] == 431
    for path in ("/ws/", "/WS", "//ws", "/ws/../ws", "/%77s"):
        status, _ = request(f"{path}?token={bad}")
        assert status in (400, 401, 404), (path, status)


checks = [
    envelopes,
    who_comes_and_goes,
    rooms_in_text,
    rooms_in_json,
    chat,
    limits_of_rooms,
    messages_that_are_attacks,
    refreshing,
    tokens_that_are_attacks,
    requests_that_are_attacks,
]
# Who is still online from the check before does not come anew.
run_checks("messages", checks, before=lambda: until(nobody_is_online))
