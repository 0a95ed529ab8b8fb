"""TLS over real sockets: who is let in, who is cut off, and how answers travel."""

import ipaddress
import logging
import socket
import ssl
import struct
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path

import pytest
from cryptography import x509

from exporter import tls_stream
from exporter.guard import Guard
from exporter.server import Server
from tests.clients import WAIT_SECONDS, Client, FakeSource, serving
from tests.servers import wait_until
from tests.webs import CLIENTS, TLS, Web, users

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n"
GREETING = bytes.fromhex("16030100c8010000c40303") + bytes(32)  # of a ClientHello
each_version = pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"]
)
CERTIFICATE_REQUIRED = "CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE"


@contextmanager
def serving_tls(
    path: Path, source: FakeSource | None = None, **limits: float
) -> Iterator[tuple[str, int]]:
    source = source or FakeSource()
    with serving(source, guard=Guard(path), **limits) as address:  # type: ignore[arg-type]
        yield address


@each_version
def test_page_comes_through_tls(web: Web, version: ssl.TLSVersion) -> None:
    with (
        serving_tls(web.write(TLS)) as address,
        Client(address, web.trusting(highest=version)) as client,
    ):
        for _ in range(3):
            answer = client.get()
            assert (answer.status, answer.headers["connection"]) == (200, "keep-alive")
            assert b"facts 7.0" in answer.body
        assert isinstance(client.socket, ssl.SSLSocket)
        assert client.socket.version() == version.name.replace("_", ".")


@each_version
def test_large_page_comes_whole(web: Web, version: ssl.TLSVersion) -> None:
    source = FakeSource()
    source.help_text = "x" * 3_000_000
    with (
        serving_tls(web.write(TLS), source) as address,
        Client(address, web.trusting(highest=version)) as client,
    ):
        assert source.help_text.encode() in client.get().body
        assert client.get("/-/healthy").status == 200


def test_end_is_said_in_tls(web: Web) -> None:
    with (
        serving_tls(web.write(TLS)) as address,
        Client(address, web.trusting()) as client,
    ):
        assert client.get(connection="close").headers["connection"] == "close"
        # An end without goodbye raises then.
        client.socket.suppress_ragged_eofs = False  # type: ignore[attr-defined]
        assert client.socket.recv(1) == b""


@each_version
@pytest.mark.parametrize("knows_tickets", [True, False])
def test_no_session_is_kept(
    web: Web, version: ssl.TLSVersion, knows_tickets: bool
) -> None:
    context = web.trusting(highest=version)
    if not knows_tickets:
        context.options |= ssl.OP_NO_TICKET
    guard = Guard(web.write(TLS))
    with serving(FakeSource(), guard=guard) as address:
        for _ in range(5):
            with Client(address, context) as client:
                assert client.get("/-/healthy", connection="close").status == 200
                assert client.is_closed()
    tls = guard._config.tls
    assert tls
    wait_until(lambda: tls.context.session_stats()["number"] == 0, WAIT_SECONDS)


def test_http_1_1_is_negotiated(web: Web) -> None:
    context = web.trusting()
    context.set_alpn_protocols(["h2", "http/1.1"])
    with serving_tls(web.write(TLS)) as address, Client(address, context) as client:
        assert isinstance(client.socket, ssl.SSLSocket)
        assert client.socket.selected_alpn_protocol() == "http/1.1"
        assert client.get().status == 200


def test_sessions_are_not_resumed(web: Web) -> None:
    context = web.trusting()
    with serving_tls(web.write(TLS)) as address, Client(address, context) as client:
        client.get()
        assert isinstance(client.socket, ssl.SSLSocket)
        assert not (client.socket.session and client.socket.session.has_ticket)


def test_tls_1_1_is_refused(web: Web) -> None:
    context = web.trusting()
    with pytest.warns(DeprecationWarning, match="TLSv1_1"):
        context.minimum_version = context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("DEFAULT@SECLEVEL=0")
    with (
        serving_tls(web.write(TLS)) as address,
        pytest.raises(ssl.SSLError, match="ALERT_PROTOCOL_VERSION"),
    ):
        Client(address, context)


def test_version_below_the_lowest_is_refused(web: Web) -> None:
    path = web.write(TLS, "  min_version: TLS13\n")
    with serving_tls(path) as address, pytest.raises(ssl.SSLError, match="VERSION"):
        Client(address, web.trusting(highest=ssl.TLSVersion.TLSv1_2))


@pytest.mark.parametrize("method", ["GET", "HEAD", "POST"])
def test_plain_http_is_told_to_use_https(web: Web, method: str) -> None:
    with serving_tls(web.write(TLS)) as address, Client(address) as client:
        client.send(f"{method} /metrics HTTP/1.1\r\nHost: test\r\n\r\n".encode())
        answer = client.read_answer()
        assert answer.status == 400
        assert answer.body == b"client sent an HTTP request to an HTTPS server\n"
        assert answer.headers["connection"] == "close"
        assert client.is_closed()


@pytest.mark.parametrize("sent", [b"", b"\x16", GREETING, b"\x16\x03"])
def test_client_that_stops_in_the_handshake_is_cut_off(web: Web, sent: bytes) -> None:
    with (
        serving_tls(web.write(TLS), first_seconds=0.1) as address,
        Client(address) as client,
    ):
        client.send(sent)
        assert client.is_closed(within_seconds=2.0)


def test_client_that_drips_its_handshake_is_cut_off(web: Web) -> None:
    with (
        serving_tls(web.write(TLS), first_seconds=0.2) as address,
        Client(address) as client,
    ):
        begin = time.monotonic()
        with suppress(ConnectionError):
            for byte in GREETING * 10:
                client.send(bytes([byte]))
                if client.is_closed(within_seconds=0.02):
                    break
        assert 0.15 < time.monotonic() - begin < 1.0


def test_silent_clients_do_not_hold_others_up(web: Web) -> None:
    with (
        serving_tls(web.write(TLS)) as address,
        Client(address),
        Client(address),
        Client(address, web.trusting()) as client,
    ):
        assert client.get().status == 200


def test_client_in_the_handshake_makes_room(web: Web) -> None:
    with (
        serving_tls(web.write(TLS), max_connections=1) as address,
        Client(address) as silent,
        Client(address, web.trusting()) as client,
    ):
        assert silent.is_closed()
        assert client.get().status == 200


def test_connection_too_many_is_closed_without_plain_text(web: Web) -> None:
    source = FakeSource()
    source.gate.clear()
    with (
        serving_tls(web.write(TLS), source, max_connections=1) as address,
        Client(address, web.trusting()) as busy,
    ):
        busy.send(SCRAPE)
        source.wait_until_entered()
        with Client(address) as late:
            assert late.is_closed()
        source.gate.set()
        assert busy.read_answer().status == 200


def test_garbage_is_refused_and_logged_for_debugging_only(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    with serving_tls(web.write(TLS)) as address:
        for garbage in (b"\x16\x03\x01\0\x05hello", bytes(range(256)), b"\r\n\r\n\r\n"):
            with Client(address) as client:
                client.send(garbage)
                with suppress(ConnectionError):
                    while client.socket.recv(1000):
                        pass  # an alert
    lost = [r for r in caplog.records if r.getMessage() == "connection lost"]
    assert {record.levelname for record in lost} == {"DEBUG"}
    assert len(lost) == 3


def test_client_that_does_not_read_is_cut_off(web: Web) -> None:
    source = FakeSource()
    source.help_text = "x" * 20_000_000  # more than the buffers of both ends
    with (
        serving_tls(web.write(TLS), source, send_seconds=0.2) as address,
        Client(address, web.trusting()) as client,
    ):
        client.send(SCRAPE)
        source.wait_until_entered()
        time.sleep(0.4)
        received = 0
        with suppress(OSError):
            while data := client.socket.recv(1_000_000):
                received += len(data)
        assert received < len(source.help_text)


def test_client_that_reads_slowly_is_cut_off(web: Web) -> None:
    source = FakeSource()
    source.help_text = "x" * 20_000_000
    server = Server(source, ["127.0.0.1:0"], guard=Guard(web.write(TLS)))
    server.send_seconds = 0.3
    server.start()
    with Client(server.addresses[0], web.trusting()) as client:
        client.send(SCRAPE)
        source.wait_until_entered()
        begin = time.monotonic()
        # Each piece goes in time; all of them do not.
        while server._busy or server._sending:
            client.socket.recv(16_384)
            time.sleep(0.01)
        assert 0.2 < time.monotonic() - begin < 2.0
    server.stop()


def test_stopping_wakes_idle_connections(web: Web) -> None:
    server = Server(FakeSource(), ["127.0.0.1:0"], guard=Guard(web.write(TLS)))
    server.start()
    with (
        Client(server.addresses[0], web.trusting()) as idle,
        Client(server.addresses[0]) as silent,
    ):
        assert idle.get().status == 200
        begin = time.monotonic()
        server.stop()
        assert time.monotonic() - begin < 1.0
        assert idle.is_closed()
        assert silent.is_closed()


def test_reset_by_client_is_silent(
    web: Web, capfd: pytest.CaptureFixture[str], caplog: pytest.LogCaptureFixture
) -> None:
    source = FakeSource()
    with serving_tls(web.write(TLS), source) as address:
        source.gate.clear()
        with Client(address, web.trusting()) as client:
            client.send(SCRAPE)
            source.wait_until_entered()
            option = struct.pack("ii", 1, 0)  # closing sends a reset
            client.socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, option)
        source.gate.set()
        with Client(address, web.trusting()) as other:
            assert other.get("/-/healthy").status == 200
    assert [record for record in caplog.records if record.levelname != "INFO"] == []
    assert capfd.readouterr().err == ""


@each_version
def test_client_certificate_is_required(web: Web, version: ssl.TLSVersion) -> None:
    pair = web.clients.issue("prometheus")
    with serving_tls(web.write(CLIENTS)) as address:
        with Client(address, web.trusting(pair, highest=version)) as client:
            assert client.get().status == 200
        with pytest.raises(ssl.SSLError, match=CERTIFICATE_REQUIRED):
            attempt(address, web.trusting(highest=version))


def attempt(address: tuple[str, int], context: ssl.SSLContext) -> int:
    """Return the status of an answer; raises what the server says instead."""
    with Client(address, context) as client:
        return client.get().status


@each_version
@pytest.mark.parametrize(
    ("days", "alert"), [(0, "CERTIFICATE_EXPIRED"), (10, "UNKNOWN_CA")]
)
def test_client_certificate_that_does_not_hold_is_refused(
    web: Web, version: ssl.TLSVersion, days: int, alert: str
) -> None:
    authority = web.clients if days == 0 else web.servers
    pair = authority.issue("prometheus", days=days)
    with (
        serving_tls(web.write(CLIENTS)) as address,
        pytest.raises(ssl.SSLError, match=alert),
    ):
        attempt(address, web.trusting(pair, highest=version))


def test_client_certificate_may_be_left_away_where_it_is_optional(web: Web) -> None:
    text = CLIENTS.replace("RequireAndVerify", "Verify").replace(
        "Cert\n", "CertIfGiven\n"
    )
    with serving_tls(web.write(text)) as address:
        assert attempt(address, web.trusting()) == 200
        assert attempt(address, web.trusting(web.clients.issue("known"))) == 200
        with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
            attempt(address, web.trusting(web.servers.issue("unknown")))


@pytest.mark.parametrize(
    "name",
    [
        x509.DNSName("prometheus.example"),
        x509.RFC822Name("ops@example.org"),
        x509.IPAddress(ipaddress.ip_address("192.0.2.7")),
        x509.IPAddress(ipaddress.ip_address("2001:db8::7")),
        x509.UniformResourceIdentifier("spiffe://example.org/prometheus"),
    ],
    ids=lambda name: type(name).__name__ + str(name.value),
)
def test_client_needs_one_of_the_names(web: Web, name: x509.GeneralName) -> None:
    value = str(name.value)
    own = web.clients.issue("own", x509.DNSName("other"), name)
    others = web.clients.issue("others", x509.DNSName("sub." + value.replace(":", "")))
    none = web.clients.issue(value.partition("/")[0])  # a common name does not count
    sans = f"  client_allowed_sans: ['{value}', nobody.example]\n"
    with serving_tls(web.write(CLIENTS, sans)) as address:
        assert attempt(address, web.trusting(own)) == 200
        assert attempt(address, web.trusting(others)) == 403
        assert attempt(address, web.trusting(none)) == 403


@pytest.mark.parametrize(
    "kind", [b"\x81", b"\x82", b"\x86"], ids=["mail", "DNS", "URI"]
)
def test_names_that_are_no_text_match_nothing(web: Web, kind: bytes) -> None:
    raw = b"\x30\x05" + kind + b"\x03\xff\xfea"
    pair = web.clients.issue("strange", raw_names=raw)
    with serving_tls(web.write(CLIENTS)) as address:
        assert attempt(address, web.trusting(pair)) == 200
    sans = "  client_allowed_sans: [a]\n"
    with serving_tls(web.write(CLIENTS, sans)) as address:
        assert attempt(address, web.trusting(pair)) == 403


def test_password_is_needed_beside_a_certificate(web: Web) -> None:
    pair = web.clients.issue("prometheus")
    with serving_tls(web.write(CLIENTS, users(alice="a"))) as address:
        assert attempt(address, web.trusting(pair)) == 401


def test_no_connection_stays_open_after_a_handshake_that_failed(web: Web) -> None:
    with serving_tls(web.write(TLS)) as address:
        with closing(socket.create_connection(address, WAIT_SECONDS)) as raw:
            raw.sendall(b"\x16\x03\x01\0\x05hello")
            while raw.recv(100):
                pass
        with Client(address, web.trusting()) as client:
            assert client.get().status == 200


def test_address_that_is_none_matches_nothing() -> None:
    assert tls_stream._name("IP Address", "<invalid>") == "<invalid>"
