"""From certificate files to what the ssl module needs of them."""

import ssl
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from exporter.errors import ConfigError
from exporter.watch import Watch


class NamedFile(NamedTuple):
    """A file, and what names it: the start of an error message."""

    where: str
    path: Path

    def refusal(self, reason: object, wanted: str) -> str:
        """Return the error message for this file."""
        return f"{self.where}: got {str(self.path)!r} ({reason}), want {wanted}"


@dataclass(frozen=True)
class TlsSettings:
    """What a web configuration file says of TLS."""

    certificate: NamedFile
    key: NamedFile
    client_ca: NamedFile | None
    client_auth: ssl.VerifyMode
    lowest: ssl.TLSVersion
    highest: ssl.TLSVersion
    is_order_ours: bool


class _EncryptedKeyError(Exception):
    """A key wants a passphrase, and there is nobody to ask."""


def make_context(settings: TlsSettings, watch: Watch) -> ssl.SSLContext:
    """Return a server's context; its files are noted in ``watch``.

    Raises:
        ConfigError: a file cannot be used.
    """
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = settings.lowest
    context.maximum_version = settings.highest
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    if not settings.is_order_ours:
        context.options &= ~ssl.OP_CIPHER_SERVER_PREFERENCE
    context.set_alpn_protocols(["http/1.1"])
    # A scraper keeps its connection; who resumes would not be looked at again.
    context.num_tickets = 0
    problems = [*_unreadable(settings, watch)] or [*_load(context, settings)]
    if problems:
        raise ConfigError(problems)
    return context


def valid_until(certificate: Path, key: Path) -> float:
    """Return the moment at which a server's certificate ends, in Unix time.

    Found out by shaking hands with ourselves: nothing else in the standard library
    tells it.

    Raises:
        ssl.SSLCertVerificationError: it does not hold now, or not for servers.
    """
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate, key)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.check_hostname = False
    theirs.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    theirs.load_verify_locations(certificate)
    to_us, to_them = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = theirs.wrap_bio(to_them, to_us)
    server = ours.wrap_bio(to_us, to_them, server_side=True)
    for end in (client, server, client):
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    seen = client.getpeercert() or {}
    return ssl.cert_time_to_seconds(str(seen["notAfter"]))


def _unreadable(settings: TlsSettings, watch: Watch) -> list[str]:
    problems: list[str] = []
    for file in filter(None, (settings.certificate, settings.key, settings.client_ca)):
        watch.add(file.path)
        try:
            file.path.read_bytes()
        except OSError as error:
            wanted = "a file that can be read"
            problems.append(file.refusal(error.strerror, wanted))
    return problems


def _load(context: ssl.SSLContext, settings: TlsSettings) -> list[str]:
    problems = [*_load_pair(context, settings)]
    if settings.client_ca:
        try:
            context.load_verify_locations(settings.client_ca.path)
        except OSError as error:  # SSLError is one; or the file has just gone
            wanted = "certificates of authorities, in PEM"
            problems.append(settings.client_ca.refusal(_reason(error), wanted))
        context.verify_mode = settings.client_auth
        # As in Go, what is in the file is trusted, also without its own issuer.
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return problems


def _load_pair(context: ssl.SSLContext, settings: TlsSettings) -> list[str]:
    certificate, key = settings.certificate, settings.key
    try:
        # Without a callback, OpenSSL would ask for a passphrase on the terminal.
        context.load_cert_chain(certificate.path, key.path, _refuse_passphrase)
    except _EncryptedKeyError:
        return [key.refusal("it is encrypted", "a key without a passphrase")]
    except OSError as error:
        if getattr(error, "reason", "") == "KEY_VALUES_MISMATCH":
            wanted = f"the key of {str(certificate.path)!r}"
            return [key.refusal("it belongs to another certificate", wanted)]
        if not _has_certificate(certificate.path):
            return [certificate.refusal(_reason(error), "a certificate in PEM")]
        return [key.refusal(_reason(error), "a usable pair of certificate and key")]
    return []


def _refuse_passphrase() -> str:
    raise _EncryptedKeyError


def _has_certificate(path: Path) -> bool:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    with suppress(OSError):
        context.load_verify_locations(path)
    return context.cert_store_stats()["x509"] > 0


def _reason(error: OSError) -> str:
    reason = getattr(error, "reason", None) or error.strerror or str(error)
    return str(reason).lower().replace("_", " ")
