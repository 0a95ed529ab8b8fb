"""Access control: TLS and users, from the web configuration file.

A file that is invalid has no effect: the last valid one stays, with its protection.
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
WAIT_SECONDS = 5.0  # for a turn to check a password


class Access:
    """Applies a web configuration file; ``config`` is its last valid content."""

    def __init__(self, path: Path) -> None:
        """Read the file, or raise ConfigError with one line per mistake."""
        self._path = path
        self._read_as: Stamps = {}
        self._seen: Stamps = {}
        self.config = read(path, self._read_as)
        self._failures = Failures()
        self._logins = Logins()

    def look(self) -> bool:
        """Reload the files if they have changed, but not since the previous look.

        A half-written file may be valid, and a certificate is renewed before its key.
        A change that removes protection is refused: it may be an accident. So is one
        that enables TLS: plain connections would stay open beside it.
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
                raise ConfigError([f"{self._path}: got {got}, want a restart"])
        except ConfigError as error:
            self._failures.note("web.config.file", error)
            return False
        self.config = config
        self._failures.note("web.config.file", None)
        return True

    async def refusal(self, request: HTTPServerRequest) -> Response | None:
        """Return the refusal of a request, None if it is allowed."""
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
    """Checks log-ins against bcrypt hashes, which is slow by design.

    Correct log-ins are remembered as keyed digests. Others are checked one at a time;
    client addresses take turns. Response times do not reveal whether a user exists.
    """

    def __init__(self) -> None:
        self._digest = partial(hmac.digest, os.urandom(32), digest="sha256")
        self._right: dict[str, bytes] = {}
        self._turn = asyncio.Lock()
        self._lines = WeakValueDictionary[str, asyncio.Lock]()  # by address

    async def is_right(self, users: Texts, authorization: str, address: str) -> bool:
        """Return whether an Authorization header from an address is valid."""
        login = parse_basic(authorization)
        if login is None:
            return False
        user, password = login
        # An unknown user is checked against another's hash, always the same one.
        number = int.from_bytes(self._digest(user.encode()))
        hashed = users.get(user, [*users.values()][number % len(users)])
        digest = self._digest(repr((user, password, hashed)).encode())
        line = self._lines.setdefault(address, asyncio.Lock())
        if not self._is_remembered(user, digest):
            async with asyncio.timeout(WAIT_SECONDS) as wait, line, self._turn:
                wait.reschedule(None)  # its thread cannot be stopped: keep the turn
                # The previous turn may have checked the same log-in.
                if not self._is_remembered(user, digest):
                    import bcrypt  # only needed with users

                    outcome = await in_thread(bcrypt.checkpw, password, hashed.encode())
                    if user not in users or not outcome.result:
                        return False
                    self._right[user] = digest
        return user in users

    def _is_remembered(self, user: str, digest: bytes) -> bool:
        return hmac.compare_digest(self._right.get(user, b""), digest)


def parse_basic(authorization: str) -> tuple[str, bytes] | None:
    """Return the user and password of an Authorization header, or None."""
    scheme, _, encoded = authorization.partition(" ")
    try:
        login = base64.b64decode(encoded, validate=True)
    except ValueError:
        return None
    user, colon, password = login.partition(b":")
    is_basic = colon and scheme.lower() == "basic"
    return (user.decode(errors="replace"), password) if is_basic else None
