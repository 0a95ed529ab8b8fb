"""Who is let in: applies a web configuration file to connections and requests.

The file, and the certificates that it names, are looked at whenever they are needed.
What cannot be used is not used: the last good state stays, and with it the protection.
"""

import logging
import ssl
import threading
from http import HTTPStatus
from pathlib import Path
from time import monotonic

from exporter.authentication import Authenticator, Verdict
from exporter.errors import ConfigError
from exporter.http_connection import Connection, Request, Response
from exporter.logs import Failures
from exporter.pages import plain_text
from exporter.tls_stream import TlsStream
from exporter.watch import Watch
from exporter.web_config import Tls, WebConfig, read

CHALLENGE = 'Basic realm="HAK/GAL exporter"'

logger = logging.getLogger(__name__)


class Guard:
    """Lets in whom a web configuration file allows in."""

    def __init__(self, path: Path) -> None:
        """Read the file.

        Raises:
            ConfigError: with one line for each mistake.
        """
        self._path = path
        self._lock = threading.Lock()  # guards the next two
        self._watch = Watch()
        self._config = read(path, self._watch)
        self._failures = Failures()
        self._authenticator = Authenticator()

    @property
    def is_tls(self) -> bool:
        """Whether connections are encrypted; never changes."""
        return self._config.tls is not None

    def greet(self, connection: Connection, seconds: float) -> None:
        """Prepare a new connection; with TLS, shake hands within a time.

        Raises:
            RequestError: the client does not speak TLS; answer it, then close.
            OSError: the client is slow, gone or not acceptable.
        """
        config = self._current(connection)
        if config.tls is None:
            return
        stream = TlsStream(connection.plain, config.tls.context)
        try:
            stream.shake_hands(monotonic() + seconds)
        except ssl.SSLError:
            connection.linger()
            raise
        connection.client_names = stream.client_names()
        connection.use(stream)

    def refusal(self, connection: Connection, request: Request) -> Response | None:
        """Return why a request is not answered, None if it may be."""
        config = self._current(connection)
        if config.tls and not _is_welcome(config.tls, connection.client_names):
            message = "client certificate has none of the allowed names"
            return plain_text(HTTPStatus.FORBIDDEN, message)
        if not config.users:
            return None
        login = request.headers.get("authorization", "")
        judge = self._authenticator.judge
        match judge(config.users, login, connection.client_address):
            case Verdict.RIGHT:
                return None
            case Verdict.WRONG:
                refusal = plain_text(HTTPStatus.UNAUTHORIZED, "unauthorized")
                headers = refusal.headers | {"WWW-Authenticate": CHALLENGE}
                return refusal._replace(headers=headers)
        return plain_text(HTTPStatus.SERVICE_UNAVAILABLE, "too many log-ins at once")

    def _current(self, connection: Connection) -> WebConfig:
        """Return what holds now, for this connection's answers too."""
        with self._lock:
            if self._watch.has_news():
                self._read_again()
            connection.headers = self._config.headers
            return self._config

    def _read_again(self) -> None:
        self._watch = Watch()
        try:
            config = read(self._path, self._watch)
            _refuse_to_open(self._path, self._config, config)
        except ConfigError as error:
            self._failures.note("web.config.file", error)
            return
        self._config = config
        self._failures.note("web.config.file", None)
        logger.info("web configuration read again")


def _is_welcome(tls: Tls, names: frozenset[str] | None) -> bool:
    """Tell whether a connection would come about today.

    It may be older than the rule that clients have to have a certificate.
    """
    if tls.client_names:
        return names is not None and not names.isdisjoint(tls.client_names)
    return names is not None or not tls.needs_certificate


def _refuse_to_open(path: Path, old: WebConfig, new: WebConfig) -> None:
    """Refuse what would open the server: a file may have been emptied by accident.

    Nor can TLS be switched on: plain connections would go on beside it.
    """
    problems = []
    if bool(old.tls) is not bool(new.tls):
        got = "TLS switched on" if new.tls else "TLS switched off"
        problems.append(f"{path}: tls_server_config: got {got}, want a restart with it")
    if old.tls and new.tls:
        section = f"{path}: tls_server_config"
        if old.tls.needs_certificate and not new.tls.needs_certificate:
            got = "clients that need no certificate any more"
            problems.append(f"{section}: got {got}, want a restart with it")
        elif old.tls.client_names and not new.tls.client_names:
            got = "no client_allowed_sans any more"
            problems.append(f"{section}: got {got}, want a restart with it")
    if old.users and not new.users:
        got = "no users any more"
        problems.append(f"{path}: basic_auth_users: got {got}, want a restart with it")
    if problems:
        raise ConfigError(problems)
