"""A stream through TLS.

Made of OpenSSL's engine between two buffers, not of SSLSocket: that applies its
timeout to each piece of an answer, waits for the client's goodbye, and swaps its
engine away when another thread shuts it down.
"""

import ssl
from contextlib import suppress
from http import HTTPStatus
from ipaddress import ip_address
from typing import Any

from exporter.http_connection import RequestError
from exporter.streams import PlainStream

CHUNK_BYTES = 16 * 1024 + 512  # a TLS record and what surrounds it

_NAME_KINDS = ("DNS", "email", "IP Address", "URI")


class TlsStream:
    """Bytes over a plain stream, encrypted; the server's end."""

    def __init__(self, plain: PlainStream, context: ssl.SSLContext) -> None:
        self._plain = plain
        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self._tls = context.wrap_bio(self._incoming, self._outgoing, server_side=True)
        self._chunk = memoryview(bytearray(CHUNK_BYTES))

    def shake_hands(self, deadline: float) -> None:
        """Agree with the client on keys; the deadline is for all of it.

        Raises:
            RequestError: the client does not speak TLS, but HTTP.
            OSError: the client is slow, gone, or not acceptable.
        """
        try:
            while True:
                try:
                    self._tls.do_handshake()
                    return self._flush(deadline)
                except ssl.SSLWantReadError:
                    self._fill(deadline)
        except ssl.SSLError as error:
            if error.reason == "HTTP_REQUEST":
                message = "client sent an HTTP request to an HTTPS server"
                raise RequestError(HTTPStatus.BAD_REQUEST, message) from error
            self._flush(deadline)  # tells the client why
            raise

    def client_names(self) -> frozenset[str] | None:
        """Return the names in the client's certificate, None if it gave none."""
        try:
            certificate: dict[str, Any] | None = self._tls.getpeercert()
        except ValueError:  # it has names that are no text; they match nothing
            return frozenset()
        if certificate is None:
            return None
        pairs = certificate.get("subjectAltName", ())
        return frozenset(_name(*pair) for pair in pairs if pair[0] in _NAME_KINDS)

    def receive_into(self, buffer: memoryview, deadline: float) -> int:
        """Read what there is, once there is something; 0 at the end."""
        while True:
            try:
                # With a buffer, it counts; its type does not know.
                return self._tls.read(len(buffer), buffer)  # type: ignore[return-value]
            except ssl.SSLWantReadError:
                self._fill(deadline)
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                return 0

    def send(self, data: bytes, deadline: float) -> None:
        """Send all, one record at a time; the deadline is for all of it."""
        left = memoryview(data)
        while left:
            left = left[self._tls.write(left) :]
            self._flush(deadline)

    def end(self) -> None:
        """Say goodbye, without waiting for room or for an answer.

        Not in TLS 1.2: of who does not know tickets, OpenSSL would keep the session
        after a goodbye, up to 20,480 of 6 kB. Answers have a length, so that nobody
        takes a cut for an end.
        """
        if self._tls.version() == "TLSv1.3":
            with suppress(OSError):
                with suppress(ssl.SSLWantReadError):
                    self._tls.unwrap()
                self._plain.send_at_once(self._outgoing.read())
        self._plain.end()

    def _fill(self, deadline: float) -> None:
        self._flush(deadline)
        if count := self._plain.receive_into(self._chunk, deadline):
            self._incoming.write(self._chunk[:count])
        else:
            self._incoming.write_eof()

    def _flush(self, deadline: float) -> None:
        self._plain.send(self._outgoing.read(), deadline)


def _name(kind: str, name: str) -> str:
    if kind == "IP Address":
        # OpenSSL writes all of an IPv6 address, Go and people leave out what they can.
        # What is no address stays what it is, and matches nothing.
        with suppress(ValueError):
            return str(ip_address(name.strip()))
    return name
