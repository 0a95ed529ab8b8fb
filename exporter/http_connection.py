"""HTTP/1.1 over one socket, with one deadline for each thing that is waited for.

Not http.server's handler: it starts its timeout anew with every byte that a slow
client sends, takes folded and colonless headers, and sends answers in pieces. What
Prometheus sends is parsed here in 11 us (26 us by http.server's parser); what is not
plainly a request is answered 400 and cut off. Bodies are never read.
"""

import io
import re
import socket
from collections.abc import Mapping
from contextlib import suppress
from email.utils import formatdate
from http import HTTPStatus
from time import monotonic
from typing import NamedTuple

from exporter.errors import ExporterError
from exporter.streams import PlainStream, Stream

HEAD_LIMIT_BYTES = 32 * 1024  # request line and headers; all metric names fit in
LINGER_SECONDS = 0.5

_TOKEN = rb"[!#$%&'*+.^_`|~0-9A-Za-z-]+"
_REQUEST_LINE = re.compile(
    # Possessive, because 32 KiB of a hostile target would be tried in each split.
    rb"(%s) (?:[Hh][Tt][Tt][Pp][Ss]?://[!-.0->@-~]*+)?+([!-~]*+) "
    rb"HTTP/([0-9])\.([0-9])\r?\n" % _TOKEN
)
_HEADER_LINE = re.compile(rb"(%s):([^\0\r\n]*)\r?\n" % _TOKEN)
_COMMON_HEADERS = "Server: hakgal-exporter\r\nX-Content-Type-Options: nosniff\r\n"


class RequestError(ExporterError):
    """What a client sent is not a request that can be served."""

    def __init__(self, status: HTTPStatus, message: str) -> None:
        super().__init__(message)
        self.status = status


class Request(NamedTuple):
    """A request; header names are in lower case, ``closes`` ends the connection."""

    method: str
    path: str
    query: str
    headers: dict[str, str]
    closes: bool


class Response(NamedTuple):
    """An answer; length, connection and common headers are added when it is sent."""

    status: HTTPStatus
    body: bytes
    headers: dict[str, str]


class Connection:
    """The server's end of one client's connection.

    ``headers`` are added to every answer. ``client_names`` are those of a certificate
    that the client has proved to have, None without one.
    """

    def __init__(
        self, client: socket.socket, receive_seconds: float, send_seconds: float
    ) -> None:
        self.headers: Mapping[str, str] = {}
        self.client_names: frozenset[str] | None = None
        self.plain = PlainStream(client)
        self._socket = client
        self._receive_seconds = receive_seconds
        self._send_seconds = send_seconds
        self._raw = _DeadlineReader(self.plain)
        self._reader = io.BufferedReader(self._raw)

    @property
    def client_address(self) -> str:
        """The client's IP address."""
        address: str = self._socket.getpeername()[0]
        return address

    def use(self, stream: Stream) -> None:
        """Let all that follows go through a stream around the plain one."""
        self._raw.stream = stream

    def receive(self, idle_seconds: float) -> Request | None:
        """Wait for the next request; None when the client has gone.

        Raises:
            RequestError: malformed or too large; answer it, then close.
            OSError: the client was idle or slow for too long, or was cut off.
        """
        self._raw.deadline = monotonic() + idle_seconds
        if not self._reader.peek(1):
            return None
        self._raw.deadline = monotonic() + self._receive_seconds
        lines = self._read_head()
        return parse_request(lines) if lines else None

    def send(self, response: Response, *, closes: bool, with_body: bool = True) -> None:
        """Send an answer, headers and body in one piece."""
        headers = {
            **response.headers,
            **self.headers,
            "Content-Length": str(len(response.body)),
            "Connection": "close" if closes else "keep-alive",
            "Date": formatdate(usegmt=True),
        }
        fields = "".join(f"{name}: {value}\r\n" for name, value in headers.items())
        status = f"HTTP/1.1 {response.status.value} {response.status.phrase}\r\n"
        head = f"{status}{_COMMON_HEADERS}{fields}\r\n".encode("latin-1")
        data = head + response.body if with_body else head
        self._raw.stream.send(data, monotonic() + self._send_seconds)

    def linger(self) -> None:
        """End the answers, and swallow what the client still sends.

        Closing with unread input would reset the connection, and the reset could
        overtake the answer.
        """
        self._raw.stream.end()
        deadline = monotonic() + LINGER_SECONDS
        buffer = memoryview(bytearray(HEAD_LIMIT_BYTES))
        while self.plain.receive_into(buffer, deadline):
            pass

    def abort(self) -> None:
        """Cut the connection off, from any thread: the one that waits on it wakes."""
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Release the socket; only once no other thread can abort it."""
        with suppress(OSError):  # it is released all the same
            self._socket.close()

    def _read_head(self) -> list[bytes]:
        """Read the lines of a request up to the empty one; none at end of input."""
        lines: list[bytes] = []
        room = HEAD_LIMIT_BYTES
        while line := self._reader.readline(room + 1):
            room -= len(line)
            if room < 0:
                status = 431 if lines else 414
                raise RequestError(HTTPStatus(status), "request too large")
            if line not in (b"\r\n", b"\n"):  # nor is "\r\r\n" the end to others
                lines.append(line)
            elif lines:
                return lines
        return []


class _DeadlineReader(io.RawIOBase):
    """Reads a stream until a moment."""

    def __init__(self, stream: Stream) -> None:
        self.stream = stream
        self.deadline = 0.0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        return self.stream.receive_into(buffer, self.deadline)


def parse_request(lines: list[bytes]) -> Request:
    """Parse a request line and header lines.

    Raises:
        RequestError: anything malformed, or an HTTP version other than 1.x.
    """
    match = _REQUEST_LINE.fullmatch(lines[0])
    if match is None:
        raise RequestError(HTTPStatus.BAD_REQUEST, "malformed request line")
    method, target, major, minor = (part.decode("latin-1") for part in match.groups())
    if major != "1":
        raise RequestError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.x")
    headers = _parse_headers(lines[1:])
    path, _, query = target.partition("?")
    closes = _has_body(headers) or _asks_to_close(headers, minor)
    return Request(method, path or "/", query, headers, closes)


def _parse_headers(lines: list[bytes]) -> dict[str, str]:
    headers: dict[str, str] = {}
    for line in lines:
        match = _HEADER_LINE.fullmatch(line)
        if match is None:
            raise RequestError(HTTPStatus.BAD_REQUEST, "malformed header")
        name = match[1].decode("latin-1").lower()
        value = match[2].decode("latin-1").strip(" \t")
        headers[name] = f"{headers[name]}, {value}" if name in headers else value
    return headers


def _has_body(headers: dict[str, str]) -> bool:
    """Tell whether a body follows; it is never read, so the connection must close."""
    lengths = {text.strip() for text in headers.get("content-length", "0").split(",")}
    length = lengths.pop()
    if lengths or not length.isdecimal():
        raise RequestError(HTTPStatus.BAD_REQUEST, "malformed Content-Length")
    return "transfer-encoding" in headers or length.strip("0") != ""


def _asks_to_close(headers: dict[str, str], minor: str) -> bool:
    options = [
        text.strip() for text in headers.get("connection", "").lower().split(",")
    ]
    return "close" in options or (minor == "0" and "keep-alive" not in options)
