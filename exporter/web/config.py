"""The web configuration file: a subset of exporter-toolkit's, with its meaning."""

import re
import ssl
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from exporter.config import read_yaml
from exporter.errors import ConfigError

_TLS, _USERS = "tls_server_config.", "basic_auth_users."
_HEADERS = "http_server_config.headers."
_FILES = {
    "cert_file": "a certificate in PEM",
    "key_file": "the key of the certificate, in PEM, without a passphrase",
    "client_ca_file": "certificates of authorities, in PEM",
}
_CLIENT_AUTH = {
    "NoClientCert": ssl.CERT_NONE,
    "VerifyClientCertIfGiven": ssl.CERT_OPTIONAL,
    "RequireAndVerifyClientCert": ssl.CERT_REQUIRED,
}
_VERSIONS = {"TLS12": ssl.TLSVersion.TLSv1_2, "TLS13": ssl.TLSVersion.TLSv1_3}
_LINE = "[ -~]+"
# A regular expression for the value of each key. The toolkit allows the same headers.
_PATTERNS = {
    **{_TLS + key: _LINE for key in _FILES},
    _TLS + "client_auth_type": "|".join(_CLIENT_AUTH),
    _TLS + "min_version": "|".join(_VERSIONS),
    _HEADERS + "Strict-Transport-Security": _LINE,
    _HEADERS + "X-Content-Type-Options": "nosniff",
    _HEADERS + "X-Frame-Options": "deny|sameorigin",
    _HEADERS + "X-XSS-Protection": _LINE,
    _HEADERS + "Content-Security-Policy": _LINE,
}
# On most machines, a check at cost 17 takes longer than a scrape timeout.
_HASH = r"\$2[aby]\$(0[4-9]|1[0-6])\$[./A-Za-z0-9]{53}"

Stamps = dict[Path, object]
Texts = Mapping[str, str]


@dataclass(frozen=True)
class WebConfig:
    """The validated content of a web configuration file; users by bcrypt hash."""

    tls: ssl.SSLContext | None
    files: Mapping[str, Path]  # of certificates and keys, by setting
    headers: Texts
    users: Texts

    @property
    def protection(self) -> frozenset[str]:
        """Return the kinds of protection that are in force."""
        is_needed = self.tls and self.tls.verify_mode is ssl.CERT_REQUIRED
        parts = {"TLS": self.tls, "client certificates": is_needed, "users": self.users}
        return frozenset(name for name, is_there in parts.items() if is_there)


def stamp(path: Path) -> object:
    """Return a value that changes with the file, None if there is no file."""
    with suppress(OSError):
        status = path.stat()
        return status.st_mtime_ns, status.st_size, status.st_ino
    return None


def read(path: Path, stamps: Stamps) -> WebConfig:
    """Return the content of a file, or raise ConfigError; stamp what it reads."""
    stamps[path] = stamp(path)
    values = read_yaml(path)
    problems = [f"{path}: {text}" for one in values.items() if (text := _problem(*one))]
    texts = {".".join(keys): str(text) for keys, text in values.items() if text}
    tls, headers, users = (
        {name.removeprefix(s): t for name, t in texts.items() if name.startswith(s)}
        for s in (_TLS, _HEADERS, _USERS)
    )
    problems = problems or [f"{path}: {_TLS}{text}" for text in _missing(tls)]
    if users and not find_spec("bcrypt"):
        problems.append(f"{path}: got users, want pip install 'hakgal-exporter[auth]'")
    if problems:
        raise ConfigError(problems)
    files = {key: path.parent / tls[key] for key in _FILES if key in tls}
    stamps |= {file: stamp(file) for file in files.values()}
    context = _context(path, tls, files) if tls else None
    return WebConfig(context, files, headers, users)


def _problem(keys: tuple[str, ...], value: object) -> str | None:
    name, text = ".".join(keys), value if isinstance(value, str) else ""
    if name.startswith(_USERS) and len(keys) == 2:
        # Never show the value, even if it is wrong: it may be the password itself.
        wanted = "a bcrypt hash, cost 04 to 16: $2y$10$…"
        is_right = re.fullmatch(_HASH, text)
        return None if is_right else f"{name}: got something else, want {wanted}"
    is_dotted = any("." in key for key in keys)
    if not is_dotted and (pattern := _PATTERNS.get(name)):
        wanted = "a line of text" if pattern == _LINE else pattern.replace("|", " or ")
        is_right = re.fullmatch(pattern, text)
        return None if is_right else f"{name}: got {value!r}, want {wanted}"
    known = (*_PATTERNS, _USERS)
    if value in (None, {}) and any(one.startswith(f"{name}.") for one in known):
        return None
    return f"{name}: got an unknown key, want one of {', '.join(known)}NAME"


def _missing(tls: Texts) -> Iterator[str]:
    for key in ("cert_file", "key_file"):
        if tls and key not in tls:
            yield f"{key}: got nothing, want {_FILES[key]}"
    got = tls.get("client_auth_type", "NoClientCert")
    if (got == "NoClientCert") is ("client_ca_file" in tls):
        yield f"client_auth_type: got {got}, want client_ca_file exactly if it verifies"


def _context(path: Path, tls: Texts, files: Mapping[str, Path]) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = _VERSIONS[tls.get("min_version", "TLS12")]
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_TICKET
    context.set_alpn_protocols(["http/1.1"])
    context.num_tickets = 0  # a resumed session would not be verified again
    for key, file in files.items():
        try:
            file.read_bytes()  # the ssl module does not name a missing file
            if key == "key_file":
                # Without a password, OpenSSL would ask on the terminal.
                context.load_cert_chain(files["cert_file"], file, password="")
            if key == "client_ca_file":
                context.load_verify_locations(file)
        except OSError as error:  # includes SSLError
            got = f"{str(file)!r} ({error.strerror or error})"
            where = f"{path}: {_TLS}{key}"
            raise ConfigError([f"{where}: got {got}, want {_FILES[key]}"]) from error
    context.verify_mode = _CLIENT_AUTH[tls.get("client_auth_type", "NoClientCert")]
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN  # as in Go
    return context
