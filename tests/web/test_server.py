"""Listening, admitting, cutting off and stopping, with real sockets."""

import logging
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import pytest

from exporter.web import Server, listen_on_all
from tests.clients import WAIT_SECONDS, Client, FakeSource, make_server, serving
from tests.servers import wait_until

GET = b"GET /-/healthy HTTP/1.1\r\nHost: test\r\n"
SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n"
LARGE = "x" * 20_000_000  # more than the buffers of both ends
TOTAL_RETRANSMISSIONS = slice(100, 104)  # in Linux's struct tcp_info


@pytest.fixture
def server(source: FakeSource) -> Iterator[Server]:
    """Return a server that listens, but is not started yet."""
    made = make_server(source)
    yield made
    source.gate.set()
    made.stop()


@pytest.mark.parametrize(
    ("address", "reached"),
    [(":0", {"127.0.0.1", "::1"}), ("127.0.0.1:0", {"127.0.0.1"})],
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


def test_burst_of_scrapers_waits_for_nobody(server: Server) -> None:
    """All connect before anything is accepted: only the backlog holds them."""
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(server.addresses[0])) for _ in range(64)]
        for client in clients:
            client.send(GET + b"\r\n")
        server.start()
        for client in clients:
            assert client.read_answer().status == 200
            info = client.socket.getsockopt(socket.SOL_TCP, socket.TCP_INFO, 104)
            assert info[TOTAL_RETRANSMISSIONS] == bytes(4)  # each costs a second


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


def test_silent_and_dripping_clients_are_cut_off_and_a_running_scrape_is_not(
    source: FakeSource, server: Server
) -> None:
    server.idle_seconds = 0.2
    address = server.addresses[0]
    source.gate.clear()
    with Client(address) as busy, Client(address) as silent, Client(address) as client:
        busy.send(SCRAPE)
        server.start()
        client.send(b"GET / HTTP/1.1\r\n")
        with suppress(ConnectionError):
            while not client.is_closed(within_seconds=0.02):
                client.send(b"a")
        assert silent.is_closed()
        source.gate.set()
        assert busy.read_answer().status == 200
        assert busy.is_closed()


def test_head_is_get_without_the_body(client: Client) -> None:
    for target in ("/metrics?name[]=facts", "/", "/none"):
        got = client.get(target, accept_encoding="gzip")
        head = client.request("HEAD", target, accept_encoding="gzip")
        assert (head.status, head.body) == (got.status, b"")
        assert head.headers | {"date": ""} == got.headers | {"date": ""}
        assert int(head.headers["content-length"]) == len(got.body)
        assert got.headers["server"] == "hakgal-exporter"
        assert got.headers["x-content-type-options"] == "nosniff"


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n\r\n",  # without Host
        GET + b"Content-Length: 9999999\r\n\r\n",
        b"\x16\x03\x01\x02\0\x01\n\n",
    ],
    ids=lambda data: ascii(data[-40:]),
)
def test_malformed_request_is_refused(client: Client, data: bytes) -> None:
    client.send(data)
    assert client.read_answer().status == 400
    assert client.is_closed()


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


def refuses(address: tuple[str, int]) -> bool:
    try:
        socket.create_connection(address, WAIT_SECONDS).close()
    except ConnectionError:
        return True
    return False


def test_what_is_being_served_is_finished_when_stopping(
    source: FakeSource, server: Server
) -> None:
    source.help_text, server.stop_seconds = LARGE, WAIT_SECONDS
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
        wait_until(lambda: refuses(address), WAIT_SECONDS)
        source.gate.set()
        assert len(waiting.read_answer().body) > len(LARGE)
        assert len(reading.read_answer().body) > len(LARGE)
        stopper.join(WAIT_SECONDS)
        assert not stopper.is_alive()


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
        server.stop()
        assert silent.is_closed()
        assert idle.is_closed()
        assert stuck.is_closed()
        # Whoever still scrapes does not keep the process.
        assert all(one.daemon for one in threading.enumerate()[1:])
