"""The web configuration file: what is accepted, what is refused, and how."""

import os
import ssl
from pathlib import Path

import pytest

from exporter.errors import ConfigError
from exporter.web import config as web_config
from exporter.web.config import WebConfig, read
from tests.servers import Servers
from tests.users import open_folder as open_folder
from tests.users import other_user
from tests.webs import CLIENTS, HEADERS, SOME_CLIENTS, TLS, Web, hash_of, users

ACCEPTED = {
    "nothing": "",
    "a comment": "# nothing yet\n",
    "empty sections": "tls_server_config:\nhttp_server_config: {}\nbasic_auth_users:\n",
    "TLS": TLS,
    "TLS 1.3 only": TLS + "  min_version: TLS13\n",
    "no client certificates": TLS + "  client_auth_type: NoClientCert\n",
    "client certificates": CLIENTS,
    "some client certificates": SOME_CLIENTS,
    "headers": HEADERS,
    "a number": "http_server_config: {headers: {X-XSS-Protection: 0}}",
    "users": users(alice="a", ärger="b"),
    "a user who is a number": f"basic_auth_users: {{12: {hash_of('a')}}}\n",
    "a user of htpasswd": users(alice="a").replace("$2b$", "$2y$"),
    "everything": CLIENTS + HEADERS + users(alice="a"),
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


# What the toolkit refuses, or takes for something else.
@pytest.mark.parametrize(
    "text",
    [
        pytest.param("tls_server_config: []", id="list as a section"),
        pytest.param(f"basic_auth_users.a: {hash_of('a')}", id="dotted key"),
        pytest.param(f"basic_auth_users: {{a: {{b: {hash_of('a')}}}}}", id="section"),
        pytest.param(f"basic_auth_users: {{[a]: {hash_of('a')}}}", id="list as a name"),
    ],
)
def test_shape_is_the_toolkits(text: str, web: Web) -> None:
    assert problems(web.write(text))


def test_all_of_it_is_read(web: Web) -> None:
    config = load(web.write(CLIENTS, HEADERS, users(ärger="a")))

    assert config.tls
    assert config.tls.verify_mode is ssl.CERT_REQUIRED
    assert config.tls.minimum_version is ssl.TLSVersion.TLSv1_2
    assert config.tls.options & ssl.OP_NO_RENEGOTIATION
    assert len(config.headers) == 5
    assert config.headers["X-XSS-Protection"] == "0"
    assert config.users == {"ärger": hash_of("a")}


def test_nothing_means_that_everybody_is_let_in(web: Web) -> None:
    config = load(web.write(""))

    assert (config.tls, config.headers, config.users) == (None, {}, {})


def test_absolute_paths_work_and_an_expired_certificate_is_no_error(web: Web) -> None:
    web.servers.issue("server", days=0)
    path = web.write(TLS.replace("server.", f"{web.file.parent}/server."))

    assert load(path).files == {"cert_file": web.certificate, "key_file": web.key}


UNKNOWN = "got an unknown key, want one of tls_server_config.cert_file, "
HASH = "got something else, want a bcrypt hash, cost 04 to 16: $2y$10$…"
LINE = "want a line of text"
IN_TLS = "tls_server_config."
HEADER = "http_server_config.headers."
# Text of the file, and how what is said of it begins: line, name, message.
REFUSED = [
    ("tls: {}", f"tls: {UNKNOWN}"),
    ("rate_limit: {interval: 1s}", f"rate_limit.interval: {UNKNOWN}"),
    ("http_server_config: {http2: true}", f"http_server_config.http2: {UNKNOWN}"),
    ("basic_auth_users: admin:secret", f"basic_auth_users: {UNKNOWN}"),
    *(
        (f"{TLS}  {key}: x", f"{IN_TLS}{key}: {UNKNOWN}")
        for key in (
            *("cert", "key", "client_ca", "keyfile", "cipher_suites", "max_version"),
            *("curve_preferences", "client_allowed_sans"),
            "prefer_server_cipher_suites",
        )
    ),
    (
        "tls_server_config: {cert_file: a,\n  cert_file: b}",
        "found 'cert_file' twice, want a YAML file",
    ),
    (
        'tls_server_config: {cert_file: "a\\0b", key_file: [a]}',
        f"{IN_TLS}cert_file: got 'a\\x00b', {LINE}",
        f"{IN_TLS}key_file: got ['a'], {LINE}",
    ),
    (TLS + "  client_ca_file:", f"{IN_TLS}client_ca_file: got None, {LINE}"),
    *(
        (
            f"{TLS}  min_version: {version}",
            f"{IN_TLS}min_version: got '{version}', want TLS12 or TLS13",
        )
        for version in ("TLS10", "TLS11", "SSL3")
    ),
    *(
        (
            f"{TLS}  client_auth_type: {name}",
            f"{IN_TLS}client_auth_type: got '{name}', want NoClientCert or"
            " VerifyClientCertIfGiven or RequireAndVerifyClientCert",
        )
        for name in ("RequestClientCert", "RequireAnyClientCert")
    ),
    *(
        (f"basic_auth_users: {{a: {text}}}", f"basic_auth_users.a: {HASH}")
        for text in (
            "open sesame",
            "",
            "[b]",
            "{}",
            "5",
            hash_of("a")[:-1],
            hash_of("a").replace("$04$", "$17$"),
        )
    ),
    (
        users(a="a") + f"  a: {hash_of('a')}",
        "found 'a' twice, want a YAML file",
    ),
    ("http_server_config: {headers: {Server: x}}", f"{HEADER}Server: {UNKNOWN}"),
    (
        "http_server_config: {headers: {X-Frame-Options: DENY}}",
        f"{HEADER}X-Frame-Options: got 'DENY', want deny or sameorigin",
    ),
    (
        'http_server_config: {headers: {Content-Security-Policy: "a\\r\\nSet-Cookie"}}',
        f"{HEADER}Content-Security-Policy: got 'a\\r\\nSet-Cookie', {LINE}",
    ),
    ("tls_server_config: {", "expected the node content"),
    ("[a]", "no mapping, want a YAML file"),
    (
        "tls_server_config: {min_version: TLS13}",
        f" {IN_TLS}cert_file: got nothing, want a certificate in PEM",
        f" {IN_TLS}key_file: got nothing, want the key of the certificate, in PEM",
    ),
    (
        TLS + "  client_auth_type: VerifyClientCertIfGiven",
        f" {IN_TLS}client_auth_type: got VerifyClientCertIfGiven, want client_ca_file",
    ),
    (
        TLS + "  client_ca_file: clients.pem",
        f" {IN_TLS}client_auth_type: got NoClientCert, want client_ca_file with one",
    ),
    (
        f"# all at once\nrate: 1\nbasic_auth_users: {{a: b}}\n{TLS}  min_version: x",
        f"rate: {UNKNOWN}",
        f"basic_auth_users.a: {HASH}",
        f"{IN_TLS}min_version: got 'x', want TLS12 or TLS13",
    ),
]


@pytest.mark.parametrize(
    "case",
    REFUSED,
    ids=[f"{number}{case[1][:50]}" for number, case in enumerate(REFUSED)],
)
def test_what_is_wrong_is_refused_with_its_place(
    case: tuple[str, ...], web: Web
) -> None:
    text, *messages = case
    path = web.write(text)
    found = problems(path)
    assert len(found) == len(messages)
    for problem, message in zip(found, messages, strict=True):
        assert problem.startswith(f"{path}:")
        assert message in problem
        assert "sesame" not in problem  # it may be the password itself


def test_missing_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "none.yml"
    assert problems(path) == [
        f"{path}: No such file or directory, want a YAML file that can be read"
    ]


@pytest.mark.parametrize(
    ("key", "name", "content", "reason"),
    [
        ("cert_file", "server.crt", None, "No such file or directory"),
        ("key_file", "server.key", None, "No such file or directory"),
        ("client_ca_file", "clients.pem", None, "No such file or directory"),
        ("key_file", "server.key", b"no PEM", ""),
        ("client_ca_file", "clients.pem", b"no PEM", ""),
        ("client_ca_file", "clients.pem", bytes(range(256)), ""),
    ],
)
def test_files_that_hold_something_else_are_refused(
    key: str, name: str, content: bytes | None, reason: str, web: Web
) -> None:
    path, file = web.write(CLIENTS), web.file.with_name(name)
    file.unlink() if content is None else file.write_bytes(content)
    (problem,) = problems(path)
    assert problem.startswith(
        f"{path}: tls_server_config.{key}: got '{file}' ({reason}"
    )


@pytest.mark.parametrize("passphrase", [None, b"secret"], ids=["another", "encrypted"])
def test_key_that_does_not_fit_is_refused_without_asking(
    passphrase: bytes | None, web: Web
) -> None:
    certificate = web.certificate.read_bytes()
    web.servers.issue("server", passphrase=passphrase)
    if passphrase is None:
        web.certificate.write_bytes(certificate)
    # pytest's stdin is no terminal, but OpenSSL would ask on /dev/tty.
    (problem,) = problems(web.write(TLS))
    assert problem.startswith(
        f"{web.file}: tls_server_config.key_file: got '{web.key}' ("
    )
    assert problem.endswith(", in PEM, without a passphrase")


def test_key_that_may_not_be_read_is_refused(open_folder: Path) -> None:
    web = Web(open_folder)
    web.write(TLS).chmod(0o644)
    web.certificate.chmod(0o644)
    web.key.chmod(0o600 if os.geteuid() == 0 else 0)

    with other_user():
        (problem,) = problems(web.file)

    assert f"key_file: got '{web.key}' (Permission denied), want the key" in problem


def test_users_without_bcrypt_are_refused(
    web: Web, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(web_config, "find_spec", lambda _: None)

    (problem,) = problems(web.write(users(alice="a")))

    assert problem.endswith("want pip install 'hakgal-exporter[auth]'")
    assert load(web.write(TLS)).tls
