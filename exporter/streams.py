"""Bytes to and from a client, with a deadline for each thing that is waited for."""

import socket
from time import monotonic
from typing import Protocol


class Stream(Protocol):
    """Bytes to and from a client; each deadline is a moment on the monotonic clock."""

    def receive_into(self, buffer: memoryview, deadline: float) -> int:
        """Read what there is, once there is something; 0 at the end."""

    def send(self, data: bytes, deadline: float) -> None:
        """Send all of it."""

    def end(self) -> None:
        """Send nothing any more."""


class PlainStream:
    """Bytes over a socket, in however many pieces they travel."""

    def __init__(self, client: socket.socket) -> None:
        self._socket = client

    def receive_into(self, buffer: memoryview, deadline: float) -> int:
        """Read what there is, once there is something; 0 at the end."""
        self._wait_until(deadline)
        return self._socket.recv_into(buffer)

    def send(self, data: bytes, deadline: float) -> None:
        """Send all of it."""
        self._wait_until(deadline)
        self._socket.sendall(data)  # takes the timeout for the whole

    def send_at_once(self, data: bytes) -> None:
        """Send what there is room for, without waiting."""
        self._socket.settimeout(0.0)
        self._socket.send(data)

    def end(self) -> None:
        """Send nothing any more."""
        self._socket.shutdown(socket.SHUT_WR)

    def _wait_until(self, deadline: float) -> None:
        remaining = deadline - monotonic()
        if remaining <= 0.0:
            raise TimeoutError("deadline passed")
        self._socket.settimeout(remaining)
