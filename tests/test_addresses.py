"""Listen addresses, as text and as sockets."""

import os
import socket
from contextlib import suppress
from pathlib import Path

import pytest

from exporter.addresses import SEND_BUFFER_BYTES, listen_on_all, parse_address
from exporter.errors import ServerError

TOO_MUCH_BYTES = 1_000_000  # without a limit it is 2.5 MB
_FIRST_OPEN_PORT = Path("/proc/sys/net/ipv4/ip_unprivileged_port_start")


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":8000", ("", 8000)),
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("[::1]:8000", ("::1", 8000)),
        ("[::]:0", ("::", 0)),
        ("[fe80::1%eth0]:8000", ("fe80::1%eth0", 8000)),
        ("localhost:65535", ("localhost", 65535)),
    ],
)
def test_address_is_split(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "8000",
        "localhost",
        "localhost:",
        ":http",
        "::1:8000",
        "[::1]",
        "[]:8000",
        ":-1",
        ":+1",
        ":8_0",
        ":\u0663",
        "http://localhost:8000",
        "localhost:8000/metrics",
        "a b:8000",
        " :8000",
        ":8000\n",
    ],
)
def test_malformed_address_is_named(text: str) -> None:
    with pytest.raises(ValueError, match="is not a listen address: write :PORT"):
        parse_address(text)


def test_port_above_the_highest_is_an_error() -> None:
    with pytest.raises(ValueError, match="above 65535"):
        parse_address(":65536")


def _connects(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=5).close()
    except OSError:
        return False
    return True


@pytest.mark.parametrize("address", [":0", "[::]:0"])
def test_all_interfaces_means_both_families(address: str) -> None:
    [listener] = listen_on_all([address])
    with listener:
        port = listener.getsockname()[1]
        assert _connects("127.0.0.1", port)
        assert _connects("::1", port) or not socket.has_dualstack_ipv6()


def test_all_interfaces_means_ipv4_where_ipv6_is_missing(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(socket, "has_dualstack_ipv6", lambda: False)
    [listener] = listen_on_all([":0"])
    with listener:
        assert listener.getsockname()[0] == "0.0.0.0"


@pytest.mark.skipif(not socket.has_dualstack_ipv6(), reason="needs IPv6")
def test_ipv6_address_is_not_reached_by_ipv4() -> None:
    [listener] = listen_on_all(["[::1]:0"])
    with listener:
        port = listener.getsockname()[1]
        assert _connects("::1", port)
        assert not _connects("127.0.0.1", port)


def test_localhost_is_ipv4() -> None:
    [listener] = listen_on_all(["localhost:0"])
    with listener:
        assert listener.getsockname()[0] == "127.0.0.1"


def test_port_in_use_is_one_clear_line_and_frees_the_others() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        first = socket.create_server(("127.0.0.1", 0))
        free_port = first.getsockname()[1]
        first.close()
        taken_port = taken.getsockname()[1]
        with pytest.raises(ServerError) as error:
            listen_on_all([f"127.0.0.1:{free_port}", f"127.0.0.1:{taken_port}"])
        assert str(error.value) == (
            f"cannot listen on 127.0.0.1:{taken_port}: "
            "the port is in use: stop its user or choose another port"
        )
        assert not _connects("127.0.0.1", free_port)


@pytest.mark.parametrize(
    ("address", "reason"),
    [
        ("192.0.2.1:8000", "no network interface of this machine has that address"),
        ("name with space:1", "is not a listen address"),
        ("[zz]:8000", "the host is unknown"),
        (f"{'x' * 70}:8000", "label too long"),
    ],
    ids=["foreign", "malformed", "unknown-host", "not-a-host-name"],
)
def test_unusable_address_is_one_clear_line(address: str, reason: str) -> None:
    with pytest.raises(ServerError, match=reason) as error:
        listen_on_all([address])
    assert str(error.value).startswith(f"cannot listen on {address}: ")
    assert "\n" not in str(error.value)


@pytest.mark.skipif(
    int(_FIRST_OPEN_PORT.read_text()) <= 80, reason="no port needs a privilege here"
)
def test_privileged_port_is_one_clear_line() -> None:
    user = os.geteuid()
    if user == 0:
        os.seteuid(65534)
    try:
        with pytest.raises(ServerError, match="choose a port above 1023"):
            listen_on_all(["127.0.0.1:80"])
    finally:
        os.seteuid(user)


def test_client_that_does_not_read_costs_little_memory() -> None:
    [listener] = listen_on_all(["127.0.0.1:0"])
    with listener, socket.create_connection(listener.getsockname()) as client:
        accepted, _ = listener.accept()
        with accepted:
            size = accepted.getsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF)
            assert size <= 2 * SEND_BUFFER_BYTES
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            accepted.setblocking(False)
            sent = 0
            with suppress(BlockingIOError):
                while sent < TOO_MUCH_BYTES:
                    sent += accepted.send(bytes(1000))
    assert sent < TOO_MUCH_BYTES
