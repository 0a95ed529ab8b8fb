"""Ask a running exporter whether it is healthy, however it is protected."""

import http.client
import ssl
from contextlib import closing
from typing import NamedTuple

from exporter.addresses import parse_address

HEALTH_SECONDS = 5.0

_SERVER = "hakgal-exporter"
_WANTS_TLS = b"client sent an HTTP request to an HTTPS server"
# What TLS 1.3 and 1.2 say to whom has no certificate.
_WANTS_CERTIFICATE = (
    "TLSV13_ALERT_CERTIFICATE_REQUIRED",
    "SSLV3_ALERT_HANDSHAKE_FAILURE",
)


class _Answer(NamedTuple):
    status: int
    reason: str
    is_ours: bool
    body: bytes


def ask_health(address: str) -> str | None:
    """Return why the exporter that listens there is not healthy, None if it is.

    It is asked in plain HTTP first, because one that speaks TLS says so. Nothing
    secret is sent, so certificates are not verified; there is no password to send,
    so being asked for one is healthy.
    """
    host, port = parse_address(address)
    host = "127.0.0.1" if host in ("", "0.0.0.0") else host
    host = "::1" if host == "::" else host
    try:
        answer = _ask(http.client.HTTPConnection(host, port, timeout=HEALTH_SECONDS))
        if answer.is_ours and _WANTS_TLS in answer.body:
            answer = _ask(_encrypted(host, port))
    except (OSError, http.client.HTTPException) as error:
        # The exporter has just answered that it speaks TLS; it is as well as it can
        # tell somebody without a certificate.
        if isinstance(error, ssl.SSLError) and error.reason in _WANTS_CERTIFICATE:
            return None
        return f"not healthy: nothing answers on {address} ({error})"
    if answer.is_ours and answer.status in (200, 401):
        return None
    return f"not healthy: {address} answers {answer.status} {answer.reason}"


def _encrypted(host: str, port: int) -> http.client.HTTPSConnection:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return http.client.HTTPSConnection(
        host, port, timeout=HEALTH_SECONDS, context=context
    )


def _ask(connection: http.client.HTTPConnection) -> _Answer:
    with closing(connection):
        connection.request("GET", "/-/healthy")
        answer = connection.getresponse()
        is_ours = answer.headers["Server"] == _SERVER
        return _Answer(answer.status, answer.reason, is_ours, answer.read(1000))
