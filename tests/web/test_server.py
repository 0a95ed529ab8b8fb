"""Listening, admitting, cutting off and stopping, with real sockets."""

import logging
import os
import resource
import socket
import struct
import sys
import threading
import time
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from pathlib import Path

import pytest

from exporter.errors import ServerError
from exporter.web import (
    HEAD_LIMIT_BYTES,
    OWN_DESCRIPTORS,
    SEND_BUFFER_BYTES,
    Server,
    listen_on_all,
)
from exporter.web.access import Access
from tests.certificates import names_of_localhost
from tests.clients import WAIT_SECONDS, Client, FakeSource, make_server, serving
from tests.exporters import fetch, fetch_page, file_flags
from tests.servers import ROOT, Processes, wait_until
from tests.webs import TLS, Web, serial

GET = b"GET /-/healthy HTTP/1.1\r\nHost: test\r\n"
HEALTHY = b"HAK/GAL exporter is healthy.\n"
SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n"
LARGE = "x" * 20_000_000  # more than the buffers of both ends


@pytest.fixture
def server(source: FakeSource) -> Iterator[Server]:
    """Return a server that listens, but is not started yet."""
    made = make_server(source)
    yield made
    source.gate.set()
    made.stop()


@pytest.mark.parametrize(
    ("address", "reached"),
    [
        (":0", {"127.0.0.1", "::1"}),
        ("127.0.0.1:0", {"127.0.0.1"}),
        ("[::]:0", {"127.0.0.1", "::1"}),
        ("[::1]:0", {"::1"}),
    ],
)
def test_address_is_reached_where_it_says(address: str, reached: set[str]) -> None:
    listeners = listen_on_all([address])
    (port,) = {listener.getsockname()[1] for listener in listeners}
    answering = set()
    for host in ("127.0.0.1", "::1"):
        with suppress(OSError):
            socket.create_connection((host, port), WAIT_SECONDS).close()
            answering.add(host)
    for listener in listeners:
        listener.close()
    assert answering == reached


def test_every_address_is_served_and_logged(
    source: FakeSource, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    server = make_server(source, "127.0.0.1:0", "[::1]:0")
    server.start()
    for address in server.addresses:
        with Client(address) as client:
            assert client.get().status == 200
    server.stop()
    listening = [vars(r)["fields"] for r in caplog.records if r.msg == "listening"]
    assert listening == [{"host": h, "port": p} for h, p in server.addresses]


def refusal(*addresses: str) -> str:
    """Return why addresses cannot be listened on."""
    with warnings.catch_warnings():
        # The library leaves a socket that cannot be bound to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        try:
            listen_on_all(addresses)
        except ServerError as error:
            return str(error)
    raise AssertionError(f"can listen on {addresses}")


def test_port_in_use_is_one_clear_line_and_frees_the_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        first = socket.create_server(("127.0.0.1", 0))
        free, address = first.getsockname(), "{}:{}".format(*taken.getsockname())
        first.close()
        text = refusal("{}:{}".format(*free), address)
        assert text.startswith(f"cannot listen on {address}: Address already in use")
        assert "\n" not in text
        socket.create_server(free).close()


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("192.0.2.1:8000", "Cannot assign requested address"),
        ("a..b:8000", "encoding with 'idna' codec failed"),
    ],
)
def test_unusable_address_is_one_clear_line(address: str, reason: str) -> None:
    assert refusal(address).startswith(f"cannot listen on {address}: {reason}")


def test_client_that_does_not_read_costs_little_memory() -> None:
    [listener] = listen_on_all(["127.0.0.1:0"])
    with listener, socket.create_connection(listener.getsockname()):
        accepted, _ = listener.accept()
        with accepted:
            size = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
    assert size <= 2 * SEND_BUFFER_BYTES


def test_burst_of_scrapers_waits_for_nobody(server: Server) -> None:
    with ExitStack() as stack:
        begin = time.monotonic()
        # All connect before anything is accepted: only the backlog holds them.
        clients = [stack.enter_context(Client(server.addresses[0])) for _ in range(64)]
        for client in clients:
            client.send(GET + b"\r\n")
        server.start()
        assert {client.read_answer().status for client in clients} == {200}
        assert time.monotonic() - begin < 0.9  # a lost SYN costs a second


def test_many_connections_and_requests_leave_nothing_behind(source: FakeSource) -> None:
    with serving(source) as address, Client(address) as kept:
        assert kept.get().status == 200
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(300):
            assert kept.get("/-/healthy").status == 200
            with Client(address) as client:
                assert client.get("/none").status == 404
        wait_until(lambda: len(os.listdir("/proc/self/fd")) <= before, WAIT_SECONDS)


def test_longest_idle_connection_makes_room(source: FakeSource) -> None:
    with (
        serving(source, max_connections=3) as address,
        Client(address) as busy,
        Client(address) as newer,
        Client(address) as older,
    ):
        assert older.get().status == newer.get().status == 200
        source.wait_until_entered(2)
        source.gate.clear()
        busy.send(SCRAPE)
        source.wait_until_entered()
        with Client(address) as late:
            assert late.get("/-/healthy").status == 200
            assert older.is_closed()
            assert newer.get("/-/healthy").status == 200
        source.gate.set()
        assert busy.read_answer().status == 200


def test_clients_that_do_not_read_make_room(source: FakeSource) -> None:
    source.help_text = LARGE
    with (
        serving(source, max_connections=2) as address,
        Client(address) as older,
        Client(address) as newer,
    ):
        for client in (older, newer):
            client.send(SCRAPE)
            # Its page is being sent.
            assert client.socket.recv(1, socket.MSG_PEEK) == b"H"
        with Client(address) as late:
            assert late.get("/-/healthy").status == 200
        assert len(newer.read_answer().body) > len(LARGE)
        with suppress(ConnectionError):
            received = older.socket.recv(len(LARGE), socket.MSG_WAITALL)
            assert len(received) < len(LARGE)


def test_client_waits_while_all_are_busy(source: FakeSource) -> None:
    source.gate.clear()
    with serving(source, max_connections=1) as address, Client(address) as busy:
        busy.send(SCRAPE)
        source.wait_until_entered()
        with Client(address) as late:
            late.send(b"GET /-/healthy HTTP/1.1\r\nHost: test\r\n\r\n")
            assert not late.is_closed(within_seconds=0.5)
            source.gate.set()
            assert busy.read_answer().status == 200
            late.socket.settimeout(WAIT_SECONDS)
            assert late.read_answer().status == 200


def test_silent_and_dripping_clients_are_cut_off(source: FakeSource) -> None:
    with (
        serving(source, idle_seconds=0.2) as address,
        Client(address) as silent,
        Client(address) as client,
    ):
        begin = time.monotonic()
        client.send(b"GET / HTTP/1.1\r\n")
        with suppress(ConnectionError):
            while not client.is_closed(within_seconds=0.02):
                client.send(b"a")
        assert 0.1 < time.monotonic() - begin < 2.0
        assert silent.is_closed()


def test_idle_scraper_is_closed_and_a_running_scrape_is_not(source: FakeSource) -> None:
    with serving(source, idle_seconds=0.1) as address, Client(address) as client:
        source.gate.clear()
        client.send(SCRAPE)
        time.sleep(0.3)
        source.gate.set()
        assert client.read_answer().status == 200
        assert client.is_closed()


@pytest.mark.parametrize(
    ("limit", "most"),
    [(1024, 128), (100, 100 - OWN_DESCRIPTORS), (8, 1), (resource.RLIM_INFINITY, 128)],
    ids=str,
)
def test_connections_leave_descriptors_for_scrapes(
    source: FakeSource, monkeypatch: pytest.MonkeyPatch, limit: int, most: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    server = make_server(source)
    server.start()
    server.stop()
    assert server.max_connections == most


def test_few_descriptors_are_enough(
    processes: Processes, folder: Path, free_port: int
) -> None:
    limited = 'ulimit -n 60; exec "$@"'
    flags = [*file_flags(folder), f"--web.listen-address=127.0.0.1:{free_port}"]
    command = ["sh", "-c", limited, "sh", sys.executable, "-m", "exporter", *flags]
    process = processes.start(*command, PYTHONPATH=str(ROOT))
    wait_until(lambda: "msg=listening" in processes.output(process), 20)
    address = "127.0.0.1", free_port
    with ExitStack() as stack:
        for _ in range(60):
            stack.enter_context(Client(address)).send(b"GET /")
        wait_until(lambda: fetch(address, "/-/ready").status == 200, 20)
        assert fetch_page(address).failed == set()
    assert "level=error" not in processes.output(process)


def test_connection_is_kept_unless_the_client_wants_it_closed(client: Client) -> None:
    for _ in range(3):
        assert client.get("/-/healthy").body == HEALTHY
        client.send(b"GET /-/healthy HTTP/1.0\r\nConnection: keep-alive\r\n\r\n")
        assert client.read_answer().body == HEALTHY
    assert client.get("/-/healthy", connection="close").body == HEALTHY
    assert client.is_closed()


@pytest.mark.parametrize("target", ["/metrics?name[]=facts", "/", "/none", "/-/ready"])
def test_head_is_get_without_the_body(client: Client, target: str) -> None:
    got = client.get(target, accept_encoding="gzip")
    head = client.request("HEAD", target, accept_encoding="gzip")
    assert (head.status, head.body) == (got.status, b"")
    assert head.headers | {"date": ""} == got.headers | {"date": ""}
    assert int(head.headers["content-length"]) == len(got.body)
    assert got.headers["server"] == "hakgal-exporter"
    assert got.headers["x-content-type-options"] == "nosniff"
    assert got.headers["date"].endswith(" GMT")


@pytest.mark.parametrize(
    "data",
    [
        b"GET /\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",  # without Host
        b"G(T / HTTP/1.1\r\nHost: test\r\n\r\n",
        GET + b"no colon\r\n\r\n",
        GET + b"Accept: \0\r\n\r\n",
        GET + b"Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello!",
        GET + b"Content-Length: 9999999\r\n\r\n",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\n\n",
        bytes(range(256)) + b"\n\n",
    ],
    ids=lambda data: ascii(data[-40:]),
)
def test_malformed_request_is_refused(client: Client, data: bytes) -> None:
    client.send(data)
    assert client.read_answer().status == 400
    assert client.is_closed()


def test_body_is_not_taken_for_a_request(client: Client) -> None:
    body = b"GET /none HTTP/1.1\r\nHost: test\r\n\r\n"
    client.send(GET + b"Connection: close\r\nContent-Length: %d\r\n\r\n" % len(body))
    client.send(body)
    answers = b""
    with suppress(ConnectionError):
        while data := client.socket.recv(10_000):
            answers += data
    assert answers.count(b"HTTP/1.1 ") == 1
    assert b"404" not in answers


def test_head_may_be_large_but_not_too_large(client: Client) -> None:
    client.send(GET + b"A: " + b"b" * (HEAD_LIMIT_BYTES - 100) + b"\r\n\r\n")
    assert client.read_answer().body == HEALTHY
    with suppress(ConnectionError):
        client.send(GET + b"A: " + b"b" * HEAD_LIMIT_BYTES + b"\r\n\r\n")
    assert client.is_closed()


def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    paths = [b"/-/healthy", b"/none", b"/metrics?name[]=none", b"/-/ready"]
    client.send(b"".join(SCRAPE.replace(b"/metrics", path) for path in paths))
    assert [client.read_answer().status for _ in paths] == [200, 404, 200, 200]


def test_client_that_has_left_is_not_scraped_for(
    source: FakeSource, caplog: pytest.LogCaptureFixture
) -> None:
    source.gate.clear()
    with serving(source) as address:
        with Client(address) as client:
            client.send(SCRAPE * 100)
            source.wait_until_entered()
            option = struct.pack("ii", 1, 0)  # closing sends a reset
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        source.gate.set()
        with Client(address) as other:
            assert [other.get("/-/healthy").status for _ in range(50)] == [200] * 50
    assert len(source.calls) == 1
    assert [r for r in caplog.records if r.levelno > logging.INFO] == []


@pytest.mark.parametrize("is_read_first", [True, False])
def test_what_is_being_served_is_finished_when_stopping(
    source: FakeSource, server: Server, is_read_first: bool
) -> None:
    source.help_text = LARGE
    server.start()
    address = server.addresses[0]
    with Client(address) as reading, Client(address) as waiting:
        reading.send(SCRAPE)
        assert reading.socket.recv(1, socket.MSG_PEEK) == b"H"  # it is being sent
        source.gate.clear()
        waiting.send(SCRAPE)
        source.wait_until_entered(2)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        with suppress(ConnectionError):
            while True:
                socket.create_connection(address, WAIT_SECONDS).close()
                time.sleep(0.01)
        if is_read_first:
            assert len(reading.read_answer().body) > len(LARGE)
            time.sleep(0.1)  # it would end now
        source.gate.set()
        assert waiting.read_answer().status == 200
        if not is_read_first:
            time.sleep(0.1)
            assert len(reading.read_answer().body) > len(LARGE)
        stopper.join(WAIT_SECONDS)


def test_stopping_closes_what_waits_and_what_is_stuck(
    source: FakeSource, server: Server
) -> None:
    source.gate.clear()
    server.stop_seconds = 0.1
    server.start()
    address = server.addresses[0]
    with Client(address) as silent, Client(address) as idle, Client(address) as stuck:
        assert idle.get("/-/healthy").status == 200
        stuck.send(SCRAPE)
        source.wait_until_entered()
        begin = time.monotonic()
        server.stop()
        assert time.monotonic() - begin < 1.0
        assert silent.is_closed(1.0)
        assert idle.is_closed(1.0)
        assert stuck.is_closed(1.0)


def test_no_thread_keeps_the_process_alive(source: FakeSource) -> None:
    before = set(threading.enumerate())
    source.gate.clear()
    with serving(source) as address, Client(address) as client:
        client.send(SCRAPE)
        source.wait_until_entered()
        started = set(threading.enumerate()) - before
        assert started  # the server's; nobody waits for the scrape's
        assert all(thread.daemon for thread in started)
        source.gate.set()
    for thread in started:
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()


def test_stopping_before_start_or_twice_is_harmless(server: Server) -> None:
    server.stop()
    server.stop()
    server.start()
    with Client(server.addresses[0]) as client:
        assert client.get().status == 200


def test_renewed_certificate_is_shown_to_new_connections(web: Web) -> None:
    source, access = FakeSource(), Access(web.write(TLS))
    with (
        serving(source, access=access, look_seconds=0.02) as address,
        Client(address, web.trusting()) as busy,
    ):
        source.gate.clear()
        busy.send(SCRAPE)
        source.wait_until_entered()

        def shown() -> str:
            with Client(address, web.trusting()) as new:
                return serial(new)

        web.servers.issue("server", *names_of_localhost())

        wait_until(lambda: shown() != serial(busy), WAIT_SECONDS)
        with Client(address, web.trusting()) as new:
            source.gate.set()
            assert busy.read_answer().status == new.get().status == 200
