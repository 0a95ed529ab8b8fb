"""Listen addresses, as text and as sockets."""

import errno
import re
import socket
from collections.abc import Sequence

from exporter.errors import ServerError

BACKLOG = 1024  # connections of a burst that are dropped come again after a second
# Of a client that does not read; twice that with what the kernel adds. Left to itself,
# it would hold 2.5 MB for each of 512. A page has 35 kB.
SEND_BUFFER_BYTES = 64 * 1024

_ADDRESS = re.compile(r"(?:\[([^\[\]\s]+)\]|([^\[\]:/\s]*)):([0-9]{1,5})")
_HIGHEST_PORT = 65535
_REMEDIES = {
    errno.EADDRINUSE: "the port is in use: stop its user or choose another port",
    errno.EACCES: "not permitted: choose a port above 1023",
    errno.EADDRNOTAVAIL: "no network interface of this machine has that address",
}


def parse_address(text: str) -> tuple[str, int]:
    """Split a listen address into host and port.

    ``:8000`` has the host ``""``, which means all interfaces; ``[::1]:8000`` has
    the host ``::1``. Whether the host exists is not looked up.

    Raises:
        ValueError: not an address, or the port is above 65535.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not a listen address: write :PORT, HOST:PORT or [IPV6]:PORT, "
            "such as 127.0.0.1:8000"
        )
    port = int(match[3])
    if port > _HIGHEST_PORT:
        raise ValueError(f"{text!r} has a port above {_HIGHEST_PORT}")
    return match[1] or match[2] or "", port


def listen_on_all(addresses: Sequence[str]) -> list[socket.socket]:
    """Return a listening socket for every address.

    Raises:
        ServerError: an address is malformed or cannot be had; none is left open.
    """
    listeners: list[socket.socket] = []
    try:
        for address in addresses:
            listeners.append(_listen(address))
    except ServerError:
        for listener in listeners:
            listener.close()
        raise
    return listeners


def _listen(address: str) -> socket.socket:
    try:
        listener = _open(*parse_address(address))
    except socket.gaierror as error:
        reason = f"the host is unknown ({error.strerror})"
    except OSError as error:
        reason = _REMEDIES.get(error.errno or 0, str(error))
    except ValueError as error:
        reason = str(error)
    else:
        # Accepted sockets inherit both: the end of a large page must not wait for
        # the client to acknowledge the beginning.
        listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        return listener
    raise ServerError(f"cannot listen on {address}: {reason}")


def _open(host: str, port: int) -> socket.socket:
    if host in ("", "::") and socket.has_dualstack_ipv6():
        return socket.create_server(
            ("", port), family=socket.AF_INET6, backlog=BACKLOG, dualstack_ipv6=True
        )
    found = socket.getaddrinfo(host or "0.0.0.0", port, type=socket.SOCK_STREAM)
    # IPv4 first, as Go's listeners do: localhost is 127.0.0.1.
    family, _, _, _, address = min(found, key=lambda info: info[0] != socket.AF_INET)
    return socket.create_server(address, family=family, backlog=BACKLOG)
