"""Bytes to the exporter, what comes back, and whether that may come back.

Nothing here shares code with the exporter: what is a request, and which answers there
are, is written down a second time.
"""

import re
import socket
from contextlib import suppress
from typing import NamedTuple

# It is in everything hostile that is sent, and so must be in nothing that comes back.
CANARY = b"zq7<'\"zq8"
SILENT_SECONDS = 1.0  # then no answer comes, or the rest of a request is waited for
HANGS_SECONDS = 5.0  # of a server that still does not close, once we have

_HEAD = re.compile(rb"HTTP/1\.1 (\d{3}) [ -~]*\r\n((?:[A-Za-z-]+: [ -~]*\r\n)*)\r\n")
_PAGES = re.compile(
    rb"HAK/GAL exporter is (healthy|ready)\.\n"
    rb"|<!DOCTYPE html>\n<html lang=\"en\">.*</html>\n"
    rb"|(# HELP .*)?(# EOF\n)?"
    rb"|\x1f\x8b.*",
    re.DOTALL,
)
_REFUSALS = {
    100: "",
    400: "(unknown collector; .*)?",
    401: "unauthorized",
    404: "not found",
    405: "use GET or HEAD",
    503: r"limit of \d+ concurrent requests reached|too many log-ins",
}
_BARE = {100, 400}  # may be the library's, without a header
_TOKEN = (
    b"!#$%&'*+-.^_`|~0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"
)


class Reply(NamedTuple):
    """One HTTP answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


def exchange(
    address: tuple[str, int], data: bytes, *, half_closes: bool = False
) -> bytes:
    """Send bytes and return all that comes back until the server closes.

    We say that nothing more comes at once, or when nothing has come for a while.

    Raises:
        TimeoutError: the server does not close.
    """
    received = bytearray()
    with socket.create_connection(address, HANGS_SECONDS) as client:
        try:
            client.sendall(data)
            if not half_closes:
                client.settimeout(SILENT_SECONDS)
                with suppress(TimeoutError):
                    while more := client.recv(1 << 16):
                        received += more
                    return bytes(received)
                client.settimeout(HANGS_SECONDS)
            client.shutdown(socket.SHUT_WR)
            while more := client.recv(1 << 16):
                received += more
        except TimeoutError:
            raise
        except OSError:
            pass  # it was closed while we still had something to say
    return bytes(received)


def parse_replies(data: bytes) -> list[Reply]:
    """Split what came back into answers.

    Raises:
        ValueError: it is something else.
    """
    replies = []
    while data:
        match = _HEAD.match(data)
        if match is None:
            raise ValueError(f"not an answer: {data[:80]!r}")
        lines = match[2].decode().splitlines()
        headers = {k.lower(): v for k, _, v in (line.partition(": ") for line in lines)}
        data = data[match.end() :]
        status = int(match[1])
        if status not in _BARE and "content-length" not in headers:
            raise ValueError(f"without length: {match[0]!r}")
        length = int(headers.get("content-length", 0))
        if data.startswith(b"HTTP/1.1 "):  # of HEAD
            length = 0
        replies.append(Reply(status, headers, data[:length]))
        data = data[length:]
    return replies


def objection(reply: Reply) -> str | None:
    """Return what is wrong with an answer, whatever was asked."""
    if CANARY in reply.body or any("zq7" in value for value in reply.headers.values()):
        return f"it shows what was sent: {reply}"
    if reply.status == 200:
        fits = bool(_PAGES.fullmatch(reply.body))
    else:
        text = reply.body.decode().removesuffix("\n")
        fits = bool(re.fullmatch(_REFUSALS.get(reply.status, "(?!)"), text) or not text)
    return (
        None if fits else f"nothing that is documented: {reply.status} {reply.body!r}"
    )


def is_request(data: bytes) -> bool:
    """Tell whether bytes begin with the head of a request that may be answered 200."""
    data = data.lstrip(b"\r\n")
    head = re.split(rb"\r?\n\r?\n", data, maxsplit=1)[0]
    line, *headers = re.split(rb"\r?\n", head)
    words = line.rstrip(b"\r").split(b" ")
    if len(words) != 3 or words[0] not in (b"GET", b"HEAD"):
        return False
    if not re.fullmatch(rb"HTTP/1\.\d", words[2]):
        return False
    return all(_is_header(header) for header in headers)


def _is_header(line: bytes) -> bool:
    name, colon, value = line.partition(b":")
    has_name = bool(name) and all(byte in _TOKEN for byte in name)
    return has_name and bool(colon) and not any(byte in value for byte in b"\0\r\n")
