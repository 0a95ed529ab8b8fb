"""Ask a running exporter whether it is healthy, however it is protected."""

import http.client
import ssl
from contextlib import closing, suppress
from pathlib import Path
from typing import NamedTuple

from exporter.settings import parse_address

HEALTH_SECONDS = 5.0

_SERVER = "hakgal-exporter"
# What TLS 1.3 and 1.2 say to whom has no certificate.
_WANTS_CERTIFICATE = (
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "SSLV3_ALERT_HANDSHAKE_FAILURE",
)


class _Answer(NamedTuple):
    status: int
    reason: str
    is_ours: bool


def ask_health(address: str, web_config_file: Path | None) -> str | None:
    """Return why the exporter that listens there is not healthy, None if it is.

    Nothing secret is sent, so certificates are not verified; there is no password to
    send, so being asked for one is healthy.
    """
    host, port = parse_address(address)
    host = "127.0.0.1" if host in ("", "0.0.0.0") else host
    host = "::1" if host == "::" else host
    try:
        answer = _ask(host, port, web_config_file is not None)
    except (OSError, http.client.HTTPException) as error:
        # It speaks TLS; it is as well as it can tell somebody without a certificate.
        if isinstance(error, ssl.SSLError) and error.reason in _WANTS_CERTIFICATE:
            return None
        return f"not healthy: nothing answers on {address} ({error})"
    if answer.is_ours and answer.status in (200, 401):
        return None
    return f"not healthy: {address} answers {answer.status} {answer.reason}"


def _ask(host: str, port: int, may_be_encrypted: bool) -> _Answer:
    """Ask in plain HTTP, and in TLS where that may be and we were cut off."""
    plain = http.client.HTTPConnection(host, port, timeout=HEALTH_SECONDS)
    try:
        return _get(plain)
    except (ConnectionError, http.client.BadStatusLine):
        if not may_be_encrypted:
            raise
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    encrypted = http.client.HTTPSConnection(
        host, port, timeout=HEALTH_SECONDS, context=context
    )
    return _get(encrypted)


def _get(connection: http.client.HTTPConnection) -> _Answer:
    with closing(connection):
        connection.connect()
        with suppress(OSError):  # closed already: why, is what there is to read
            connection.request("GET", "/-/healthy")
        answer = connection.getresponse()
        is_ours = answer.headers["Server"] == _SERVER
        return _Answer(answer.status, answer.reason, is_ours)
