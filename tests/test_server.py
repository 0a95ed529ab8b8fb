"""Listening, admitting, cutting off and stopping, with real sockets."""

import gc
import logging
import os
import resource
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress

import pytest

from exporter.errors import ServerError
from exporter.server import OWN_DESCRIPTORS, Server
from tests.clients import WAIT_SECONDS, Client, FakeSource, serving

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n"
BURST = 64


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


def test_every_address_is_served(source: FakeSource) -> None:
    server = Server(source, ["127.0.0.1:0", "localhost:0"])
    server.start()
    for address in server.addresses:
        with Client(address) as client:
            assert client.get().status == 200
    server.stop()


def test_port_in_use_is_an_error_at_once(source: FakeSource) -> None:
    with serving(source) as (host, port), pytest.raises(ServerError, match=str(port)):
        Server(source, [f"{host}:{port}"])


def test_burst_of_scrapers_waits_for_nobody(source: FakeSource) -> None:
    server = Server(source, ["127.0.0.1:0"], max_requests=0)
    with ExitStack() as stack:
        stack.callback(server.stop)
        begin = time.monotonic()
        # All connect before anything is accepted: only the backlog holds them.
        clients = [
            stack.enter_context(Client(server.addresses[0])) for _ in range(BURST)
        ]
        for client in clients:
            client.send(SCRAPE)
        server.start()
        assert [client.read_answer().status for client in clients] == [200] * BURST
        assert time.monotonic() - begin < 0.9  # a lost SYN costs a second


def test_two_scrapes_run_at_once(source: FakeSource) -> None:
    source.gate.clear()
    with serving(source) as address, Client(address) as one, Client(address) as two:
        one.send(SCRAPE)
        two.send(SCRAPE)
        source.wait_until_entered(2)
        source.gate.set()
        assert one.read_answer().status == two.read_answer().status == 200


def test_requests_above_the_limit_are_refused(source: FakeSource) -> None:
    source.gate.clear()
    with (
        serving(source, max_requests=1) as address,
        Client(address) as one,
        Client(address) as two,
    ):
        one.send(SCRAPE)
        source.wait_until_entered()
        refused = two.get()
        assert refused.status == 503
        assert refused.body == b"limit of 1 concurrent requests reached\n"
        assert two.get("/-/healthy").status == 200
        source.gate.set()
        assert one.read_answer().status == 200
        assert [two.get().status for _ in range(20)] == [200] * 20


def test_failed_requests_give_their_place_back(source: FakeSource) -> None:
    source.error = RuntimeError("broken")
    with serving(source, max_requests=1) as address, Client(address) as client:
        assert [client.get().status for _ in range(3)] == [500] * 3


def test_zero_means_no_limit(source: FakeSource) -> None:
    source.gate.clear()
    with serving(source, max_requests=0) as address, ExitStack() as stack:
        clients = [stack.enter_context(Client(address)) for _ in range(50)]
        for client in clients:
            # A part of the page is not shared with whoever asks meanwhile.
            client.send(SCRAPE.replace(b"/metrics", b"/metrics?name[]=up"))
        source.wait_until_entered(50)
        source.gate.set()
        assert {client.read_answer().status for client in clients} == {200}


def _wait_for(condition: Callable[[], bool]) -> None:
    """Wait for a server's threads: an answer arrives before its thread is done."""
    deadline = time.monotonic() + WAIT_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def test_longest_idle_connection_makes_room(source: FakeSource) -> None:
    server = Server(source, ["127.0.0.1:0"])
    server.max_connections = 3
    server.start()
    address = server.addresses[0]
    with Client(address) as busy, Client(address) as newer, Client(address) as older:
        for client in (older, newer):
            assert client.get().status == 200
            source.wait_until_entered()
            _wait_for(lambda: len(server._waiting) == 3)
        source.gate.clear()
        busy.send(SCRAPE)
        source.wait_until_entered()
        with Client(address) as late:
            assert late.get("/-/healthy").status == 200
            assert older.is_closed()
            assert newer.get("/-/healthy").status == 200
        source.gate.set()
        assert busy.read_answer().status == 200
    server.stop()


def test_request_that_comes_too_late_is_not_begun(source: FakeSource) -> None:
    server = Server(source, ["127.0.0.1:0"])
    server.start()
    with Client(server.addresses[0]) as client:
        _wait_for(lambda: len(server._waiting) == 1)
        with server._changed:  # as an acceptor does between receipt and begin
            client.send(SCRAPE)
            time.sleep(0.05)
            assert server._make_room()
        assert client.is_closed()
    server.stop()
    assert source.calls == []


def test_unfinished_requests_do_not_lock_scrapers_out(source: FakeSource) -> None:
    with serving(source, max_connections=2) as address, ExitStack() as stack:
        for _ in range(4):
            stack.enter_context(Client(address)).send(b"GET /")
        with Client(address) as scraper:
            assert scraper.get().status == 200


def test_connection_is_refused_when_all_are_busy(source: FakeSource) -> None:
    source.gate.clear()
    with serving(source, max_connections=1) as address, Client(address) as busy:
        busy.send(SCRAPE)
        source.wait_until_entered()
        with Client(address) as late:
            refusal = late.read_answer()
            assert (refusal.status, refusal.headers["connection"]) == (503, "close")
            assert late.is_closed()
        source.gate.set()
        assert busy.read_answer().status == 200


@pytest.mark.parametrize("sent", [b"", b"G", b"GET / HTTP/1.1\r\nHost"])
def test_silent_client_is_cut_off(source: FakeSource, sent: bytes) -> None:
    with (
        serving(source, first_seconds=0.1, receive_seconds=0.1) as address,
        Client(address) as client,
    ):
        client.send(sent)
        assert client.is_closed()


def test_deadline_that_has_passed_is_noticed_before_waiting(
    source: FakeSource,
) -> None:
    with serving(source, receive_seconds=0.0) as address, Client(address) as client:
        client.send(b"G")
        assert client.is_closed(within_seconds=1.0)


def test_dripping_client_is_cut_off(source: FakeSource) -> None:
    with serving(source, receive_seconds=0.15) as address, Client(address) as client:
        begin = time.monotonic()
        client.send(b"GET / HTTP/1.1\r\n")
        with suppress(ConnectionError):
            while not client.is_closed(within_seconds=0.02):
                client.send(b"a")
        assert 0.1 < time.monotonic() - begin < 1.0


def test_idle_connection_is_closed_after_its_own_limit(source: FakeSource) -> None:
    with (
        serving(
            source, first_seconds=5.0, receive_seconds=5.0, idle_seconds=0.1
        ) as address,
        Client(address) as client,
    ):
        assert client.get().status == 200
        assert client.is_closed(within_seconds=1.0)


def test_scraper_may_pause_longer_than_a_request_may_take(source: FakeSource) -> None:
    with (
        serving(source, first_seconds=0.1, receive_seconds=0.1) as address,
        Client(address) as client,
    ):
        assert client.get().status == 200
        time.sleep(0.2)
        assert client.get().status == 200


def test_client_that_does_not_read_is_cut_off(source: FakeSource) -> None:
    source.help_text = "x" * 20_000_000  # more than the buffers of both ends
    server = Server(source, ["127.0.0.1:0"])
    server.send_seconds = 0.1
    server.start()
    with Client(server.addresses[0]) as client:
        client.send(SCRAPE)
        source.wait_until_entered()
        _wait_for(lambda: not (server._busy or server._sending))
        received = 0
        with suppress(ConnectionError):
            while data := client.socket.recv(1_000_000):
                received += len(data)
        assert received < len(source.help_text)
    server.stop()


def test_clients_that_do_not_read_make_room(source: FakeSource) -> None:
    source.help_text = "x" * 20_000_000  # more than the buffers of both ends
    server = Server(source, ["127.0.0.1:0"])
    server.max_connections = 2
    server.start()
    address = server.addresses[0]
    with Client(address) as older, Client(address) as newer:
        for client in (older, newer):
            client.send(SCRAPE)
            source.wait_until_entered()
        _wait_for(lambda: len(server._sending) == 2)
        with Client(address) as late:
            assert late.get("/-/healthy").status == 200
        assert len(newer.read_answer().body) > len(source.help_text)
        with suppress(ConnectionError):
            received = older.socket.recv(len(source.help_text), socket.MSG_WAITALL)
            assert len(received) < len(source.help_text)
    server.stop()


def test_answer_on_its_way_is_finished_when_stopping(source: FakeSource) -> None:
    source.help_text = "x" * 20_000_000
    server = Server(source, ["127.0.0.1:0"])
    server.start()
    with Client(server.addresses[0]) as client:
        client.send(SCRAPE)
        _wait_for(lambda: len(server._sending) == 1)
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        _wait_until_refused(server.addresses[0])
        assert len(client.read_answer().body) > len(source.help_text)
        stopper.join(WAIT_SECONDS)


def test_running_request_is_finished_when_stopping(source: FakeSource) -> None:
    source.gate.clear()
    server = Server(source, ["127.0.0.1:0"])
    server.start()
    with Client(server.addresses[0]) as busy, Client(server.addresses[0]) as idle:
        busy.send(SCRAPE)
        source.wait_until_entered()
        stopper = threading.Thread(target=server.stop)
        stopper.start()
        _wait_until_refused(server.addresses[0])
        source.gate.set()
        answer = busy.read_answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")
        assert idle.is_closed()
        stopper.join(WAIT_SECONDS)


def _wait_until_refused(address: tuple[str, int]) -> None:
    with suppress(ConnectionError):
        while True:
            socket.create_connection(address, WAIT_SECONDS).close()


def test_stuck_request_does_not_hold_up_stopping(source: FakeSource) -> None:
    source.gate.clear()
    server = Server(source, ["127.0.0.1:0"])
    server.stop_seconds = 0.1
    server.start()
    with Client(server.addresses[0]) as client:
        client.send(SCRAPE)
        source.wait_until_entered()
        begin = time.monotonic()
        server.stop()
        assert time.monotonic() - begin < 1.0
        assert client.is_closed()
    source.gate.set()


def test_no_thread_keeps_the_process_alive(source: FakeSource) -> None:
    before = set(threading.enumerate())
    with serving(source) as address, Client(address) as client:
        client.get()
        started = set(threading.enumerate()) - before
        assert len(started) == 1  # a connection's is none that is waited for
        assert all(thread.daemon for thread in started)
    for thread in started:
        thread.join(WAIT_SECONDS)
        assert not thread.is_alive()


def test_stopping_before_start_or_twice_is_harmless(source: FakeSource) -> None:
    server = Server(source, ["127.0.0.1:0"])
    server.stop()
    server.stop()
    Server(source, ["{}:{}".format(*server.addresses[0])]).stop()


def test_connection_without_a_thread_costs_itself_only(
    source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with serving(source) as address, Client(address) as before:
        assert before.get().status == 200
        with monkeypatch.context() as patch:
            patch.setattr("exporter.server.start_new_thread", fail)
            with Client(address) as client:
                assert client.is_closed()
        with Client(address) as after:
            assert after.get().status == before.get().status == 200


def test_connection_without_memory_costs_itself_only(
    source: FakeSource, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise MemoryError

    with serving(source) as address:
        with monkeypatch.context() as patch:
            patch.setattr("exporter.server.Connection", fail)
            with Client(address) as client:
                assert client.is_closed()
        with Client(address) as after:
            assert after.get().status == 200


@pytest.mark.parametrize(
    ("limit", "most"),
    [(1024, 512), (100, 100 - OWN_DESCRIPTORS), (8, 1), (resource.RLIM_INFINITY, 512)],
    ids=str,
)
def test_connections_leave_descriptors_for_scrapes(
    source: FakeSource, monkeypatch: pytest.MonkeyPatch, limit: int, most: int
) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (limit, limit))
    server = Server(source, ["127.0.0.1:0"])
    server.stop()
    assert server.max_connections == most


def test_file_descriptors_running_out_costs_an_idle_connection(
    source: FakeSource,
) -> None:
    server = Server(source, ["127.0.0.1:0"])
    server.start()
    with Client(server.addresses[0]) as idle, ExitStack() as stack:
        stack.callback(server.stop)
        assert idle.get().status == 200
        _wait_for(lambda: len(server._waiting) == 1)
        client = stack.enter_context(socket.socket())
        client.settimeout(WAIT_SECONDS)
        stack.enter_context(_no_file_descriptors(client.fileno() + 10))
        # A waiting accept has its descriptor already; the next one finds none.
        client.connect(server.addresses[0])
        assert idle.is_closed()
        client.sendall(SCRAPE)
        assert client.recv(15) == b"HTTP/1.1 200 OK"


@contextmanager
def _no_file_descriptors(limit: int) -> Iterator[None]:
    gc.collect()  # what other tests left open must not be closed in between
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    with ExitStack() as stack:
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, hard))
        stack.callback(resource.setrlimit, resource.RLIMIT_NOFILE, (soft, hard))
        with suppress(OSError):
            while True:
                stack.callback(os.close, os.dup(0))
        yield


def test_start_is_logged_with_the_address(
    source: FakeSource, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with serving(source) as (host, port):
        [record] = caplog.records
        assert record.getMessage() == "listening"
        assert vars(record)["fields"] == {"host": host, "port": port}
