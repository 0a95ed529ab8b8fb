"""HTTP/1.1 over a real socket: framing, limits, malformed requests."""

import http.client
import os
import socket
import struct
from collections.abc import Iterator

import pytest

from exporter.http_connection import HEAD_LIMIT_BYTES, Connection
from tests.clients import Client, FakeSource, serving

GET = b"GET /-/healthy HTTP/1.1\r\nHost: test\r\n"
HEALTHY = b"HAK/GAL exporter is healthy.\n"


@pytest.fixture
def client() -> Iterator[Client]:
    with serving(FakeSource()) as address, Client(address) as client:
        yield client


def test_connection_is_kept(client: Client) -> None:
    for _ in range(3):
        answer = client.get("/-/healthy")
        assert answer.body == HEALTHY
        assert answer.headers["connection"] == "keep-alive"


@pytest.mark.parametrize("option", ["close", "Close", "keep-alive, close"])
def test_connection_is_closed_on_request(client: Client, option: str) -> None:
    answer = client.get("/-/healthy", connection=option)
    assert answer.body == HEALTHY
    assert answer.headers["connection"] == "close"
    assert client.is_closed()


def test_http_1_0_closes(client: Client) -> None:
    client.send(b"GET /-/healthy HTTP/1.0\r\n\r\n")
    assert client.read_answer().headers["connection"] == "close"
    assert client.is_closed()


def test_http_1_0_is_kept_on_request(client: Client) -> None:
    for _ in range(2):
        client.send(b"GET /-/healthy HTTP/1.0\r\nConnection: Keep-Alive\r\n\r\n")
        assert client.read_answer().headers["connection"] == "keep-alive"


def test_pipelined_requests_are_answered_in_order(client: Client) -> None:
    paths = [b"/-/healthy", b"/none", b"/metrics?name[]=none", b"/-/ready"]
    client.send(b"".join(b"GET %s HTTP/1.1\r\n\r\n" % path for path in paths))
    assert [client.read_answer().status for _ in paths] == [200, 404, 200, 200]


@pytest.mark.parametrize("target", ["/metrics", "/", "/none", "/-/ready"])
def test_head_is_get_without_the_body(client: Client, target: str) -> None:
    # Without what is random in the histogram: its creation time.
    query = "?name[]=facts" if target == "/metrics" else ""
    got = client.get(target + query, accept_encoding="gzip")
    head = client.request("HEAD", target + query, accept_encoding="gzip")
    assert head.status == got.status
    assert head.body == b""
    got.headers.pop("date")
    head.headers.pop("date")
    assert head.headers == got.headers
    assert int(head.headers["content-length"]) == len(got.body)
    assert client.get("/-/healthy").body == HEALTHY


def test_every_answer_has_the_common_headers(client: Client) -> None:
    for target in ("/metrics", "/", "/none"):
        headers = client.get(target).headers
        assert headers["server"] == "hakgal-exporter"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["date"].endswith(" GMT")


@pytest.mark.parametrize(
    "target", ["http://test/-/healthy", "HTTPS://[::1]:8000/-/healthy?x=1"]
)
def test_absolute_target_works(client: Client, target: str) -> None:
    assert client.get(target).body == HEALTHY


@pytest.mark.parametrize("target", ["http://test", "http://test?x=1"])
def test_absolute_target_without_path_is_the_root(client: Client, target: str) -> None:
    assert b"<!DOCTYPE html>" in client.get(target).body


@pytest.mark.parametrize(
    "body",
    [
        b"Content-Length: 39\r\n\r\nGET /none HTTP/1.1\r\n\r\n",
        b"Content-Length: 5\r\n\r\nhello",
        b"Content-Length: 5, 5\r\n\r\nhello",
        b"Content-Length: 5\r\nExpect: 100-continue\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n0\r\n\r\nGET /none HTTP/1.1\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 0\r\n\r\n",
        b"Content-Length: %s\r\n\r\n" % (b"9" * 5000),
    ],
)
def test_request_with_body_is_answered_and_closed(client: Client, body: bytes) -> None:
    client.send(GET + body)
    answer = client.read_answer()
    assert answer.body == HEALTHY
    assert answer.headers["connection"] == "close"
    assert client.is_closed()


def test_answer_survives_a_large_unread_body(client: Client) -> None:
    client.send(
        b"POST / HTTP/1.1\r\nContent-Length: 4000000\r\n\r\n" + bytes(4_000_000)
    )
    assert client.read_answer().status == 405
    assert client.is_closed()


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 0\r\n",
        b"Content-Length: 00, 00\r\n",
        b"Expect: 100-continue\r\n",
    ],
)
def test_empty_body_keeps_the_connection(client: Client, lines: bytes) -> None:
    for _ in range(2):
        client.send(GET + lines + b"\r\n")
        assert client.read_answer().body == HEALTHY


@pytest.mark.parametrize(
    "lines",
    [
        b"Content-Length: 5\r\nContent-Length: 6\r\n",
        b"Content-Length: 5, 6\r\n",
        b"Content-Length: -1\r\n",
        b"Content-Length: +5\r\n",
        b"Content-Length: 0x5\r\n",
        b"Content-Length: \xb2\r\n",
        b"Content-Length:\r\n",
        b"Accept: a\r\n folded\r\n",
        b"Accept: a\r\n\tfolded\r\n",
        b"no colon\r\n",
        b"Accept : a\r\n",
        b": a\r\n",
        b"Accept: \0\r\n",
        b"Acc\0ept: a\r\n",
        b"Accept: a\rb\r\n",
        b"Accept: a\r\r\n",
        b"Accept: a\r\n\r\r\n",
    ],
)
def test_malformed_header_is_refused(client: Client, lines: bytes) -> None:
    client.send(GET + lines + b"\r\n")
    answer = client.read_answer()
    assert answer.status == 400
    assert answer.headers["connection"] == "close"
    assert client.is_closed()


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"GET /\r\n\r\n", 400),
        (b"GET  / HTTP/1.1\r\n\r\n", 400),
        (b"GET / HTTP/1.1 \r\n\r\n", 400),
        (b"GET / HTTP/1\r\n\r\n", 400),
        (b"GET / http/1.1\r\n\r\n", 400),
        (b"GET /\xe4 HTTP/1.1\r\n\r\n", 400),
        (b"GET /\0 HTTP/1.1\r\n\r\n", 400),
        (b"GET http://a\rb/ HTTP/1.1\r\n\r\n", 400),
        (b"G(T / HTTP/1.1\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\0\x01\n\n", 400),
        (bytes(range(256)) + b"\n\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505),
        (b"GET / HTTP/0.9\r\n\r\n", 505),
        (b"GET /" + b"a" * HEAD_LIMIT_BYTES, 414),
        (b"a" * HEAD_LIMIT_BYTES + b"\r\n", 414),
        (b"\r\n" * HEAD_LIMIT_BYTES, 414),
        (GET + b"a: " + b"b" * HEAD_LIMIT_BYTES, 431),
        (GET + b"c: d\r\n" * HEAD_LIMIT_BYTES, 431),
    ],
    ids=lambda value: ascii(value[:60]) if isinstance(value, bytes) else None,
)
def test_garbage_is_refused(client: Client, data: bytes, status: int) -> None:
    client.send(data)
    answer = client.read_answer()
    assert answer.status == status
    assert answer.headers["connection"] == "close"
    assert client.is_closed()


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(b"\r\n\r\n" + GET + b"\r\n", id="leading-empty-lines"),
        pytest.param(GET.replace(b"\r\n", b"\n") + b"\n", id="bare-line-feeds"),
        pytest.param(GET + b"Accept: \xe4\xff\r\n\r\n", id="latin-1-value"),
        pytest.param(GET + b"A: " + b" " * 30000 + b"\r\n\r\n", id="many-blanks"),
        pytest.param(GET + b"A: a\r\na: b\r\n\r\n", id="repeated-header"),
    ],
)
def test_unusual_request_is_answered(client: Client, data: bytes) -> None:
    client.send(data)
    assert client.read_answer().body == HEALTHY


def test_request_in_single_bytes_is_answered(client: Client) -> None:
    client.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    for byte in GET + b"\r\n":
        client.send(bytes([byte]))
    assert client.read_answer().body == HEALTHY


def test_half_closed_client_gets_its_answer(client: Client) -> None:
    client.send(GET + b"\r\n")
    client.socket.shutdown(socket.SHUT_WR)
    assert client.read_answer().body == HEALTHY
    assert client.is_closed()


@pytest.mark.parametrize("sent", [b"", b"GET", GET])
def test_client_that_leaves_early_gets_nothing(client: Client, sent: bytes) -> None:
    client.send(sent)
    client.socket.shutdown(socket.SHUT_WR)
    assert client.is_closed()


def test_headers_and_body_travel_together(client: Client) -> None:
    client.send(GET + b"\r\n")
    assert client.socket.recv(65536).endswith(HEALTHY)


def test_reset_by_client_is_silent(
    capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    source = FakeSource()
    with serving(source) as address:
        source.gate.clear()
        with Client(address) as client:
            client.send(b"GET /metrics HTTP/1.1\r\n\r\n")
            source.wait_until_entered()
            option = struct.pack("ii", 1, 0)  # closing sends a reset
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        source.gate.set()
        with Client(address) as other:
            assert other.get("/-/healthy").status == 200
    assert [record for record in caplog.records if record.levelname != "INFO"] == []
    assert capfd.readouterr().err == ""


def test_standard_clients_understand_the_answers() -> None:
    with serving(FakeSource()) as (host, port):
        connection = http.client.HTTPConnection(host, port, timeout=5)
        for method in ("GET", "HEAD", "GET"):
            connection.request(method, "/metrics")
            answer = connection.getresponse()
            answer.read()
            assert answer.status == 200
            assert not answer.will_close
        connection.close()


def test_closing_never_fails() -> None:
    ours, theirs = socket.socketpair()
    connection = Connection(ours, 1.0, 1.0)
    os.close(ours.fileno())
    connection.close()
    theirs.close()
