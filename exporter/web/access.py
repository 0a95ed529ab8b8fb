"""Who is let in: TLS and users, as the web configuration file has them.

What cannot be used of it is not used: the last good state stays, with its protection.
"""

import asyncio
import base64
import hmac
import os
from functools import partial
from http import HTTPStatus
from pathlib import Path
from weakref import WeakValueDictionary

from tornado.httputil import HTTPServerRequest

from exporter.errors import ConfigError
from exporter.scrape.worker import Failures
from exporter.web.config import Stamps, Texts, read, stamp
from exporter.web.pages import Response, in_thread, plain_text

CHALLENGE = {"WWW-Authenticate": 'Basic realm="HAK/GAL exporter"'}
WAIT_SECONDS = 5.0  # for a log-in's turn


class Access:
    """Lets in whom a web configuration file allows in; ``config`` is what holds now."""

    def __init__(self, path: Path) -> None:
        """Read the file, or raise ConfigError with a line for each mistake."""
        self._path = path
        self._read_as: Stamps = {}
        self._seen: Stamps = {}
        self.config = read(path, self._read_as)
        self._failures = Failures()
        self._logins = Logins()

    def look(self) -> bool:
        """Read the files again if they have changed, and not since the last look.

        Half a file may be valid; a certificate is renewed a moment before its key. What
        would open the server is refused: a file may have been emptied by accident. Nor
        can TLS be switched on: plain connections would go on beside it.
        """
        before, self._seen = self._seen, {path: stamp(path) for path in self._read_as}
        if self._seen in (self._read_as, {}) or self._seen != before:
            return False
        self._read_as = {}
        try:
            config = read(self._path, self._read_as)
            lost = self.config.protection - config.protection
            if lost or bool(config.tls) is not bool(self.config.tls):
                got = f"no {' and '.join(sorted(lost))} any more" if lost else "TLS now"
                raise ConfigError([f"{self._path}: got {got}, want a restart with it"])
        except ConfigError as error:
            self._failures.note("web.config.file", error)
            return False
        self.config = config
        self._failures.note("web.config.file", None)
        return True

    async def refusal(self, request: HTTPServerRequest) -> Response | None:
        """Return why a request is not answered, None if it may be."""
        users, login = self.config.users, request.headers.get("Authorization", "")
        if not users:
            return None
        try:
            if await self._logins.is_right(users, login, str(request.remote_ip)):
                return None
        except TimeoutError:
            return plain_text(HTTPStatus.SERVICE_UNAVAILABLE, "too many log-ins")
        return plain_text(HTTPStatus.UNAUTHORIZED, "unauthorized", CHALLENGE)


class Logins:
    """Compares log-ins with bcrypt hashes, which is slow on purpose.

    Right ones are remembered, as keyed digests. Of the others, one is compared at a
    time; addresses take turns. The time of an answer does not tell if a user exists.
    """

    def __init__(self) -> None:
        self._digest = partial(hmac.digest, os.urandom(32), digest="sha256")
        self._right: dict[str, bytes] = {}
        self._turn = asyncio.Lock()
        self._lines = WeakValueDictionary[str, asyncio.Lock]()  # by address

    async def is_right(self, users: Texts, authorization: str, address: str) -> bool:
        """Return whether an Authorization header from an address is a user's."""
        login = parse_basic(authorization)
        if login is None:
            return False
        user, password = login
        # For an unknown user another's hash, always the same one.
        number = int.from_bytes(self._digest(user.encode()))
        hashed = users.get(user, [*users.values()][number % len(users)])
        digest = self._digest(repr((user, password, hashed)).encode())
        line = self._lines.setdefault(address, asyncio.Lock())
        if not self._is_remembered(user, digest):
            async with asyncio.timeout(WAIT_SECONDS) as wait, line, self._turn:
                wait.reschedule(None)  # its thread cannot be stopped: its turn lasts
                # Whoever had the turn before may have brought the same log-in.
                if not self._is_remembered(user, digest):
                    import bcrypt  # without users, it need not be installed

                    outcome = await in_thread(bcrypt.checkpw, password, hashed.encode())
                    if user not in users or not outcome.result:
                        return False
                    self._right[user] = digest
        return user in users

    def _is_remembered(self, user: str, digest: bytes) -> bool:
        return hmac.compare_digest(self._right.get(user, b""), digest)


def parse_basic(authorization: str) -> tuple[str, bytes] | None:
    """Return user and password of an Authorization header, None if it has none."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        login = base64.b64decode(encoded, validate=True)
    except ValueError:
        return None
    user, colon, password = login.partition(b":")
    is_basic = colon and scheme.lower() == "basic"
    return (user.decode(errors="replace"), password) if is_basic else None
