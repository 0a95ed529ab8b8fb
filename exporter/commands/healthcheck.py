"""The command ``healthcheck``, which works with TLS and users too."""

import argparse
import http.client
import os
import ssl
import sys
from contextlib import closing, suppress
from pathlib import Path

from exporter.config import add_flags, load
from exporter.config.settings import parse_address

HEALTH_SECONDS = 5.0
_HERE = {"": "127.0.0.1", "0.0.0.0": "127.0.0.1", "::": "::1"}


def healthcheck(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Check whether the exporter that runs with these settings is healthy."""
    add_flags(parser)
    config = load(parser.parse_args(words), os.environ)
    problem = ask_health(config.listen_addresses[0], config.web_config_file)
    print(problem or "healthy", file=sys.stderr if problem else sys.stdout)
    return 1 if problem else 0


def ask_health(address: str, web_config_file: Path | None) -> str | None:
    """Return why the exporter on this address is not healthy, None if it is.

    No password is sent, so 401 is healthy too. Certificates are not verified.
    """
    try:
        answer = _ask(*parse_address(address), web_config_file is not None)
    except (OSError, http.client.HTTPException) as error:
        # It speaks TLS and wants a client certificate: it is healthy.
        if isinstance(error, ssl.SSLError) and "_ALERT_" in (error.reason or ""):
            return None
        return f"not healthy: nothing answers on {address} ({error})"
    if answer.headers["Server"] == "hakgal-exporter" and answer.status in (200, 401):
        return None
    return f"not healthy: {address} answers {answer.status} {answer.reason}"


def _ask(host: str, port: int, may_be_encrypted: bool) -> http.client.HTTPResponse:
    """Ask in plain HTTP, then in TLS if that is possible and we were cut off."""
    place = _HERE.get(host, host), port
    try:
        return _get(http.client.HTTPConnection(*place, timeout=HEALTH_SECONDS))
    except (ConnectionError, http.client.BadStatusLine):
        if not may_be_encrypted:
            raise
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    tls.check_hostname, tls.verify_mode = False, ssl.CERT_NONE
    timeout = HEALTH_SECONDS
    return _get(http.client.HTTPSConnection(*place, timeout=timeout, context=tls))


def _get(connection: http.client.HTTPConnection) -> http.client.HTTPResponse:
    with closing(connection):
        connection.connect()
        with suppress(OSError):  # already closed: the response says why
            connection.request("GET", "/-/healthy")
        return connection.getresponse()
