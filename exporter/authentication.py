"""Basic auth against bcrypt hashes, which are slow to compare with on purpose.

So verdicts are kept, only one comparison runs at a time, and addresses take turns at
it: a flood of logins waits mostly for itself, and whoever was let in before never
waits. How long an answer takes does not tell whether a user exists.
"""

import base64
import hmac
import os
import socket
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from enum import Enum

WAIT_SECONDS = 5.0
# Prometheus on one machine that start together; the address beyond gets a 503.
WAITING_PER_ADDRESS = 8
WAITING_ADDRESSES = 16
WRONG_LOGINS_KEPT = 1024
PASSWORD_LIMIT_BYTES = 72  # bcrypt takes no more

Users = Mapping[bytes, bytes]


class Verdict(Enum):
    """What became of a login."""

    RIGHT = 1
    WRONG = 2
    UNDECIDED = 3  # too many others wait


class Authenticator:
    """Compares logins with users' hashes, and remembers the verdicts.

    What is remembered is a keyed digest of user, hash and password: of no use outside
    this process, and without effect once the hash has changed or the user has gone.
    """

    def __init__(self) -> None:
        self._secret = os.urandom(32)
        self._turns = Turns()
        self._lock = threading.Lock()  # guards the next two
        # Apart, so that no number of wrong logins drives a right one out.
        self._right: dict[bytes, bytes] = {}
        self._wrong: dict[bytes, None] = {}

    def judge(self, users: Users, authorization: str, address: str) -> Verdict:
        """Return the verdict on an Authorization header from an address."""
        login = parse_basic(authorization)
        if login is None:
            return Verdict.WRONG
        user, password = login
        digest = self._digest(users, user, password)
        verdict = self._recall(user, digest)
        if verdict is not None:
            return verdict
        with self._turns.take(address) as is_ours:
            if not is_ours:
                return Verdict.UNDECIDED
            # Whoever had the turn before may have brought the same login.
            verdict = self._recall(user, digest)
            return verdict or self._compare(users, user, password, digest)

    def _hash_of(self, users: Users, user: bytes) -> bytes:
        """Return a user's hash; for an unknown one always the same one of another."""
        if user in users:
            return users[user]
        number = int.from_bytes(hmac.digest(self._secret, user, "sha256"))
        return [*users.values()][number % len(users)]

    def _digest(self, users: Users, user: bytes, password: bytes) -> bytes:
        # Whether the user exists: another's hash may stand in for a removed one.
        message = bytes([user in users]) + len(user).to_bytes(4) + user
        message += self._hash_of(users, user) + password
        return hmac.digest(self._secret, message, "sha256")

    def _recall(self, user: bytes, digest: bytes) -> Verdict | None:
        with self._lock:
            if hmac.compare_digest(self._right.get(user, b""), digest):
                return Verdict.RIGHT
            return Verdict.WRONG if digest in self._wrong else None

    def _compare(
        self, users: Users, user: bytes, password: bytes, digest: bytes
    ) -> Verdict:
        is_same = matches(password, self._hash_of(users, user))
        with self._lock:
            if is_same and user in users:
                kept = {u: d for u, d in self._right.items() if u in users}
                self._right = kept | {user: digest}
                return Verdict.RIGHT
            if len(self._wrong) >= WRONG_LOGINS_KEPT:
                del self._wrong[next(iter(self._wrong))]
            self._wrong[digest] = None
            return Verdict.WRONG


class Turns:
    """One at a time; of those who wait, each address in turn gets one through."""

    def __init__(self) -> None:
        self._changed = threading.Condition()  # its lock guards the next two
        self._lines: dict[str | bytes, deque[object]] = {}  # next address first
        self._is_taken = False

    @contextmanager
    def take(self, address: str) -> Iterator[bool]:
        """Wait for a turn and hold it; False if there are too many, or too slow."""
        is_ours = self._wait(_neighbourhood(address))
        try:
            yield is_ours
        finally:
            if is_ours:
                with self._changed:
                    self._is_taken = False
                    self._changed.notify_all()

    def _wait(self, address: str | bytes) -> bool:
        ticket = object()
        with self._changed:
            line = self._lines.get(address)
            if line is None:
                if len(self._lines) >= WAITING_ADDRESSES:
                    return False
                line = self._lines[address] = deque()
            if len(line) >= WAITING_PER_ADDRESS:
                return False
            line.append(ticket)
            is_ours = self._changed.wait_for(
                lambda: self._is_next(ticket), WAIT_SECONDS
            )
            line.remove(ticket)
            if is_ours:
                self._is_taken = True
                del self._lines[address]
                if line:
                    self._lines[address] = line  # behind all others
            elif not line:
                del self._lines[address]
            return is_ours

    def _is_next(self, ticket: object) -> bool:
        return not self._is_taken and next(iter(self._lines.values()))[0] is ticket


def parse_basic(authorization: str) -> tuple[bytes, bytes] | None:
    """Return user and password of an Authorization header, None if it has none."""
    scheme, _, encoded = authorization.partition(" ")
    if scheme.lower() != "basic":
        return None
    try:
        login = base64.b64decode(encoded, validate=True)
    except ValueError:
        return None
    user, colon, password = login.partition(b":")
    return (user, password) if colon else None


def matches(password: bytes, hashed: bytes) -> bool:
    """Tell whether a password has a bcrypt hash; slow, equally for all passwords."""
    # Not at the top: without users, its memory is saved, and it need not be there.
    import bcrypt

    is_possible = len(password) <= PASSWORD_LIMIT_BYTES and b"\0" not in password
    is_same = bcrypt.checkpw(password if is_possible else b"", hashed)
    return is_same and is_possible


def _neighbourhood(address: str) -> str | bytes:
    """Return what one client cannot change of its address: of IPv6, the first half."""
    if ":" not in address:
        return address
    packed = socket.inet_pton(socket.AF_INET6, address.partition("%")[0])
    # Loopback, and IPv4 in IPv6 dress, have nothing in the first half.
    return packed[:8] if any(packed[:8]) else packed
