"""The inbox, as a program: what it takes, shows and refuses."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.alertmanager.running import (
    DEFAULT,
    FOLDER,
    JSON,
    RunningInbox,
    post,
    post_json,
    start_inbox,
)
from tests.servers import HTTP, Processes

CASES = Path(__file__).parent / "cases"
REFUSED = {
    "no message": (400, b"{}", JSON),
    "a list": (400, b"[]", JSON),
    "no JSON": (400, b"{", JSON),
    "no text": (400, b"\xff", JSON),
    "other type": (415, b"{}", {"Content-Type": "text/plain"}),
    "too long": (413, b"", JSON | {"Content-Length": "9999999"}),
    "no length": (413, b"", JSON | {"Content-Length": "-1"}),
}


@pytest.fixture
def inbox(processes: Processes) -> RunningInbox:
    return start_inbox(processes)


def load(case: str) -> dict[str, Any]:
    message: dict[str, Any] = json.loads((CASES / f"{case}.json").read_text())
    return message


def test_inbox_says_what_where_since_when_and_what_to_do(
    inbox: RunningInbox, processes: Processes
) -> None:
    assert post_json(inbox.url, load("single")) == 200
    assert post_json(inbox.url, load("group")) == 200

    for text in (
        '<pre class="critical">',
        "Queries are slow.",
        "took 620ms on average in the last 5 minutes, above the limit of 500ms",
        "HakgalQueryLatencyHigh on localhost:8000\nSince 2026-11-23 21:31:00 UTC",
        'md#hakgalquerylatencyhigh">What to do</a>',
        'hakgal-queries?var-instance=localhost:8000">Dashboard</a>',
        '<a href="http://localhost:9093/#/silences/new?filter=%7Balertname%3D%22Hakgal',
    ):
        assert text in inbox.page()
    printed = processes.output(inbox.process)
    assert "CRITICAL: 3 firing, 1 resolved" in printed
    assert "HakgalDiskFilling on localhost:8000, database performance" in printed
    assert "Resolved: The processors are busy." in printed


def test_text_of_others_is_neither_html_nor_obeyed_by_a_terminal(
    inbox: RunningInbox, processes: Processes
) -> None:
    message = load("hostile")
    message["alerts"][0]["annotations"]["description"] = "\x1b[2J\x9b\r \ud800"

    assert post_json(inbox.url, message) == 200

    assert "<script" not in inbox.page()
    assert 'href="javascript' not in inbox.page()
    assert not set("\x1b\x9b\r") & set(processes.output(inbox.process))
    with HTTP.open(inbox.url) as answer:
        policy = answer.headers["Content-Security-Policy"]
    assert policy.startswith("default-src 'none';")


def test_inbox_keeps_the_last_hundred_and_cuts_what_is_long(
    inbox: RunningInbox,
) -> None:
    message = load("single")
    annotations = message["alerts"][0]["annotations"]
    for number in range(100):
        annotations["summary"] = f"Number {number}."
        post_json(inbox.url, message)
    message["alerts"] *= 60
    post_json(inbox.url, message)
    annotations["description"] = "y" * 10_000
    post_json(inbox.url, message)

    page = inbox.page()

    assert page.count("<pre ") == 100
    assert page.index("Number 99.") < page.index("Number 2.")
    assert "Number 1." not in page
    assert ">… and 10 more</a>" in page
    assert "y" * 2000 in page
    assert "y" * 2001 not in page


def test_heartbeat_is_a_time_and_not_a_message(
    inbox: RunningInbox, processes: Processes
) -> None:
    message = load("bare")
    message["commonLabels"] = {"alertname": "Watchdog", "severity": "none"}
    assert "No heartbeat" in inbox.page()

    for _ in range(3):
        assert post_json(inbox.url, message) == 200

    assert "Last heartbeat of the Watchdog: 20" in inbox.page()
    assert "Nothing has arrived yet." in inbox.page()
    assert processes.output(inbox.process).count("first heartbeat") == 1


def test_inbox_refuses_what_alertmanager_would_not_send(inbox: RunningInbox) -> None:
    for name, (status, body, headers) in REFUSED.items():
        assert post(inbox.url, body, headers) == status, name

    assert "Nothing has arrived yet." in inbox.page()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_inbox_ends_when_told_to(
    inbox: RunningInbox, processes: Processes, number: int
) -> None:
    inbox.process.send_signal(number)

    assert inbox.process.wait(10) == 0
    assert "Traceback" not in processes.output(inbox.process)


def test_addresses_are_checked_and_that_of_the_default_configuration_is_the_default(
    taken_port: int,
) -> None:
    said = f"cannot listen on 127.0.0.1:{taken_port}: Address already in use"
    assert run(f"127.0.0.1:{taken_port}") == (1, f"inbox: {said}\n")
    for address in ("9099", "localhost", "localhost:x", ":70000"):
        code, output = run(address)
        assert code == 2
        assert output.endswith(f"{address} is not an address: write host:port\n")
    assert "127.0.0.1:9099)" in run("", "--help")[1]
    assert "url: http://localhost:9099/\n" in DEFAULT.read_text()


def run(address: str, *flags: str) -> tuple[int, str]:
    flag = f"--web.listen-address={address}"
    command = [sys.executable, str(FOLDER / "inbox.py"), flag, *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stdout + done.stderr
