"""Who is let in: log-ins, certificates of clients, and files that change."""

import logging
import ssl
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import bcrypt
import pytest

from exporter.web.access import Access
from tests.certificates import Authority, names_of_localhost
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
    serial,
    users,
)

SCRAPE = "GET /metrics HTTP/1.1\r\nHost: test\r\nAuthorization: {}\r\n\r\n"
ALICE = basic("alice", "a")
CHALLENGE = 'Basic realm="HAK/GAL exporter"'
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


def get(address: Address, login: str = "") -> Answer:
    """Return the answer on a new connection."""
    with Client(address) as client:
        return client.get(authorization=login)


def attempt(address: Address, context: ssl.SSLContext) -> int:
    """Return the status of an answer; raises what the server says instead."""
    with Client(address, context) as client:
        with suppress(OSError):  # it may have closed already; its alert has come first
            client.send(SCRAPE.encode())
        return client.read_answer().status


def test_every_path_and_method_needs_a_login(
    address: Address, source: FakeSource
) -> None:
    with Client(address) as client:
        for target in ("/metrics", "/", "/-/healthy", "/-/ready", "/none"):
            for method in ("GET", "HEAD", "POST"):
                refused = client.request(method, target)
                assert refused.status == 401
                assert refused.headers["www-authenticate"] == CHALLENGE
            assert client.get(target, authorization=basic("bob", "a")).status == 401
        assert source.calls == []
        assert client.get("/none", authorization=ALICE).status == 404


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
        for login in (
            "Basic",
            "Bearer YTph",
            "Basic YWxp\xe4",
            "Basic /zr/",
            ALICE[:-1],
        ):
            assert get(address, login).status == 401


def test_right_logins_are_remembered_and_wait_for_nobody(
    address: Address, comparisons: Comparisons
) -> None:
    for _ in range(3):
        assert get(address, ALICE).status == 200
    assert len(comparisons.hashes) == 1

    comparisons.gate.clear()
    with Client(address) as other:
        other.send(SCRAPE.format(basic("alice", "wrong")).encode())
        wait_until(lambda: len(comparisons.hashes) == 2, WAIT_SECONDS)
        assert get(address, ALICE).status == 200
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


def look_twice(access: Access) -> bool:
    """Look at the files until they are read, which is at the second look."""
    assert not access.look()
    return access.look()


UNUSABLE: dict[str, tuple[str, str | None, str]] = {
    "emptied": (users(alice="a"), "", "no users any more"),
    "removed": (users(alice="a"), None, "No such file"),
    "cut": (users(alice="a"), users(alice="a")[:-9], "bcrypt hash"),
    "TLS on": (users(alice="a"), TLS + users(alice="a"), "TLS"),
    "TLS off": (TLS + users(alice="a"), users(alice="a"), "TLS"),
    "optional": (CLIENTS, SOME_CLIENTS, "client certificates"),
}


@pytest.mark.parametrize("change", UNUSABLE)
def test_what_cannot_be_used_changes_nothing(
    web: Web, change: str, caplog: pytest.LogCaptureFixture
) -> None:
    before, after, reason = UNUSABLE[change]
    caplog.set_level(logging.INFO)
    access = Access(web.write(before))
    config = access.config
    web.file.unlink() if after is None else web.write(after)
    assert [access.look() for _ in range(5)] == [False] * 5
    assert access.config is config
    [failing] = caplog.records
    assert reason in vars(failing)["fields"]["error"]
    web.write(before, "# mended\n")
    assert look_twice(access)
    assert [r.getMessage() for r in caplog.records] == ["failing", "recovered"]


def test_users_and_headers_change_for_kept_connections_too(web: Web) -> None:
    access = Access(web.write(users(alice="a", bob="b")))
    with (
        serving(FakeSource(), access=access, look_seconds=0.02) as address,
        Client(address) as client,
    ):
        assert client.get(authorization=ALICE).status == 200
        assert get(address, basic("bob", "b")).status == 200

        web.write(users(bob="new"), HEADERS)

        wait_until(lambda: client.get(authorization=ALICE).status == 401, WAIT_SECONDS)
        assert client.get(authorization=basic("bob", "b")).status == 401
        answer = client.get(authorization=basic("bob", "new"))
        assert (answer.status, answer.headers["x-frame-options"]) == (200, "deny")


def test_renewed_certificate_is_shown_once_its_key_is_there(web: Web) -> None:
    access, old_key = Access(web.write(TLS)), web.key.read_bytes()
    with (
        serving(FakeSource(), access=access, look_seconds=0.02) as address,
        Client(address, web.trusting()) as kept,
    ):

        def shown() -> str:
            with Client(address, web.trusting()) as new:
                return serial(new)

        web.servers.issue("server", *names_of_localhost())
        new_key = web.key.read_bytes()
        web.key.write_bytes(old_key)
        assert shown() == serial(kept)
        web.key.write_bytes(new_key)
        wait_until(lambda: shown() != serial(kept), WAIT_SECONDS)
        assert kept.get().status == 200


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
        assert isinstance(client.socket, ssl.SSLSocket)
        assert client.socket.version() == version.name.replace("_", ".")
        assert client.socket.selected_alpn_protocol() == "http/1.1"
        assert not (client.socket.session and client.socket.session.has_ticket)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_versions_below_tls_1_2_are_refused(web: Web) -> None:
    old = web.trusting(highest=ssl.TLSVersion.TLSv1_1)
    old.minimum_version = ssl.TLSVersion.TLSv1
    old.set_ciphers("DEFAULT@SECLEVEL=0")  # or the client would not even ask
    with (
        serving(FakeSource(), access=Access(web.write(TLS))) as address,
        pytest.raises(ssl.SSLError, match="PROTOCOL_VERSION"),
    ):
        attempt(address, old)


def test_what_is_not_tls_is_cut_off_without_an_answer(web: Web) -> None:
    access = Access(web.write(TLS))
    with serving(FakeSource(), access=access, idle_seconds=1.0) as address:
        for sent in (SCRAPE.encode(), b"\x16\x03\x01\0\x05hello", b""):
            with Client(address) as client:
                client.send(sent)
                with suppress(ConnectionError):
                    assert b"HTTP" not in client.socket.recv(1000)  # an alert
                assert client.is_closed()
        assert attempt(address, web.trusting()) == 200


@each_version
def test_client_certificate_is_required(web: Web, version: ssl.TLSVersion) -> None:
    good = web.clients.issue("prometheus")
    (elsewhere := web.file.with_name("elsewhere")).mkdir()
    namesake = Authority(elsewhere, "clients")
    with serving(FakeSource(), access=Access(web.write(CLIENTS))) as address:
        assert attempt(address, web.trusting(good, highest=version)) == 200
        for pair, alert in (
            (None, "CERTIFICATE_REQUIRED|HANDSHAKE_FAILURE"),
            (web.clients.issue("late", days=0), "CERTIFICATE_EXPIRED"),
            (web.servers.issue("stranger"), "UNKNOWN_CA"),
            (namesake.issue("namesake"), "UNKNOWN_CA"),
        ):
            with pytest.raises(ssl.SSLError, match=alert):
                attempt(address, web.trusting(pair, highest=version))
