"""The web configuration file: what is accepted, what is refused, and how."""

import os
import ssl
import sys
from functools import partial
from pathlib import Path

import pytest
import yaml

from exporter import web_config
from exporter.errors import ConfigError
from exporter.watch import Watch
from exporter.web_config import WebConfig, read
from tests.servers import Servers
from tests.users import open_folder as open_folder
from tests.users import other_user
from tests.webs import CLIENTS, TLS, Web, hash_of, users

HEADERS = """\
http_server_config:
  http2: true
  headers:
    Strict-Transport-Security: max-age=31536000; includeSubDomains
    X-Content-Type-Options: nosniff
    X-Frame-Options: deny
    X-XSS-Protection: "0"
    Content-Security-Policy: default-src 'self'
"""
SANS = "  client_allowed_sans: [prometheus.example, '::1']\n"
ACCEPTED = {
    "nothing": "",
    "a comment": "# nothing yet\n",
    "empty sections": "tls_server_config:\nhttp_server_config: {}\nbasic_auth_users:\n",
    "TLS": TLS,
    "TLS 1.3 only": TLS + "  min_version: TLS13\n",
    "TLS 1.2 only": TLS + "  min_version: TLS12\n  max_version: TLS12\n",
    "clients' order": TLS + "  prefer_server_cipher_suites: no\n",
    "no client certificates": TLS + "  client_auth_type: NoClientCert\n",
    "client certificates": CLIENTS,
    "some client certificates": CLIENTS.replace(
        "RequireAndVerifyClientCert", "VerifyClientCertIfGiven"
    ),
    "HTTP/1.1": "http_server_config: {http2: false}\n",
    "headers": HEADERS,
    "users": users(alice="a", bob="b"),
    "a user who is a number": f"basic_auth_users: {{12: {hash_of('a')}}}\n",
    "a user of htpasswd": users(alice="a").replace("$2b$", "$2y$"),
    "everything": CLIENTS + HEADERS + users(alice="a"),
}
each_accepted = pytest.mark.parametrize("text", ACCEPTED.values(), ids=[*ACCEPTED])


def load(path: Path) -> WebConfig:
    return read(path, Watch())


def problems(path: Path) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        load(path)
    return caught.value.problems


@each_accepted
def test_promtool_accepts_what_we_accept(text: str, web: Web, servers: Servers) -> None:
    load(web.write(text))

    code, output = servers.run("promtool", "check", "web-config", web.file)

    assert code == 0, output


def test_newest_promtool_knows_names_of_clients(web: Web, servers: Servers) -> None:
    load(web.write(CLIENTS, SANS))

    code, output = servers.run("promtool", "check", "web-config", web.file)

    is_old = servers.version == "2.42"
    assert ("client_allowed_sans not found" in output) is is_old
    assert code == (1 if is_old else 0), output


def test_nothing_means_that_everybody_is_let_in(web: Web) -> None:
    config = load(web.write(""))

    assert (config.tls, config.headers, config.users) == (None, {}, {})


def test_all_of_it_is_read(web: Web) -> None:
    config = load(web.write(CLIENTS, SANS, "  max_version: TLS12\n", HEADERS))

    assert config.tls
    assert config.tls.needs_certificate
    assert config.tls.client_names == {"prometheus.example", "::1"}
    assert config.tls.context.maximum_version is ssl.TLSVersion.TLSv1_2
    assert config.headers["X-Frame-Options"] == "deny"
    assert config.headers["X-XSS-Protection"] == "0"
    assert len(config.headers) == 4  # nosniff is sent anyway


def test_users_are_bytes_as_they_come_over_the_wire(web: Web) -> None:
    config = load(web.write(users(ärger="a")))

    assert config.users == {"ärger".encode(): hash_of("a").encode()}


def test_old_versions_and_renegotiation_are_off(web: Web) -> None:
    tls = load(web.write(TLS)).tls

    assert tls
    assert tls.context.minimum_version is ssl.TLSVersion.TLSv1_2
    assert tls.context.options & ssl.OP_NO_RENEGOTIATION
    assert tls.context.options & ssl.OP_NO_COMPRESSION
    assert tls.context.options & ssl.OP_CIPHER_SERVER_PREFERENCE
    assert not tls.needs_certificate


def test_order_of_ciphers_is_the_clients_on_request(web: Web) -> None:
    tls = load(web.write(TLS, "  prefer_server_cipher_suites: false\n")).tls

    assert tls
    assert not tls.context.options & ssl.OP_CIPHER_SERVER_PREFERENCE


def test_absolute_paths_work(web: Web) -> None:
    text = TLS.replace("server.", f"{web.file.parent}/server.")

    assert load(web.write(text)).tls


SECTIONS = "tls_server_config, http_server_config, basic_auth_users"
TLS_KEYS = (
    "cert_file, key_file, client_ca_file, client_auth_type, client_allowed_sans,"
    " min_version, max_version, prefer_server_cipher_suites"
)
HEADER_NAMES = (
    "Strict-Transport-Security, X-Content-Type-Options, X-Frame-Options,"
    " X-XSS-Protection, Content-Security-Policy"
)
VERIFIED = (
    "want RequireAndVerifyClientCert: a certificate that is not verified proves nothing"
)
VERSIONS = "want TLS12 or TLS13: what is older is not safe"
POLICY = "want client_auth_type: RequireAndVerifyClientCert with it"
HASH = "got something else, want a bcrypt hash, cost 04 to 16: $2y$10$…"
HEADER = "http_server_config: {headers: {%s}}"
# Text of the file, and what is said of it: line, name, message.
REFUSED = [
    ("tls: {}", f"1: tls: got an unknown key, want one of {SECTIONS}"),
    (
        "rate_limit: {interval: 1s}",
        "1: rate_limit: got what is not supported, want --web.max-requests instead",
    ),
    (
        "http_server_config: {h2: true}",
        "1: http_server_config.h2: got an unknown key, want one of http2, headers",
    ),
    (
        "http_server_config: {http2: 1}",
        "1: http_server_config.http2: got number '1', want true or false",
    ),
    *(
        (
            f"http_server_config: {{http2: !!bool {value}}}",
            f"1: http_server_config.http2: got {got}, want true or false",
        )
        for value, got in {"maybe": "boolean 'maybe'", "[]": "a list"}.items()
    ),
    ("basic_auth_users: [a]", "1: basic_auth_users: got a list, want a mapping"),
    (
        "basic_auth_users: admin:secret",
        "1: basic_auth_users: got something else, want a mapping",
    ),
    (
        "http_server_config: {}\nhttp_server_config: {}",
        "2: http_server_config: got again, want it in line 1 only",
    ),
    (
        "basic_auth_users: {~: a}",
        "1: basic_auth_users.nothing: got nothing, want text as a name",
    ),
    (
        'basic_auth_users: {"a\\nb": a}',
        "1: basic_auth_users.text 'a\\nb': got text 'a\\nb', want text as a name",
    ),
    (
        'basic_auth_users: {"\\ud800": a}',
        "1: basic_auth_users.text '\\ud800': got text '\\ud800', want text as a name",
    ),
    (
        'tls_server_config: {cert_file: "a\\0b", key_file: "\\ud800"}',
        "1: tls_server_config.cert_file: got text 'a\\x00b', want a path",
        "1: tls_server_config.key_file: got text '\\ud800', want a path",
    ),
    ("basic_auth_users: {a: secret}", f"1: basic_auth_users.a: {HASH}"),
    ("basic_auth_users: {a: }", f"1: basic_auth_users.a: {HASH}"),
    ("basic_auth_users: {a: [b]}", f"1: basic_auth_users.a: {HASH}"),
    (
        f"basic_auth_users: {{a: {hash_of('a')[:-1]}}}",
        f"1: basic_auth_users.a: {HASH}",
    ),
    (
        f"basic_auth_users: {{a: {hash_of('a').replace('$04$', '$17$')}}}",
        f"1: basic_auth_users.a: {HASH}",
    ),
    (
        f"basic_auth_users: {{'a:b': {hash_of('a')}}}",
        "1: basic_auth_users.a:b: got a colon, want a user without a colon, it ends"
        " the name",
    ),
    (
        users(a="a") + f"  a: {hash_of('a')}",
        "3: basic_auth_users.a: got again, want it in line 2 only",
    ),
    (
        HEADER % "Server: x",
        "1: http_server_config.headers.Server: got a header that is not ours, want one"
        f" of {HEADER_NAMES}",
    ),
    (
        HEADER % "X-Frame-Options: DENY",
        "1: http_server_config.headers.X-Frame-Options: got text 'DENY', want deny or"
        " sameorigin",
    ),
    (
        HEADER % "X-XSS-Protection: 0",
        "1: http_server_config.headers.X-XSS-Protection: got number '0', want one line"
        " of printable ASCII",
    ),
    (
        HEADER % 'Content-Security-Policy: "a\\r\\nSet-Cookie: b"',
        "1: http_server_config.headers.Content-Security-Policy: got text"
        " 'a\\r\\nSet-Cookie: b', want one line of printable ASCII",
    ),
    (
        "tls_server_config: {min_version: TLS13}",
        "1: tls_server_config: got no cert_file, want both cert_file and key_file",
        "1: tls_server_config: got no key_file, want both cert_file and key_file",
    ),
    (
        "tls_server_config: {cert_file: server.crt}",
        "1: tls_server_config: got no key_file, want both cert_file and key_file",
    ),
    (
        "tls_server_config: {cert_file: '', key_file: [a]}",
        "1: tls_server_config.cert_file: got text '', want a path",
        "1: tls_server_config.key_file: got a list, want a path",
    ),
    (
        TLS + "  cert: x",
        "4: tls_server_config.cert: got what is not supported, want it in a file that"
        " cert_file names",
    ),
    (
        TLS + "  key: x",
        "4: tls_server_config.key: got what is not supported, want it in a file that"
        " key_file names",
    ),
    (
        TLS + "  client_ca: x",
        "4: tls_server_config.client_ca: got what is not supported, want it in a file"
        " that client_ca_file names",
    ),
    (
        TLS + "  cipher_suites: [x]",
        "4: tls_server_config.cipher_suites: got what is not supported, want OpenSSL's"
        " own choice, or min_version: TLS13",
    ),
    (
        TLS + "  curve_preferences: [x]",
        "4: tls_server_config.curve_preferences: got what is not supported, want"
        " OpenSSL's own choice",
    ),
    (
        TLS + "  keyfile: x",
        f"4: tls_server_config.keyfile: got an unknown key, want one of {TLS_KEYS}",
    ),
    *(
        (
            f"{TLS}  client_auth_type: {name}",
            f"4: tls_server_config.client_auth_type: got text '{name}', {VERIFIED}",
        )
        for name in ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert")
    ),
    (
        TLS + "  client_auth_type: Maybe",
        "4: tls_server_config.client_auth_type: got text 'Maybe', want NoClientCert,"
        " VerifyClientCertIfGiven or RequireAndVerifyClientCert",
    ),
    (
        TLS + "  client_auth_type: VerifyClientCertIfGiven",
        "4: tls_server_config.client_auth_type: got no client_ca_file to verify by,"
        " want client_ca_file with it",
    ),
    (
        TLS + "  client_ca_file: clients.pem",
        "4: tls_server_config.client_ca_file: got authorities that nobody is measured"
        f" by, {POLICY}",
    ),
    (
        TLS + "  client_allowed_sans: [a]",
        "4: tls_server_config.client_allowed_sans: got names for certificates that need"
        f" not be there, {POLICY}",
    ),
    (
        CLIENTS + "  client_allowed_sans: []",
        "6: tls_server_config.client_allowed_sans: got an empty list, want a list,"
        " each a name",
    ),
    (
        CLIENTS + "  client_allowed_sans:\n  - a\n  - 5",
        "8: tls_server_config.client_allowed_sans: got number '5', want a name",
    ),
    *(
        (
            f"{TLS}  min_version: {version}",
            f"4: tls_server_config.min_version: got text '{version}', {VERSIONS}",
        )
        for version in ("TLS10", "TLS11")
    ),
    (
        TLS + "  max_version: SSL3",
        "4: tls_server_config.max_version: got text 'SSL3', want TLS12 or TLS13",
    ),
    (
        TLS + "  min_version: TLS13\n  max_version: TLS12",
        "4: tls_server_config.min_version: got text 'TLS13', want at most max_version",
    ),
    (
        TLS + "  prefer_server_cipher_suites: 'no'",
        "4: tls_server_config.prefer_server_cipher_suites: got text 'no', want true or"
        " false",
    ),
]


@pytest.mark.parametrize(
    "case",
    REFUSED,
    ids=[f"{number}: {c[1].split(': ')[1]}" for number, c in enumerate(REFUSED)],
)
def test_what_is_wrong_is_refused_with_its_place(
    case: tuple[str, ...], web: Web
) -> None:
    text, *messages = case
    path = web.write(text)
    assert problems(path) == [f"{path}:{message}" for message in messages]


def test_all_mistakes_are_reported_at_once(web: Web) -> None:
    text = TLS.replace(".crt", ".pem") + "rate_limit: {}\nbasic_auth_users: {a: b}\n"
    path = web.write(text)

    assert problems(path) == [
        f"{path}:4: rate_limit: got what is not supported, want --web.max-requests"
        " instead",
        f"{path}:2: tls_server_config.cert_file: got '{path.parent}/server.pem'"
        " (No such file or directory), want a file that can be read",
        f"{path}:5: basic_auth_users.a: {HASH}",
    ]


def test_hash_that_is_wrong_is_never_shown(web: Web) -> None:
    (problem,) = problems(web.write("basic_auth_users: {a: open sesame}"))

    assert "sesame" not in problem


def test_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.yml"
    assert problems(path) == [
        f"web.config.file: got '{path}' (No such file or directory), want a file that"
        " can be read"
    ]


def test_text_that_is_not_yaml_is_refused(web: Web) -> None:
    (problem,) = problems(web.write("tls_server_config: {"))

    assert problem.startswith(f"{web.file}:1: not YAML (")


def test_key_that_may_not_be_read_is_refused(open_folder: Path) -> None:
    web = Web(open_folder)
    web.write(TLS).chmod(0o644)
    web.certificate.chmod(0o644)
    web.key.chmod(0o600 if os.geteuid() == 0 else 0)

    with other_user():
        found = problems(web.file)

    assert found == [
        f"{web.file}:3: tls_server_config.key_file: got '{web.key}'"
        " (Permission denied), want a file that can be read"
    ]


def test_key_of_another_certificate_is_refused(web: Web) -> None:
    _, other = web.servers.issue("other")
    other.replace(web.key)

    assert problems(web.write(TLS)) == [
        f"{web.file}:3: tls_server_config.key_file: got '{web.key}' (it belongs to"
        f" another certificate), want the key of '{web.certificate}'"
    ]


def test_encrypted_key_is_refused_without_asking(web: Web) -> None:
    web.servers.issue("server", passphrase=b"secret")

    # pytest's stdin is no terminal, but OpenSSL would ask on /dev/tty.
    assert problems(web.write(TLS)) == [
        f"{web.file}:3: tls_server_config.key_file: got '{web.key}' (it is encrypted),"
        " want a key without a passphrase"
    ]


@pytest.mark.parametrize("content", [b"", b"no PEM", bytes(range(256))])
def test_files_that_hold_something_else_are_refused(content: bytes, web: Web) -> None:
    path = web.write(CLIENTS)
    place = f"{path}:%s: tls_server_config.%s: got '{path.parent}/%s' ("
    for line, key, file in (
        (2, "cert_file", "server.crt"),
        (3, "key_file", "server.key"),
        (4, "client_ca_file", "clients.pem"),
    ):
        good = (path.parent / file).read_bytes()
        (path.parent / file).write_bytes(content)

        (problem,) = problems(path)

        assert problem.startswith(place % (line, key, file)), problem
        (path.parent / file).write_bytes(good)


@pytest.mark.parametrize("name", ["server.crt", "server.key", "clients.pem"])
def test_file_that_goes_while_it_is_read_is_refused(
    name: str, web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = web.write(CLIENTS)
    gone = path.parent / name
    content = gone.read_bytes()

    def read_and_remove(file: Path) -> bytes:
        if file == gone:
            gone.unlink()
        return content

    monkeypatch.setattr(Path, "read_bytes", read_and_remove)
    monkeypatch.setattr(web_config, "read_mapping", partial(parse, path.read_text()))

    (problem,) = problems(path)

    assert "no such file or directory" in problem


def parse(text: str, *_: object) -> yaml.Node | None:
    return yaml.compose(text, Loader=yaml.SafeLoader)


def test_expired_certificate_is_no_error(web: Web) -> None:
    web.servers.issue("server", days=0)

    assert load(web.write(TLS)).tls


def test_users_without_bcrypt_are_refused(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "bcrypt", None)

    assert problems(web.write(users(alice="a"))) == [
        f"{web.file}:1: basic_auth_users: got users without the package bcrypt, want"
        " it: pip install 'hakgal-exporter[auth]'"
    ]
    assert load(web.write(TLS)).tls
