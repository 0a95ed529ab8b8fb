"""The inbox, as a program: what it takes, shows and refuses."""

import json
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.alertmanager.running import DEFAULT, FOLDER, post, post_json, start_inbox
from tests.servers import HTTP, Processes

CASES = Path(__file__).parent / "cases"
JSON = {"Content-Type": "application/json"}


def load(case: str) -> dict[str, Any]:
    message: dict[str, Any] = json.loads((CASES / f"{case}.json").read_text())
    return message


def test_inbox_says_what_where_since_when_and_what_to_do(
    processes: Processes,
) -> None:
    inbox = start_inbox(processes)

    assert post_json(inbox.url, load("single")) == 200

    page = inbox.page()
    assert '<pre class="critical">' in page
    for text in (
        "Queries are slow.",
        "took 620ms on average in the last 5 minutes, above the limit of 500ms",
        "HakgalQueryLatencyHigh on localhost:8000\nSince 2026-11-23 21:31:00 UTC",
        'md#hakgalquerylatencyhigh">What to do</a>',
        'hakgal-queries?var-instance=localhost:8000">Dashboard</a>',
        '<a href="http://localhost:9093/#/silences/new?filter=%7Balertname%3D%22Hakgal',
    ):
        assert text in page


def test_inbox_prints_what_it_shows(processes: Processes) -> None:
    inbox = start_inbox(processes)

    post_json(inbox.url, load("group"))

    printed = processes.output(inbox.process)
    assert "CRITICAL: 3 firing, 1 resolved" in printed
    assert "HakgalDiskFilling on localhost:8000, database performance" in printed
    assert "Resolved: The processors are busy." in printed


def test_text_of_others_is_neither_html_nor_obeyed_by_a_terminal(
    processes: Processes,
) -> None:
    inbox = start_inbox(processes)
    message = load("hostile")
    message["alerts"][0]["annotations"]["description"] = "\x1b[2J\x9b\r \ud800"

    assert post_json(inbox.url, message) == 200

    assert "<script" not in inbox.page()
    assert 'href="javascript' not in inbox.page()
    assert not set("\x1b\x9b\r") & set(processes.output(inbox.process))


def test_inbox_keeps_the_last_hundred(processes: Processes) -> None:
    inbox = start_inbox(processes)
    message = load("single")
    for number in range(102):
        message["alerts"][0]["annotations"]["summary"] = f"Number {number}."
        post_json(inbox.url, message)

    page = inbox.page()

    assert page.count("<pre ") == 100
    assert page.index("Number 101.") < page.index("Number 2.")
    assert "Number 1." not in page


def test_long_messages_are_cut(processes: Processes) -> None:
    inbox = start_inbox(processes)
    message = load("single")
    message["alerts"] *= 60
    post_json(inbox.url, message)
    message["alerts"][0]["annotations"]["description"] = "y" * 10_000
    post_json(inbox.url, message)

    page = inbox.page()

    assert "… and 10 more: " not in page
    assert ">… and 10 more</a>" in page
    assert "y" * 2000 in page
    assert "y" * 2001 not in page
    assert len(page) < 160_000


def test_heartbeat_is_a_time_and_not_a_message(processes: Processes) -> None:
    inbox = start_inbox(processes)
    message = load("bare")
    message["commonLabels"] = {"alertname": "Watchdog", "severity": "none"}
    assert "No heartbeat" in inbox.page()

    for _ in range(3):
        assert post_json(inbox.url, message) == 200

    assert "Last heartbeat of the Watchdog: 20" in inbox.page()
    assert "Nothing has arrived yet." in inbox.page()
    assert processes.output(inbox.process).count("first heartbeat") == 1


@pytest.mark.parametrize(
    ("status", "body", "headers"),
    [
        pytest.param(400, b"{}", JSON, id="no message"),
        pytest.param(400, b"[]", JSON, id="a list"),
        pytest.param(400, b"{", JSON, id="no JSON"),
        pytest.param(400, b"\xff", JSON, id="no text"),
        pytest.param(415, b"{}", {"Content-Type": "text/plain"}, id="other type"),
        pytest.param(413, b"", JSON | {"Content-Length": "9999999"}, id="too long"),
        pytest.param(413, b"", JSON | {"Content-Length": "-1"}, id="no length"),
    ],
)
def test_inbox_refuses_what_alertmanager_would_not_send(
    processes: Processes, status: int, body: bytes, headers: dict[str, str]
) -> None:
    inbox = start_inbox(processes)

    assert post(inbox.url, body, headers) == status

    assert "Nothing has arrived yet." in inbox.page()


def test_page_may_not_run_scripts_or_load_anything(processes: Processes) -> None:
    inbox = start_inbox(processes)

    with HTTP.open(inbox.url) as answer:
        policy = answer.headers["Content-Security-Policy"]

    assert policy.startswith("default-src 'none';")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_inbox_ends_when_told_to(processes: Processes, number: int) -> None:
    inbox = start_inbox(processes)

    inbox.process.send_signal(number)

    assert inbox.process.wait(10) == 0
    assert "Traceback" not in processes.output(inbox.process)


def test_inbox_is_where_the_default_configuration_posts() -> None:
    assert "127.0.0.1:9099)" in run("--help").stdout
    assert "url: http://localhost:9099/\n" in DEFAULT.read_text()


def test_taken_port_is_said_in_one_line(taken_port: int) -> None:
    done = run(f"--web.listen-address=127.0.0.1:{taken_port}")

    assert done.returncode == 1
    assert done.stderr == (
        f"inbox: cannot listen on 127.0.0.1:{taken_port}: Address already in use\n"
    )


@pytest.mark.parametrize("address", ["9099", "localhost", "localhost:x", ":70000"])
def test_bad_address_is_refused(address: str) -> None:
    done = run(f"--web.listen-address={address}")

    assert done.returncode == 2
    assert done.stderr.endswith(f"{address} is no address: write host:port\n")


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, FOLDER / "inbox.py", *arguments],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
    )
