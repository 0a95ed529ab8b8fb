"""The HTTP server: listens, admits connections, runs each in a thread.

Plain sockets and threads. waitress has no TLS; cheroot makes the TLS handshake in
its accept loop, so one silent client stops all, and brings dependencies; the client
library's server has a backlog of 5, HTTP/1.0 and no timeouts. The standard library's
socketserver wakes up twice a second for each address, spins when file descriptors
run out and prints tracebacks; http_connection.py says what http.server lacks.
"""

import logging
import resource
import socket
import threading
from _thread import start_new_thread
from collections.abc import Sequence
from contextlib import suppress
from http import HTTPStatus
from typing import TYPE_CHECKING

from exporter.addresses import listen_on_all
from exporter.http_connection import Connection, RequestError
from exporter.pages import Pages, Source, plain_text

if TYPE_CHECKING:
    from exporter.guard import Guard

__all__ = ["Server", "Source"]

ACCEPT_PAUSE_SECONDS = 0.1
# What the exporter has open at most beside connections: log, listeners, state file,
# both databases with their side files twice, files in /proc.
OWN_DESCRIPTORS = 32

Place = dict[Connection, None]

logger = logging.getLogger(__name__)


class Server:
    """Serves the pages of a source on one or more addresses."""

    receive_seconds = 10.0  # for a whole request, from its first byte
    send_seconds = 10.0  # for a whole answer
    first_seconds = 10.0  # from connecting to the first request
    idle_seconds = 150.0  # from answer to request; longer than usual scrape intervals
    stop_seconds = 3.0  # for what is being served when the server stops
    max_connections = 512

    def __init__(
        self,
        source: Source,
        addresses: Sequence[str],
        *,
        telemetry_path: str = "/metrics",
        max_requests: int = 40,
        guard: "Guard | None" = None,
    ) -> None:
        """Listen on every address; ``max_requests`` 0 means no limit.

        Without a guard, everybody is let in.

        Raises:
            ServerError: an address is malformed or cannot be listened on.
        """
        self.max_connections = _within_descriptors(self.max_connections)
        self._pages = Pages(source, telemetry_path, max_requests)
        self._guard = guard
        self._stopping = threading.Event()
        # Its lock guards the next three; it tells when a connection leaves one. In
        # each, whoever has been there longest comes first.
        self._changed = threading.Condition()
        self._waiting: Place = {}  # for a request
        self._busy: Place = {}  # with an answer
        self._sending: Place = {}
        self._listeners = listen_on_all(addresses)
        self._acceptors: list[threading.Thread] = []
        self.addresses: list[tuple[str, int]] = [
            listener.getsockname()[:2] for listener in self._listeners
        ]

    def start(self) -> None:
        """Serve in background threads until stopped."""
        for listener, (host, port) in zip(self._listeners, self.addresses, strict=True):
            acceptor = threading.Thread(
                target=self._accept_all, args=[listener], daemon=True
            )
            acceptor.start()
            self._acceptors.append(acceptor)
            fields = {"host": host, "port": port}
            logger.info("listening", extra={"fields": fields})

    def stop(self) -> None:
        """Refuse new connections, finish what is being served, close the rest."""
        self._stopping.set()
        for listener in self._listeners:
            with suppress(OSError):  # stopped before
                listener.shutdown(socket.SHUT_RDWR)  # wakes its acceptor
        for acceptor in self._acceptors:
            acceptor.join(self.stop_seconds)
        for listener in self._listeners:
            listener.close()
        with self._changed:
            self._changed.wait_for(
                lambda: not (self._busy or self._sending), self.stop_seconds
            )
            for connection in (*self._waiting, *self._busy, *self._sending):
                connection.abort()
            self._changed.wait_for(lambda: not self._waiting, self.stop_seconds)

    def _accept_all(self, listener: socket.socket) -> None:
        while not self._stopping.is_set():
            try:
                self._admit(self._accept(listener))
            except (OSError, MemoryError) as error:
                self._pause(error)

    def _accept(self, listener: socket.socket) -> Connection:
        client, _ = listener.accept()
        try:
            return Connection(client, self.receive_seconds, self.send_seconds)
        except MemoryError:
            client.close()
            raise

    def _pause(self, error: Exception) -> None:
        """Close a connection to get its file descriptor, and let that happen.

        The client stays in the backlog; without a pause the acceptor would spin.
        """
        if self._stopping.is_set():
            return
        fields = {"error": str(error)}
        logger.warning("connection not accepted", extra={"fields": fields})
        with self._changed:
            self._make_room()
        self._stopping.wait(ACCEPT_PAUSE_SECONDS)

    def _admit(self, connection: Connection) -> None:
        """Start a connection's thread, or refuse the connection if all are busy."""
        with self._changed:
            places = self._waiting, self._busy, self._sending
            is_full = sum(map(len, places)) >= self.max_connections
            is_admitted = not is_full or self._make_room()
            if is_admitted:
                self._waiting[connection] = None
        try:
            if is_admitted:
                # Not a Thread: its start() would wait for ever for one that ran
                # out of memory before it could say that it runs.
                start_new_thread(self._serve, (connection,))
                return
            if not (self._guard and self._guard.is_tls):
                _refuse(
                    connection, HTTPStatus.SERVICE_UNAVAILABLE, "too many connections"
                )
        except (RuntimeError, OSError, MemoryError) as error:
            fields = {"error": str(error)}
            logger.warning("connection not served", extra={"fields": fields})
        self._forget(connection)

    def _make_room(self) -> bool:
        """Cut off whose client we have waited for longest, if any; needs the lock.

        First who sends nothing, then who reads nothing: clients that ask for pages
        and leave them unread could otherwise keep all others out.
        """
        for place in (self._waiting, self._sending):
            for connection in place:
                del place[connection]
                connection.abort()
                return True
        return False

    def _serve(self, connection: Connection) -> None:
        idle_seconds = self.first_seconds
        try:
            if self._greet(connection):
                while self._exchange(connection, idle_seconds):
                    idle_seconds = self.idle_seconds
            connection.linger()
        except OSError as error:  # the client's doing: silent, slow or gone
            fields = {"error": str(error)}
            logger.debug("connection lost", extra={"fields": fields})
        finally:
            self._forget(connection)

    def _greet(self, connection: Connection) -> bool:
        """Shake hands if that is asked for; tell whether requests may follow."""
        try:
            if self._guard:
                self._guard.greet(connection, self.first_seconds)
        except RequestError as error:
            _refuse(connection, error.status, str(error))
            return False
        return True

    def _exchange(self, connection: Connection, idle_seconds: float) -> bool:
        """Answer one request; tell whether another one may follow."""
        try:
            request = connection.receive(idle_seconds)
        except RequestError as error:
            _refuse(connection, error.status, str(error))
            return False
        if request is None or not self._move(connection, self._waiting, self._busy):
            return False
        refusal = self._guard.refusal(connection, request) if self._guard else None
        response = refusal or self._pages.answer(request)
        closes = request.closes or self._stopping.is_set()
        self._move(connection, self._busy, self._sending)
        connection.send(response, closes=closes, with_body=request.method != "HEAD")
        is_open = self._move(connection, self._sending, self._waiting)
        return is_open and not (closes or self._stopping.is_set())

    def _move(self, connection: Connection, here: Place, there: Place) -> bool:
        """Let a connection go on to another place, unless it was cut off."""
        with self._changed:
            if connection not in here:
                return False
            del here[connection]
            there[connection] = None
            self._changed.notify_all()
            return True

    def _forget(self, connection: Connection) -> None:
        """Close a connection; before that, nobody can find it to abort it."""
        with self._changed:
            for place in (self._waiting, self._busy, self._sending):
                place.pop(connection, None)
            self._changed.notify_all()
        connection.close()


def _refuse(connection: Connection, status: HTTPStatus, reason: str) -> None:
    connection.send(plain_text(status, reason), closes=True)


def _within_descriptors(connections: int) -> int:
    """Return how many connections leave a scrape the descriptors that it needs."""
    most, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if most == resource.RLIM_INFINITY:
        return connections
    return min(connections, max(1, most - OWN_DESCRIPTORS))
