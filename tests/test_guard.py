"""The web configuration at work: log-ins, headers, and files that change."""

import logging
import os
import ssl
import time
from pathlib import Path

import pytest

from exporter.guard import Guard
from exporter.watch import Watch
from tests.certificates import names_of_localhost
from tests.clients import Answer, Client, FakeSource, serving
from tests.webs import CLIENTS, TLS, Web, basic, hash_of, serial, users

GIVEN = "VerifyClientCertIfGiven"
HEADERS = """\
http_server_config:
  headers:
    X-Content-Type-Options: nosniff
    X-Frame-Options: sameorigin
    Content-Security-Policy: default-src 'self'
"""


def get(address: tuple[str, int], target: str = "/metrics", login: str = "") -> Answer:
    """Return the answer on a new connection."""
    with Client(address) as client:
        return client.get(target, authorization=login)


@pytest.mark.parametrize("target", ["/metrics", "/", "/-/healthy", "/-/ready", "/none"])
def test_every_path_needs_a_login(web: Web, target: str) -> None:
    guard = Guard(web.write(users(alice="a")))
    with serving(FakeSource(), guard=guard) as address, Client(address) as client:
        refused = client.get(target)
        assert refused.status == 401
        assert refused.headers["www-authenticate"] == 'Basic realm="HAK/GAL exporter"'
        assert refused.headers["server"] == "hakgal-exporter"
        assert refused.body == b"unauthorized\n"
        expected = 404 if target == "/none" else 200
        assert client.get(target, authorization=basic("alice", "a")).status == expected


def test_refused_request_costs_no_scrape(web: Web) -> None:
    source = FakeSource()
    with serving(source, guard=Guard(web.write(users(alice="a")))) as address:
        assert get(address).status == 401
        assert get(address, login=basic("alice", "b")).status == 401
    assert source.calls == []


@pytest.mark.parametrize("method", ["POST", "HEAD", "OPTIONS"])
def test_every_method_needs_a_login(web: Web, method: str) -> None:
    guard = Guard(web.write(users(alice="a")))
    with serving(FakeSource(), guard=guard) as address, Client(address) as client:
        assert client.request(method, "/metrics").status == 401


@pytest.mark.parametrize(
    "login",
    ["Basic \xff", "Basic YQ", "Basic /w==", "Bearer x", "Basic " + "A" * 30000],
)
def test_malformed_login_is_unauthorized(web: Web, login: str) -> None:
    guard = Guard(web.write(users(alice="a")))
    with serving(FakeSource(), guard=guard) as address:
        assert get(address, login=login).status == 401


def test_too_many_logins_at_once_are_put_off(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("exporter.authentication.WAITING_ADDRESSES", 0)
    guard = Guard(web.write(users(alice="a")))
    with serving(FakeSource(), guard=guard) as address:
        answer = get(address, login=basic("alice", "a"))
        assert (answer.status, answer.body) == (503, b"too many log-ins at once\n")


def test_logins_are_never_logged(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    source = FakeSource()
    source.error = RuntimeError("broken")
    with serving(source, guard=Guard(web.write(users(alice="a")))) as address:
        for password in ("a", "b"):
            login = basic("alice", password)
            get(address, login=login)
            get(address, target="/\xe4", login=login)
    logged = " ".join(str(vars(record)) for record in caplog.records)
    assert "request failed" in logged
    assert "alice" not in logged
    assert basic("alice", "a")[6:] not in logged


def test_headers_are_on_every_answer(web: Web) -> None:
    guard = Guard(web.write(HEADERS, users(alice="a")))
    login = basic("alice", "a")
    with serving(FakeSource(), guard=guard) as address:
        for target, status, sent in (
            *(("/metrics", 200, login), ("/", 200, login), ("/none", 404, login)),
            *(("/", 401, ""), ("/\xe4", 400, "")),
        ):
            answer = get(address, target, sent)
            assert answer.status == status
            assert answer.headers["x-frame-options"] == "sameorigin"
            assert answer.headers["content-security-policy"] == "default-src 'self'"
            assert answer.headers["x-content-type-options"] == "nosniff"


def test_header_replaces_our_own(web: Web) -> None:
    with serving(FakeSource(), guard=Guard(web.write(HEADERS))) as address:
        with Client(address) as client:
            client.send(b"GET / HTTP/1.1\r\nConnection: close\r\n\r\n")
            raw = b"".join(iter(lambda: client.socket.recv(9999), b""))
        head = raw.partition(b"\r\n\r\n")[0].lower()
        assert head.count(b"content-security-policy:") == 1
        assert head.count(b"x-content-type-options:") == 1


@pytest.mark.usefixtures("no_settling")
def test_removed_user_is_out_on_a_kept_connection(web: Web) -> None:
    guard = Guard(web.write(users(alice="a", bob="b")))
    login = basic("alice", "a")
    with serving(FakeSource(), guard=guard) as address, Client(address) as client:
        assert client.get(authorization=login).status == 200

        web.write(users(bob="b"))

        assert client.get(authorization=login).status == 401
        assert client.get(authorization=basic("bob", "b")).status == 200


@pytest.mark.usefixtures("no_settling")
def test_changed_password_counts_at_once(web: Web) -> None:
    guard = Guard(web.write(users(alice="old")))
    with serving(FakeSource(), guard=guard) as address, Client(address) as client:
        assert client.get(authorization=basic("alice", "old")).status == 200

        web.write(users(alice="new"))

        assert client.get(authorization=basic("alice", "old")).status == 401
        assert client.get(authorization=basic("alice", "new")).status == 200


@pytest.mark.usefixtures("no_settling")
def test_users_and_headers_may_come_later(web: Web) -> None:
    guard = Guard(web.write(""))
    with serving(FakeSource(), guard=guard) as address, Client(address) as client:
        assert client.get().status == 200

        web.write(users(alice="a"), HEADERS)

        answer = client.get()
        assert (answer.status, answer.headers["x-frame-options"]) == (401, "sameorigin")


@pytest.mark.usefixtures("no_settling")
@pytest.mark.parametrize(
    ("change", "reason"),
    [
        pytest.param("", "basic_auth_users: got no users any more", id="emptied"),
        pytest.param("users: {}", "got an unknown key", id="unknown key"),
        pytest.param("basic_auth_users: {", "not YAML", id="no YAML"),
        pytest.param(users(alice="a")[:-9], "want a bcrypt hash", id="cut"),
        pytest.param(None, "No such file or directory", id="removed"),
        pytest.param(
            TLS + users(alice="a"), "tls_server_config: got TLS switched on", id="TLS"
        ),
    ],
)
def test_what_cannot_be_used_changes_nothing(
    web: Web, change: str | None, reason: str, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    good = users(alice="a")
    guard = Guard(web.write(good))
    login = basic("alice", "a")
    with serving(FakeSource(), guard=guard) as address, Client(address) as client:
        caplog.clear()
        if change is None:
            web.file.unlink()
        else:
            web.write(change)

        for _ in range(3):
            assert client.get().status == 401
            assert client.get(authorization=login).status == 200

        [failing] = caplog.records
        assert (failing.levelname, failing.getMessage()) == ("WARNING", "failing")
        assert reason in vars(failing)["fields"]["error"]
        caplog.clear()
        web.write(good, "# mended\n")
        assert client.get(authorization=login).status == 200
        assert [record.getMessage() for record in caplog.records] == [
            "recovered",
            "web configuration read again",
        ]


@pytest.mark.usefixtures("no_settling")
def test_tls_is_not_switched_off(web: Web, caplog: pytest.LogCaptureFixture) -> None:
    guard = Guard(web.write(TLS))
    with serving(FakeSource(), guard=guard) as address:
        web.write("")
        with Client(address, web.trusting()) as client:
            assert client.get().status == 200
    assert "TLS switched off" in vars(caplog.records[-1])["fields"]["error"]


@pytest.mark.usefixtures("no_settling")
def test_certificates_of_clients_stay_required(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    guard = Guard(web.write(CLIENTS))
    with serving(FakeSource(), guard=guard) as address:
        for cut in (TLS, CLIENTS.replace("RequireAndVerifyClientCert", GIVEN)):
            web.write(cut)
            with (
                pytest.raises(OSError, match="ALERT"),
                Client(address, web.trusting()) as client,
            ):
                client.get()
    assert "no certificate any more" in vars(caplog.records[-1])["fields"]["error"]


@pytest.mark.usefixtures("no_settling")
def test_names_of_clients_stay_required(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    pair = web.clients.issue("prometheus")
    guard = Guard(web.write(CLIENTS, "  client_allowed_sans: [another]\n"))
    with serving(FakeSource(), guard=guard) as address:
        web.write(CLIENTS)
        with Client(address, web.trusting(pair)) as client:
            assert client.get().status == 403
    error = vars(caplog.records[-1])["fields"]["error"]
    assert "no client_allowed_sans any more" in error


@pytest.mark.usefixtures("no_settling")
def test_renewed_certificate_is_shown_to_new_connections(web: Web) -> None:
    guard = Guard(web.write(TLS))
    with (
        serving(FakeSource(), guard=guard) as address,
        Client(address, web.trusting()) as old,
    ):
        assert old.get().status == 200
        renew(web)
        with Client(address, web.trusting()) as new:
            assert new.get().status == old.get().status == 200
            assert serial(new) != serial(old)


def renew(web: Web, *, only_certificate: bool = False) -> bytes:
    """Write a new certificate and key, or keep the old key; return the new one."""
    old = web.key.read_bytes()
    web.servers.issue("server", *names_of_localhost())
    new = web.key.read_bytes()
    if only_certificate:
        web.key.write_bytes(old)
    return new


@pytest.mark.usefixtures("no_settling")
def test_certificate_without_its_new_key_is_not_used(
    web: Web, caplog: pytest.LogCaptureFixture
) -> None:
    guard = Guard(web.write(TLS))
    with serving(FakeSource(), guard=guard) as address:
        key = renew(web, only_certificate=True)
        for _ in range(2):
            with Client(address, web.trusting()) as client:
                before = serial(client)
                assert client.get().status == 200
        [failing] = [r for r in caplog.records if r.levelname == "WARNING"]
        assert "another certificate" in vars(failing)["fields"]["error"]

        web.key.write_bytes(key)

        with Client(address, web.trusting()) as client:
            assert client.get().status == 200
            assert serial(client) != before


@pytest.mark.usefixtures("no_settling")
def test_missing_file_is_noticed_when_it_comes(web: Web) -> None:
    guard = Guard(web.write(TLS))
    key, certificate = web.key.read_bytes(), web.certificate.read_bytes()
    with serving(FakeSource(), guard=guard) as address:
        web.write(TLS.replace("server.", "new."), users(alice="a"))
        with Client(address, web.trusting()) as client:
            assert client.get().status == 200  # the last good one
        web.key.with_name("new.key").write_bytes(key)
        web.certificate.with_name("new.crt").write_bytes(certificate)
        with Client(address, web.trusting()) as client:
            assert client.get().status == 401


@pytest.mark.usefixtures("no_settling")
def test_new_authority_lets_its_clients_in(web: Web) -> None:
    old, new = web.clients.issue("old"), web.servers.issue("new")
    guard = Guard(web.write(CLIENTS))
    with (
        serving(FakeSource(), guard=guard) as address,
        Client(address, web.trusting(old)) as before,
    ):
        assert before.get().status == 200

        web.clients.file.write_bytes(web.servers.file.read_bytes())

        with Client(address, web.trusting(new)) as client:
            assert client.get().status == 200
        with pytest.raises(ssl.SSLError), Client(address, web.trusting(old)) as late:
            late.get()
        assert before.get().status == 200  # its certificate was fine


@pytest.mark.usefixtures("no_settling")
def test_connection_without_certificate_is_out_once_one_is_required(web: Web) -> None:
    guard = Guard(web.write(TLS))
    with (
        serving(FakeSource(), guard=guard) as address,
        Client(address, web.trusting()) as client,
    ):
        assert client.get().status == 200

        web.write(CLIENTS)

        assert client.get().status == 403


def test_file_that_was_written_just_now_is_left_to_settle(web: Web) -> None:
    guard = Guard(web.write(users(alice="a")))
    login = basic("alice", "a")
    with serving(FakeSource(), guard=guard) as address, Client(address) as client:
        web.write("basic_auth_users:\n", f"  bob: {hash_of('b')}\n")
        assert client.get(authorization=login).status == 200

        age(web.file)

        assert client.get(authorization=login).status == 401


def age(path: Path) -> None:
    """Let a file look as if it had been written some seconds ago."""
    moment = time.time() - 2
    os.utime(path, (moment, moment))


def test_clock_that_was_set_back_does_not_keep_a_file_from_being_read(
    tmp_path: Path,
) -> None:
    file = tmp_path / "file"
    file.write_text("old")
    watch = Watch()
    watch.add(file)
    file.write_text("new one")
    assert not watch.has_news()

    os.utime(file, (time.time() + 999, time.time() + 999))

    assert watch.has_news()
