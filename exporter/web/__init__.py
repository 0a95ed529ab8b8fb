"""The HTTP server: a tornado event loop in a thread; nothing slow runs in it."""

import asyncio
import logging
import math
import socket
import threading
import time
from collections.abc import Sequence
from email.utils import formatdate
from typing import Any, cast

from tornado.http1connection import HTTP1Connection, HTTP1ServerConnection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, ResponseStartLine
from tornado.httputil import HTTPServerRequest as Request
from tornado.ioloop import IOLoop
from tornado.iostream import IOStream
from tornado.netutil import bind_sockets

from exporter.config.settings import parse_address
from exporter.errors import ServerError
from exporter.web.access import Access
from exporter.web.pages import Pages

try:
    import resource
except ImportError:  # on Windows
    resource = None  # type: ignore[assignment]

BACKLOG = 1024  # a client that finds it full retries only after a second
# Linux doubles it. By default, it buffers 2.5 MB for a client that does not read.
SEND_BUFFER_BYTES = 64 * 1024
HEAD_LIMIT_BYTES = 32 * 1024
MOST_UNREAD = 16  # pages held in memory for slow readers
GRACE_SECONDS = 0.1  # before a connection may be closed to make room
OWN_DESCRIPTORS = 40  # besides connections: databases, listeners, log, /proc

logger = logging.getLogger(__name__)


class Server:
    """Serves the pages of a source on one or more addresses."""

    idle_seconds = 150.0  # without a request; longer than usual scrape intervals
    stop_seconds = 3.0  # to finish responses when the server stops
    look_seconds = 1.0  # between checks of the web configuration file
    max_connections = 128

    def __init__(
        self, pages: Pages, addresses: Sequence[str], access: Access | None = None
    ) -> None:
        """Listen, or raise ServerError; without ``access``, allow every client."""
        if resource and (most := resource.getrlimit(resource.RLIMIT_NOFILE)[0]) > 0:
            self.max_connections = min(128, max(1, most - OWN_DESCRIPTORS))
        self._pages, self.access = pages, access
        self._listeners = listen_on_all(addresses)
        self.addresses = [one.getsockname()[:2] for one in self._listeners]
        # Connections waiting for their client, since when, oldest first; then the busy.
        self._waiting: dict[IOStream, float] = {}
        self._busy: set[IOStream] = set()
        self._loop = asyncio.new_event_loop()
        self._stopping = asyncio.Event()
        self._thread = threading.Thread(target=self._run, name="web", daemon=True)

    def start(self) -> None:
        """Serve in the background until stopped."""
        self._thread.start()
        for host, port in self.addresses:
            logger.info("listening", extra={"fields": {"host": host, "port": port}})

    def stop(self) -> None:
        """Refuse new connections, finish current responses, then close the rest."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stopping.set)
            self._thread.join(2 * self.stop_seconds)

    def _run(self) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve())
        self._loop.close()

    async def _serve(self) -> None:
        http = _Http(self)
        http.add_sockets([_Listener(one, self) for one in self._listeners])
        while not self._stopping.is_set():
            try:
                seconds = self.look_seconds if self.access else None
                await asyncio.wait_for(self._stopping.wait(), seconds)
            except TimeoutError:
                if self.access and self.access.look():
                    logger.info("web configuration reloaded")
                    http.ssl_options = self.access.config.tls
        http.stop()
        until = self._loop.time() + self.stop_seconds
        while self._busy or any(map(IOStream.writing, self._waiting)):
            if self._loop.time() > until:
                break
            await asyncio.sleep(0.02)
        await http.close_all_connections()

    def has_room(self) -> bool:
        """Return whether there is room for a connection, if need be by closing one."""
        since = next(iter(self._waiting.values()), math.inf)
        is_full = len(self._waiting) + len(self._busy) >= self.max_connections
        return not is_full or self._loop.time() - since > GRACE_SECONDS

    def begin(self, request: Request) -> None:
        """Start the answer, unless the client has pipelined requests and left."""
        connection = cast(HTTP1Connection, request.connection)
        if connection.stream.closed():
            connection.detach()  # a mere close would still process the rest
        else:
            IOLoop.current().spawn_callback(self._answer, connection, request)

    def wait_for(self, stream: IOStream) -> None:
        """Wait for the next request of a client; close the oldest if there are many."""
        self.forget(stream)
        if len(self._waiting) + len(self._busy) >= self.max_connections:
            oldest = next(iter(self._waiting))
            self.forget(oldest)
            oldest.close()
        self._waiting[stream] = self._loop.time()

    def forget(self, stream: IOStream) -> None:
        """Drop a connection that was closed."""
        self._waiting.pop(stream, None)
        self._busy.discard(stream)

    async def _answer(self, connection: HTTP1Connection, request: Request) -> None:
        stream = connection.stream
        response = await self.access.refusal(request) if self.access else None
        if response is None and not stream.closed():  # closed if room was needed
            del self._waiting[stream]
            self._busy.add(stream)
            response = await self._pages.answer(request)
            self._busy.discard(stream)
        if response is None or stream.closed():
            return connection.close()
        self.wait_for(stream)
        headers = HTTPHeaders(response.headers)
        headers.update(self.access.config.headers if self.access else {})
        headers["Content-Length"] = str(len(response.body))
        headers["Date"] = formatdate(usegmt=True)
        headers["Server"] = "hakgal-exporter"
        headers["X-Content-Type-Options"] = "nosniff"
        start = ResponseStartLine("", response.status, response.status.phrase)
        body = b"" if request.method == "HEAD" else response.body
        connection.write_headers(start, headers, body)
        connection.finish()
        unread = [one for one in self._waiting if one.writing()]
        if len(unread) > MOST_UNREAD:
            unread[0].close()


class _Listener(socket.socket):
    """Accepts while there is room; other clients wait in the backlog."""

    def __init__(self, listener: socket.socket, server: Server) -> None:
        super().__init__(fileno=listener.detach())
        self._server = server

    def accept(self) -> tuple[socket.socket, Any]:
        try:
            if self._server.has_room():
                return super().accept()
        except OSError as error:  # no client, no descriptors or no memory
            if isinstance(error, BlockingIOError):
                raise
        time.sleep(0.005)  # otherwise the event loop would spin
        raise BlockingIOError


class _Http(HTTPServer):
    """Tornado's server; it reports each connection to ours."""

    def initialize(self, server: Server) -> None:  # type: ignore[override]
        self._server = server
        super().initialize(
            server.begin,
            ssl_options=server.access.config.tls if server.access else None,
            idle_connection_timeout=server.idle_seconds,
            max_header_size=HEAD_LIMIT_BYTES,
            max_body_size=0,  # GET and HEAD have no body
            max_buffer_size=2 * HEAD_LIMIT_BYTES,
        )

    def handle_stream(self, stream: IOStream, address: tuple[Any, ...]) -> None:
        self._server.wait_for(stream)
        super().handle_stream(stream, address)

    def on_close(self, server_conn: object) -> None:
        super().on_close(server_conn)
        self._server.forget(cast(HTTP1ServerConnection, server_conn).stream)


def listen_on_all(addresses: Sequence[str]) -> list[socket.socket]:
    """Return listening sockets for every address, or raise ServerError."""
    listeners: list[socket.socket] = []
    for address in addresses:
        host, port = parse_address(address)
        both = host if host != "::" else ""  # nobody wants IPv6 alone
        try:
            listeners += bind_sockets(port, both, backlog=BACKLOG)
        except (OSError, UnicodeError) as error:  # UnicodeError: a malformed host name
            for listener in listeners:
                listener.close()
            wanted = "a free port above 1023 and an address of this machine, or :PORT"
            reason = getattr(error, "strerror", None) or error
            text = f"cannot listen on {address}: {reason}, want {wanted}"
            raise ServerError(text) from error
    for listener in listeners:  # accepted sockets inherit this
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
    return listeners
