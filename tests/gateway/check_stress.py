"""Puts the load of two published stress tools on a gateway by ringwire-bench, each connection with a token of its own,
and checks the figures: check_stress.py BENCH URL TOKENS OUT."""

import json
import os
import subprocess
import sys

from tokens import run_checks

BENCH, URL, TOKENS, OUT = sys.argv[1:]
CONNECTIONS, MESSAGES = 20, 5
PING = '{"id":"{number}","message_type":"ping","data":{}}'


def stress(name, *flags):
    """The reports of a run, which has no error."""
    path = os.path.join(OUT, f"stress-{name}.json")
    command = [BENCH, "stress", *flags, "--token-file", TOKENS, "--json", path]
    if ca := os.environ.get("SSL_CERT_FILE"):
        command += ["--ca", ca]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, f"{command}: {done.stdout}{done.stderr}"
    # The figures of the tools come first.
    for words in ("total connections", "failed", "success rate"):
        assert words in done.stdout, done.stdout
    with open(path, encoding="utf-8") as file:
        said = json.load(file)
    return said if isinstance(said, list) else [said]


def check(report, scenario, messages):
    """All connections were opened, and as many messages answered as were sent: so many, where that is known."""
    assert report["scenario"] == scenario, report["scenario"]
    assert report["opened"] == CONNECTIONS and report["errors"] == {}, report
    work = report["work"]
    if scenario == "storm":
        assert work is None, work
        return
    assert work["sent"] == work["answered"] > 0, work
    if messages is not None:
        assert work["sent"] == messages, work


def kind(test_type, *flags):
    return stress(test_type, "--test-type", test_type, "--connections", str(CONNECTIONS), *flags, "--url", URL)


def storm():
    [report] = kind("storm", "--max-concurrent", "10")
    check(report, "storm", None)


def throughput():
    [report] = kind("throughput", "--messages", str(MESSAGES))
    check(report, "throughput", CONNECTIONS * MESSAGES)


def sustained():
    [report] = kind("sustained", "--duration", "2", "--message-interval", "200")
    check(report, "sustained", None)


def all_of_them():
    reports = kind("all", "--messages", str(MESSAGES), "--duration", "1")
    assert len(reports) == 3, len(reports)
    expected = (("storm", None), ("throughput", CONNECTIONS * MESSAGES), ("sustained", None))
    for report, (scenario, messages) in zip(reports, expected):
        check(report, scenario, messages)


def clients_at_a_rate():
    """The other tool's flags, with one dash."""
    path = os.path.join(OUT, "ping.json")
    with open(path, "w", encoding="utf-8") as file:
        file.write(PING)
    flags = (f"-clients={CONNECTIONS}", "-mps=5", "-duration=2s", "-ramp-up=1s", f"-server={URL}", "-resp-timeout=30s")
    [report] = stress("clients", *flags, "--payload-file", path, "--reply-contains", '"pong"')
    check(report, "rate", None)


run_checks("stress", [storm, throughput, sustained, all_of_them, clients_at_a_rate])
