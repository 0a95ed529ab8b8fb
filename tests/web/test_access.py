"""Who is let in: log-ins, certificates of clients, and files that change."""

import logging
import ssl
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

import bcrypt
import pytest

from exporter.web.access import Access
from tests.certificates import names_of_localhost
from tests.clients import WAIT_SECONDS, Answer, Client, FakeSource, serving
from tests.servers import wait_until
from tests.webs import (
    CLIENTS,
    HEADERS,
    SOME_CLIENTS,
    TLS,
    Web,
    basic,
    hash_of,
    users,
)

SCRAPE = "GET /metrics HTTP/1.1\r\nHost: test\r\nAuthorization: {}\r\n\r\n"
GREETING = bytes.fromhex("16030100c8010000c40303") + bytes(32)  # of a ClientHello
ALICE = basic("alice", "a")
Address = tuple[str, int]
each_version = pytest.mark.parametrize(
    "version", [ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3], ids=["1.2", "1.3"]
)


class Comparisons:
    """Counts comparisons of passwords with hashes; they can be held up."""

    def __init__(self) -> None:
        self.hashes: list[str] = []
        self.running = self.most = 0
        self.gate = threading.Event()
        self.gate.set()
        self._compare = bcrypt.checkpw

    def __call__(self, password: bytes, hashed: bytes) -> bool:
        self.running += 1
        self.most = max(self.most, self.running)
        self.hashes.append(hashed.decode())
        assert self.gate.wait(WAIT_SECONDS)
        self.running -= 1
        return self._compare(password, hashed)


@pytest.fixture
def comparisons(monkeypatch: pytest.MonkeyPatch) -> Iterator[Comparisons]:
    counted = Comparisons()
    monkeypatch.setattr(bcrypt, "checkpw", counted)
    yield counted
    counted.gate.set()


@pytest.fixture
def address(web: Web, source: FakeSource) -> Iterator[Address]:
    """Serve alice and bob."""
    path = web.write(users(alice="a"), f"  bob: {hash_of('b:c', cost=5)}\n")
    with serving(source, access=Access(path)) as address:
        yield address


@contextmanager
def watching(path: Path) -> Iterator[Address]:
    """Serve what a file allows, and look at it often."""
    with serving(FakeSource(), access=Access(path), look_seconds=0.02) as address:
        yield address


def get(address: Address, login: str = "", source: str = "") -> Answer:
    """Return the answer on a new connection."""
    with Client(address, source=source) as client:
        return client.get(authorization=login)


def attempt(address: Address, context: ssl.SSLContext) -> int:
    """Return the status of an answer; raises what the server says instead."""
    with Client(address, context) as client:
        with suppress(OSError):  # it may have closed already; its alert has come first
            client.send(SCRAPE.encode())
        return client.read_answer().status


@pytest.mark.parametrize("target", ["/metrics", "/", "/-/healthy", "/-/ready", "/none"])
def test_every_path_needs_a_login(
    address: Address, source: FakeSource, target: str
) -> None:
    with Client(address) as client:
        for method in ("GET", "HEAD", "POST"):
            refused = client.request(method, target)
            assert refused.status == 401
            challenge = 'Basic realm="HAK/GAL exporter"'
            assert refused.headers["www-authenticate"] == challenge
            assert refused.headers["server"] == "hakgal-exporter"
        assert source.calls == []
        status = 404 if target == "/none" else 200
        assert client.get(target, authorization=ALICE).status == status


def test_password_has_to_be_the_users(web: Web) -> None:
    longest = "x" * 72
    path = web.write(users(alice="a", bob="b:c", ärger="ä", carol=longest))
    with serving(FakeSource(), access=Access(path)) as address:
        for user, password, status in (
            *(("alice", "a", 200), ("bob", "b:c", 200), ("ärger", "ä", 200)),
            *(("alice", "b:c", 401), ("alice", "", 401), ("Alice", "a", 401)),
            *(("mallory", "a", 401), ("", "", 401), ("alice", "a\0", 401)),
            *(("carol", longest, 200), ("carol", longest + "x", 401)),
        ):
            for _ in range(2):
                assert get(address, basic(user, password)).status == status, user


@pytest.mark.parametrize(
    "login",
    [
        *("Basic", "Bearer YTph", "YWxpY2U6YQ==", "Basic YWxpY2U6YQ"),
        *("Basic YWxpY2U=", "Basic YWxp\xe4", "Basic " + "A" * 30000),
    ],
    ids=lambda login: ascii(login[:30]),
)
def test_what_is_no_login_is_not_compared(
    address: Address, comparisons: Comparisons, login: str
) -> None:
    assert get(address, login).status == 401
    assert comparisons.hashes == []


def test_bytes_that_are_no_text_are_a_wrong_login(address: Address) -> None:
    for header in ("Basic /zr/", "basic YWxpY2U6//4="):
        assert get(address, header).status == 401


def test_right_logins_are_remembered(
    address: Address, comparisons: Comparisons
) -> None:
    for _ in range(3):
        assert get(address, ALICE).status == 200
        assert get(address, ALICE.replace("Basic", "BASIC")).status == 200
    assert len(comparisons.hashes) == 1

    comparisons.gate.clear()
    with Client(address) as other:
        other.send(SCRAPE.format(basic("alice", "wrong")).encode())
        wait_until(lambda: len(comparisons.hashes) == 2, WAIT_SECONDS)
        assert get(address, ALICE).status == 200  # waits for nobody
        comparisons.gate.set()
        assert other.read_answer().status == 401


def test_unknown_users_cost_as_much_as_known_ones(
    address: Address, comparisons: Comparisons
) -> None:
    for password in ("x", "x" * 100, "\0"):
        assert get(address, basic("alice", password)).status == 401
        assert get(address, basic("mallory", password)).status == 401
    of_alice, of_mallory = comparisons.hashes[::2], comparisons.hashes[1::2]
    assert of_alice == [hash_of("a")] * 3
    assert of_mallory == of_mallory[:1] * 3  # always the same time

    for number in range(40):
        assert get(address, basic(f"user{number}", "a")).status == 401
    assert set(comparisons.hashes) == {hash_of("a"), hash_of("b:c", cost=5)}


@contextmanager
def sending(address: Address, *logins: str, source: str = "") -> Iterator[list[Client]]:
    """Send scrapes with log-ins, each on a connection; yield once they have arrived."""
    with ExitStack() as stack:
        clients = [stack.enter_context(Client(address, source=source)) for _ in logins]
        for client, login in zip(clients, logins, strict=True):
            client.send(SCRAPE.format(login).encode())
        assert get(address).status == 401
        yield clients


def test_scraper_gets_in_beside_a_flood(
    address: Address, comparisons: Comparisons
) -> None:
    wrong = [basic("bob", str(number)) for number in range(15)]
    comparisons.gate.clear()
    with (
        sending(address, *wrong, source="127.0.0.2") as flood,
        sending(address, *[ALICE] * 5) as scrapers,
    ):
        comparisons.gate.set()
        assert [client.read_answer().status for client in scrapers] == [200] * 5
        assert [client.read_answer().status for client in flood] == [401] * 15
    assert comparisons.most == 1
    assert comparisons.hashes.index(hash_of("a")) <= 2  # not behind all of the flood
    assert comparisons.hashes.count(hash_of("a")) == 1


def test_login_that_waits_too_long_is_put_off(
    address: Address, comparisons: Comparisons, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.web.access.WAIT_SECONDS", 0.2)
    comparisons.gate.clear()
    with sending(address, basic("bob", "1")) as [one]:
        wait_until(lambda: comparisons.hashes, WAIT_SECONDS)
        time.sleep(0.1)
        with sending(address, ALICE) as [other]:
            answer = other.read_answer()
            assert (answer.status, answer.headers["server"]) == (503, "hakgal-exporter")
        # A comparison that has begun has its turn until it ends.
        assert comparisons.most == 1
        comparisons.gate.set()
        assert one.read_answer().status == 401
    assert get(address, ALICE).status == 200


def test_connection_that_waits_for_its_login_makes_room(
    web: Web, comparisons: Comparisons
) -> None:
    comparisons.gate.clear()
    path = web.write(users(alice="a"))
    with (
        serving(FakeSource(), access=Access(path), max_connections=1) as address,
        Client(address) as client,
    ):
        client.send(SCRAPE.format(ALICE).encode())
        wait_until(lambda: comparisons.hashes, WAIT_SECONDS)
        assert get(address).status == 401
        assert client.is_closed()


def test_logins_are_never_logged(
    address: Address, source: FakeSource, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    source.error = RuntimeError("broken")
    for password in ("a", "secret"):
        get(address, basic("alice", password))
    logged = " ".join(str(vars(record)) for record in caplog.records)
    assert "broken" in logged
    for secret in ("alice", "secret", ALICE[6:], hash_of("a")):
        assert secret not in logged


def test_headers_are_on_every_answer(web: Web) -> None:
    access = Access(web.write(HEADERS, users(alice="a")))
    with serving(FakeSource(), access=access) as address, Client(address) as client:
        for target, login in (("/", ALICE), ("/metrics", ALICE), ("/none", "")):
            headers = client.get(target, authorization=login).headers
            assert headers["content-security-policy"] == "default-src 'self'"
            assert headers["x-content-type-options"] == "nosniff"
            assert headers["x-frame-options"] == "deny"


def look_twice(access: Access) -> bool:
    """Look at the files until they are read, which is at the second look."""
    assert not access.look()
    return access.look()


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        pytest.param(users(alice="a"), "", "no users any more", id="emptied"),
        pytest.param(users(alice="a"), None, "No such file", id="removed"),
        pytest.param(users(alice="a"), "users: {}", "unknown key", id="unknown"),
        pytest.param(users(alice="a"), "basic_auth_users: {", "not YAML", id="no YAML"),
        pytest.param(users(alice="a"), users(alice="a")[:-9], "bcrypt hash", id="cut"),
        pytest.param(users(alice="a"), TLS + users(alice="a"), "TLS", id="TLS on"),
        pytest.param(TLS + users(alice="a"), users(alice="a"), "TLS", id="TLS off"),
        pytest.param(
            TLS, TLS.replace("server.crt", "new.crt"), "No such file", id="no file"
        ),
        pytest.param(CLIENTS, TLS, "client certificates", id="clients"),
        pytest.param(CLIENTS, SOME_CLIENTS, "client certificates", id="some clients"),
    ],
)
def test_what_cannot_be_used_changes_nothing(
    web: Web,
    before: str,
    after: str | None,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.INFO)
    access = Access(web.write(before))
    config = access.config
    if after is None:
        web.file.unlink()
    else:
        web.write(after)

    assert [access.look() for _ in range(5)] == [False] * 5

    assert access.config is config
    [failing] = caplog.records
    assert (failing.levelname, failing.getMessage()) == ("WARNING", "failing")
    assert reason in vars(failing)["fields"]["error"]
    caplog.clear()
    web.write(before, "# mended\n")
    assert look_twice(access)
    assert [record.getMessage() for record in caplog.records] == ["recovered"]


def test_file_that_is_still_being_written_is_not_read(web: Web) -> None:
    access = Access(web.write(users(alice="a", bob="b")))
    web.write(users(alice="a"))
    assert not access.look()
    web.write(users(alice="a", carol="c"))
    assert look_twice(access)
    assert set(access.config.users) == {"alice", "carol"}
    assert [access.look() for _ in range(3)] == [False] * 3


def test_certificate_without_its_new_key_is_not_used(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    access = Access(web.write(TLS))
    old, config = web.key.read_bytes(), access.config
    web.servers.issue("server", *names_of_localhost())
    new = web.key.read_bytes()
    web.key.write_bytes(old)
    assert not look_twice(access)
    assert access.config is config
    assert "key_file" in vars(caplog.records[-1])["fields"]["error"]

    web.key.write_bytes(new)

    assert look_twice(access)
    assert access.config.tls is not config.tls


def test_users_and_passwords_change_for_kept_connections_too(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = web.write(users(alice="a", bob="b"))
    with watching(path) as address, Client(address) as client:
        assert client.get(authorization=ALICE).status == 200
        assert get(address, basic("bob", "b")).status == 200

        web.write(users(bob="new"), HEADERS)

        wait_until(lambda: client.get(authorization=ALICE).status == 401, WAIT_SECONDS)
        assert client.get(authorization=basic("bob", "b")).status == 401
        answer = client.get(authorization=basic("bob", "new"))
        assert (answer.status, answer.headers["x-frame-options"]) == (200, "deny")
    messages = [record.getMessage() for record in caplog.records]
    assert messages == ["listening", "web configuration read again"]


def test_users_may_come_later(web: Web) -> None:
    with watching(web.write("")) as address, Client(address) as client:
        assert client.get().status == 200
        web.write(users(alice="a"))
        wait_until(lambda: client.get().status == 401, WAIT_SECONDS)


@each_version
def test_page_comes_through_tls(web: Web, version: ssl.TLSVersion) -> None:
    source, context = FakeSource(), web.trusting(highest=version)
    source.help_text = "x" * 3_000_000
    context.set_alpn_protocols(["h2", "http/1.1"])
    with (
        serving(source, access=Access(web.write(TLS))) as address,
        Client(address, context) as client,
    ):
        assert source.help_text.encode() in client.get().body
        assert client.get("/-/healthy", connection="close").status == 200
        assert isinstance(client.socket, ssl.SSLSocket)
        assert client.socket.version() == version.name.replace("_", ".")
        assert client.socket.selected_alpn_protocol() == "http/1.1"
        assert client.is_closed()


def test_sessions_are_not_resumed(web: Web) -> None:
    with (
        serving(FakeSource(), access=Access(web.write(TLS))) as address,
        Client(address, web.trusting()) as client,
    ):
        assert client.get().status == 200
        assert isinstance(client.socket, ssl.SSLSocket)
        assert not (client.socket.session and client.socket.session.has_ticket)


def test_version_below_the_lowest_is_refused(web: Web) -> None:
    path = web.write(TLS, "  min_version: TLS13\n")
    with (
        serving(FakeSource(), access=Access(path)) as address,
        pytest.raises(ssl.SSLError, match="VERSION"),
    ):
        attempt(address, web.trusting(highest=ssl.TLSVersion.TLSv1_2))


@pytest.mark.parametrize(
    "sent",
    [
        pytest.param(SCRAPE.encode(), id="plain HTTP"),
        pytest.param(b"\x16\x03\x01\0\x05hello", id="broken greeting"),
        pytest.param(bytes(range(256)), id="garbage"),
    ],
)
def test_what_is_not_tls_is_cut_off_silently(
    web: Web, sent: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    with serving(FakeSource(), access=Access(web.write(TLS))) as address:
        with Client(address) as client:
            client.send(sent)
            with suppress(ConnectionError):
                assert b"HTTP" not in client.socket.recv(1000)  # an alert
            assert client.is_closed()
        assert attempt(address, web.trusting()) == 200
    ours = [one.getMessage() for one in caplog.records if one.name != "tornado.general"]
    assert ours == ["listening"]


@pytest.mark.parametrize("sent", [b"", b"\x16\x03", GREETING])
def test_client_that_stops_in_the_handshake_is_cut_off(web: Web, sent: bytes) -> None:
    access = Access(web.write(TLS))
    with (
        serving(FakeSource(), access=access, idle_seconds=0.1) as address,
        Client(address) as client,
    ):
        client.send(sent)
        assert client.is_closed()
    with (
        serving(FakeSource(), access=access, max_connections=1) as address,
        Client(address) as client,
    ):
        client.send(sent)
        assert attempt(address, web.trusting()) == 200
        assert client.is_closed()


@each_version
def test_client_certificate_is_required(web: Web, version: ssl.TLSVersion) -> None:
    good = web.clients.issue("prometheus")
    with serving(FakeSource(), access=Access(web.write(CLIENTS))) as address:
        assert attempt(address, web.trusting(good, highest=version)) == 200
        for pair, alert in (
            (None, "CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE"),
            (web.clients.issue("late", days=0), "CERTIFICATE_EXPIRED"),
            (web.servers.issue("stranger"), "UNKNOWN_CA"),
        ):
            with pytest.raises(ssl.SSLError, match=alert):
                attempt(address, web.trusting(pair, highest=version))


def test_client_certificate_may_be_left_away_where_it_is_optional(web: Web) -> None:
    path = web.write(SOME_CLIENTS)
    with serving(FakeSource(), access=Access(path)) as address:
        assert attempt(address, web.trusting()) == 200
        assert attempt(address, web.trusting(web.clients.issue("known"))) == 200
        with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
            attempt(address, web.trusting(web.servers.issue("unknown")))
    web.write(SOME_CLIENTS, users(alice="a"))
    with serving(FakeSource(), access=Access(path)) as address:
        assert attempt(address, web.trusting(web.clients.issue("known"))) == 401


def test_new_authority_lets_its_clients_in_and_no_others(web: Web) -> None:
    old, new = web.clients.issue("old"), web.servers.issue("new")
    with watching(web.write(CLIENTS)) as address:

        def is_in(pair: tuple[Path, Path]) -> bool:
            with suppress(OSError):
                return attempt(address, web.trusting(pair)) == 200
            return False

        assert is_in(old)
        assert not is_in(new)

        web.clients.file.write_bytes(web.servers.file.read_bytes())

        wait_until(lambda: is_in(new), WAIT_SECONDS)
        with pytest.raises(ssl.SSLError, match="UNKNOWN_CA"):
            attempt(address, web.trusting(old))
