"""The web configuration file: TLS, headers and users, as the exporter-toolkit has it.

Whatever is accepted here means the same there. What we do not support is refused by
name; so is what would leave open what somebody meant to close.
"""

import re
import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import yaml

from exporter.errors import ConfigError
from exporter.tls import NamedFile, TlsSettings, make_context
from exporter.watch import Watch
from exporter.web_fields import Field
from exporter.yaml_file import read_mapping

_KEYS = {
    "": ("tls_server_config", "http_server_config", "basic_auth_users"),
    "tls_server_config": (
        *("cert_file", "key_file", "client_ca_file", "client_auth_type"),
        *("client_allowed_sans", "min_version", "max_version"),
        "prefer_server_cipher_suites",
    ),
    "http_server_config": ("http2", "headers"),
}
_UNSUPPORTED = {
    "rate_limit": "--web.max-requests instead",
    "tls_server_config.cert": "it in a file that cert_file names",
    "tls_server_config.key": "it in a file that key_file names",
    "tls_server_config.client_ca": "it in a file that client_ca_file names",
    "tls_server_config.cipher_suites": "OpenSSL's own choice, or min_version: TLS13",
    "tls_server_config.curve_preferences": "OpenSSL's own choice",
}
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_OLD_VERSIONS = dict.fromkeys(
    ("TLS10", "TLS11"), "TLS12 or TLS13: what is older is not safe"
)
_CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_UNVERIFIED = dict.fromkeys(
    ("RequestClientCert", "RequireAnyClientCert", "RequireClientCert"),
    "RequireAndVerifyClientCert: a certificate that is not verified proves nothing",
)
# What the toolkit permits, and the values where it limits them.
_HEADERS: dict[str, tuple[str, ...]] = {
    "Strict-Transport-Security": (),
    "X-Content-Type-Options": ("nosniff",),
    "X-Frame-Options": ("deny", "sameorigin"),
    "X-XSS-Protection": (),
    "Content-Security-Policy": (),
}
# A comparison at cost 17 takes longer than a scrape may, on most machines.
# The salt's last character has two bits to say, so that only four of 64 are right.
_HASH = re.compile(
    r"\$2[aby]\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{21}[.Oeu][./A-Za-z0-9]{31}"
)


@dataclass(frozen=True)
class Tls:
    """What TLS needs; clients must have one of the names, unless there are none."""

    context: ssl.SSLContext
    certificate_file: Path
    key_file: Path
    client_names: frozenset[str]

    @property
    def needs_certificate(self) -> bool:
        """Whether clients must have a certificate."""
        return self.context.verify_mode is ssl.CERT_REQUIRED


@dataclass(frozen=True)
class WebConfig:
    """What a web configuration file asks for, checked."""

    tls: Tls | None
    headers: Mapping[str, str]
    users: Mapping[bytes, bytes]  # name and bcrypt hash


def read(path: Path, watch: Watch) -> WebConfig:
    """Return what a file asks for; all files that are read are added to ``watch``.

    Raises:
        ConfigError: with one line for each mistake, all at once.
    """
    problems: list[str] = []
    watch.add(path)
    root = read_mapping(str(path), "web.config.file", problems)
    sections = _known(Field(str(path), 1, "", root, problems)) if root else {}
    config = WebConfig(
        tls=_tls(sections.get("tls_server_config"), path.parent, watch),
        headers=_headers(sections.get("http_server_config")),
        users=_users(sections.get("basic_auth_users")),
    )
    if problems:
        raise ConfigError(problems)
    return config


def _known(section: Field | None) -> dict[str, Field]:
    """Return the fields of a section that have a meaning there."""
    fields = section.entries() if section else {}
    known = _KEYS[section.name] if section else ()
    for name, field in fields.items():
        if field.name in _UNSUPPORTED:
            field.refuse(_UNSUPPORTED[field.name], got="what is not supported")
        elif name not in known:
            field.refuse(f"one of {', '.join(known)}", got="an unknown key")
    return {name: field for name, field in fields.items() if name in known}


def _tls(section: Field | None, folder: Path, watch: Watch) -> Tls | None:
    fields = _known(section)
    if section is None or not fields:
        return None
    before = len(section.problems)
    settings = _tls_settings(section, fields, folder)
    mode = settings.client_auth if settings else None
    names = _client_names(fields.get("client_allowed_sans"), mode)
    if settings is None or len(section.problems) > before:
        return None
    try:
        context = make_context(settings, watch)
    except ConfigError as error:
        section.problems.extend(error.problems)
        return None
    return Tls(context, settings.certificate.path, settings.key.path, names)


def _tls_settings(
    section: Field, fields: dict[str, Field], folder: Path
) -> TlsSettings | None:
    for name in ("cert_file", "key_file"):
        if name not in fields:
            section.refuse("both cert_file and key_file", got=f"no {name}")
    certificate, key, client_ca = (
        _file(fields.get(name), folder)
        for name in ("cert_file", "key_file", "client_ca_file")
    )
    client_auth = _client_auth(fields)
    lowest, highest = _versions(fields)
    order = fields.get("prefer_server_cipher_suites")
    is_order_ours = order.switch() if order else True
    if not (certificate and key and lowest and highest) or client_auth is None:
        return None
    return TlsSettings(
        *(certificate, key, client_ca, client_auth),
        *(lowest, highest, bool(is_order_ours)),
    )


def _file(field: Field | None, folder: Path) -> NamedFile | None:
    text = field.text("a path") if field else None
    return NamedFile(field.where, folder / text) if field and text else None


def _client_auth(fields: dict[str, Field]) -> ssl.VerifyMode | None:
    field, authorities = fields.get("client_auth_type"), fields.get("client_ca_file")
    mode = field.choice(_CLIENT_AUTH, _UNVERIFIED) if field else ssl.CERT_NONE
    if authorities and mode is ssl.CERT_NONE:
        authorities.refuse(
            "client_auth_type: RequireAndVerifyClientCert with it",
            got="authorities that nobody is measured by",
        )
    if field and mode and not authorities:
        field.refuse("client_ca_file with it", got="no client_ca_file to verify by")
    return mode


def _client_names(field: Field | None, mode: ssl.VerifyMode | None) -> frozenset[str]:
    if field is None:
        return frozenset()
    if mode in (ssl.CERT_NONE, ssl.CERT_OPTIONAL):
        wanted = "client_auth_type: RequireAndVerifyClientCert with it"
        field.refuse(wanted, got="names for certificates that need not be there")
    return frozenset(field.texts("a name"))


def _versions(
    fields: dict[str, Field],
) -> tuple[ssl.TLSVersion | None, ssl.TLSVersion | None]:
    low, high = fields.get("min_version"), fields.get("max_version")
    lowest = low.choice(_VERSIONS, _OLD_VERSIONS) if low else _VERSIONS["TLS12"]
    highest = high.choice(_VERSIONS, _OLD_VERSIONS) if high else _VERSIONS["TLS13"]
    if low and lowest and highest and lowest > highest:
        low.refuse("at most max_version")
    return lowest, highest


def _headers(section: Field | None) -> dict[str, str]:
    fields = _known(section)
    if http2 := fields.get("http2"):
        http2.switch()  # either way: clients take HTTP/1.1, which is what there is
    entries = fields["headers"].entries() if "headers" in fields else {}
    headers = {name: _header(name, field) for name, field in entries.items()}
    # That one has one value only, and every answer has it anyway.
    headers.pop("X-Content-Type-Options", None)
    return headers


def _header(name: str, field: Field) -> str:
    if name not in _HEADERS:
        field.refuse(f"one of {', '.join(_HEADERS)}", got="a header that is not ours")
        return ""
    wanted = " or ".join(_HEADERS[name]) or "one line of printable ASCII"
    text = field.text(wanted)
    if text is None:
        return ""
    values = _HEADERS[name]
    if text not in values if values else not re.fullmatch("[ -~]+", text):
        field.refuse(wanted)
    return text


def _users(section: Field | None) -> dict[bytes, bytes]:
    users: dict[bytes, bytes] = {}
    if section and isinstance(section.node, yaml.ScalarNode) and section.node.value:
        section.refuse("a mapping", got="something else")  # "user:password", perhaps
        return users
    for name, field in (section.entries() if section else {}).items():
        hashed = field.node.value
        # Never shown, not even when it is wrong: it may be the password itself.
        if not isinstance(hashed, str) or not _HASH.fullmatch(hashed):
            field.refuse("a bcrypt hash, cost 04 to 16: $2y$10$…", got="something else")
        elif ":" in name:
            field.refuse("a user without a colon, it ends the name", got="a colon")
        else:
            users[name.encode()] = hashed.encode()
    if users and section and not _has_bcrypt():
        wanted = "it: pip install 'hakgal-exporter[auth]'"
        section.refuse(wanted, got="users without the package bcrypt")
    return users


def _has_bcrypt() -> bool:
    try:
        import bcrypt  # noqa: F401
    except ImportError:
        return False
    return True
