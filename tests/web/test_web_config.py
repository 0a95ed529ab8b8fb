"""The web configuration file: what is accepted, what is refused, and how."""

import ssl
from pathlib import Path

import pytest

from exporter.errors import ConfigError
from exporter.web import config as web_config
from exporter.web.config import WebConfig, read
from tests.servers import Servers
from tests.webs import CLIENTS, HEADERS, SOME_CLIENTS, TLS, Web, hash_of, users

ACCEPTED = {
    "empty": "tls_server_config:\nhttp_server_config: {}\nbasic_auth_users:\n",
    "TLS 1.3 only": TLS + "  min_version: TLS13\n  client_auth_type: NoClientCert\n",
    "some client certificates": SOME_CLIENTS,
    "a number": "http_server_config: {headers: {X-XSS-Protection: 0}}",
    "odd users": f"basic_auth_users: {{ä: {hash_of('a')}, 12: {hash_of('a')}}}\n",
    "a user of htpasswd": users(alice="a").replace("$2b$", "$2y$"),
    "everything": CLIENTS + HEADERS + users(alice="a"),
}
UNKNOWN = "got an unknown key, want one of tls_server_config.cert_file, "
HASH = "got something else, want a bcrypt hash, cost 04 to 16: $2y$10$…"
LINE = "want a line of text"
IN_TLS, IN_HEADERS = "tls_server_config.", "http_server_config.headers."
# Text of the file, and how each thing that is said of it begins, behind its path.
REFUSED: dict[str, tuple[str, ...]] = {
    "unknown": (
        f"tls: {{}}\nhttp_server_config: {{http2: true}}\n{TLS}  cipher_suites: x",
        f" tls: {UNKNOWN}",
        f" http_server_config.http2: {UNKNOWN}",
        f" {IN_TLS}cipher_suites: {UNKNOWN}",
    ),
    "values": (
        f'{IN_TLS[:-1]}: {{cert_file: "a\\0b", key_file: [a], min_version: SSL3,'
        " client_auth_type: RequestClientCert}",
        f" {IN_TLS}cert_file: got 'a\\x00b', {LINE}",
        f" {IN_TLS}key_file: got ['a'], {LINE}",
        f" {IN_TLS}min_version: got 'SSL3', want TLS12 or TLS13",
        f" {IN_TLS}client_auth_type: got 'RequestClientCert', want NoClientCert or",
    ),
    "headers": (
        'http_server_config: {headers: {Content-Security-Policy: "a\\r\\nSet-Cookie",'
        " X-Frame-Options: DENY, Server: x}}",
        f" {IN_HEADERS}Content-Security-Policy: got 'a\\r\\nSet-Cookie', {LINE}",
        f" {IN_HEADERS}X-Frame-Options: got 'DENY', want deny or sameorigin",
        f" {IN_HEADERS}Server: {UNKNOWN}",
    ),
    "passwords": (
        f"basic_auth_users: {{a: open sesame, b: [c], d: 5, e: {hash_of('a')[:-1]},"
        f" f: {hash_of('a').replace('$04$', '$17$')}}}",
        *(f" basic_auth_users.{name}: {HASH}" for name in "abdef"),
    ),
    "no users": ("basic_auth_users: admin:sesame", f" basic_auth_users: {UNKNOWN}"),
    "twice": (users(a="a") + f"  a: {hash_of('a')}", " found a duplicate key"),
    "no key": (
        "tls_server_config: {min_version: TLS13}",
        f" {IN_TLS}cert_file: got nothing, want a certificate in PEM",
        f" {IN_TLS}key_file: got nothing, want the key of the certificate, in PEM",
    ),
    "no authority": (
        TLS + "  client_auth_type: VerifyClientCertIfGiven",
        f" {IN_TLS}client_auth_type: got VerifyClientCertIfGiven, want client_ca_file",
    ),
    "authority alone": (
        TLS + "  client_ca_file: clients.pem",
        f" {IN_TLS}client_auth_type: got NoClientCert, want client_ca_file exactly",
    ),
}


def load(path: Path) -> WebConfig:
    return read(path, {})


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return caught.value.problems


@pytest.mark.parametrize("text", ACCEPTED.values(), ids=[*ACCEPTED])
def test_promtool_accepts_what_we_accept(text: str, web: Web, servers: Servers) -> None:
    load(web.write(text))
    code, output = servers.run("promtool", "check", "web-config", web.file)
    assert code == 0, output


def test_all_of_it_is_read(web: Web) -> None:
    config = load(web.write(CLIENTS, HEADERS, users(ärger="a")))
    assert config.tls
    assert config.tls.verify_mode is ssl.CERT_REQUIRED
    assert config.tls.minimum_version is ssl.TLSVersion.TLSv1_2
    assert config.tls.options & ssl.OP_NO_RENEGOTIATION
    assert len(config.headers) == 5
    assert config.headers["X-XSS-Protection"] == "0"
    assert config.users == {"ärger": hash_of("a")}
    empty = load(web.write(""))
    assert (empty.tls, empty.headers, empty.users) == (None, {}, {})


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_is_wrong_is_refused_with_its_place(mistake: str, web: Web) -> None:
    text, *messages = REFUSED[mistake]
    path = web.write(text)
    for problem, message in zip(problems(path), messages, strict=True):
        assert problem.startswith(f"{path}:{message}")
        assert "sesame" not in problem  # it may be the password itself


@pytest.mark.parametrize(
    ("key", "name", "passphrase"),
    [
        ("cert_file", "server.crt", None),
        ("key_file", "server.key", None),
        ("client_ca_file", "clients.pem", None),
        ("key_file", "server.key", b"secret"),
    ],
    ids=["certificate", "key", "authority", "encrypted"],
)
def test_files_that_hold_something_else_are_refused_without_asking(
    key: str, name: str, passphrase: bytes | None, web: Web
) -> None:
    path, file = web.write(CLIENTS), web.file.with_name(name)
    if passphrase:
        # pytest's stdin is no terminal, but OpenSSL would ask on /dev/tty.
        web.servers.issue("server", passphrase=passphrase)
    else:
        file.write_bytes(web.key.read_bytes()[::-1])
    (problem,) = problems(path)
    where = "key_file" if key == "cert_file" else key
    assert problem.startswith(f"{path}: {IN_TLS}{where}: got ")
    file.unlink()
    (problem,) = problems(path)
    assert f"{IN_TLS}{key}: got '{file}' (No such file or directory)" in problem


def test_users_without_bcrypt_are_refused(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_config, "find_spec", lambda _: None)
    (problem,) = problems(web.write(users(alice="a")))
    assert problem.endswith("want pip install 'hakgal-exporter[auth]'")
    assert load(web.write(TLS)).tls
