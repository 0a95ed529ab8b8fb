"""The command ``healthcheck`` against an exporter that is protected."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exporter.guard import Guard
from exporter.health import ask_health
from tests.clients import FakeSource, serving
from tests.exporters import Command, file_flags, run
from tests.servers import Processes, find_free_port
from tests.webs import CLIENTS, TLS, Web, users

PROTECTED = {
    "nothing": "",
    "users": users(alice="a"),
    "TLS": TLS,
    "TLS and users": TLS + users(alice="a"),
    "client certificates": CLIENTS,
    "client certificates in TLS 1.2": CLIENTS + "  max_version: TLS12\n",
}


@pytest.mark.parametrize("text", PROTECTED.values(), ids=[*PROTECTED])
def test_protected_exporter_is_healthy(text: str, web: Web) -> None:
    with serving(FakeSource(), guard=Guard(web.write(text))) as (host, port):
        assert ask_health(f"{host}:{port}") is None


def test_healthcheck_needs_to_know_nothing_of_the_protection(
    processes: Processes, folder: Path
) -> None:
    flags = [*file_flags(folder), f"--web.config.file={Web(folder).write(TLS)}"]
    command = Command(processes, find_free_port(), *flags)
    command.start()

    done = run("healthcheck", command.flags[-1])

    assert (done.returncode, done.stdout) == (0, "healthy\n")


@contextmanager
def somebody_else(*answers: bytes) -> Iterator[str]:
    """Give each caller an answer; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            for answer in answers:
                client, _ = listener.accept()
                with client:
                    client.recv(1000)
                    client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield "{}:{}".format(*listener.getsockname())
        thread.join()


@pytest.mark.parametrize(
    "status", ["401 Unauthorized", "200 OK", "400 Bad Request", "503 Unavailable"]
)
def test_somebody_else_is_not_healthy(status: str) -> None:
    answer = f"HTTP/1.1 {status}\r\nServer: other\r\nContent-Length: 0\r\n\r\n"
    with somebody_else(answer.encode()) as address:
        problem = ask_health(address)
    assert problem == f"not healthy: {address} answers {status}"


def test_exporter_that_fails_is_not_healthy() -> None:
    head = "HTTP/1.1 500 Oops\r\nServer: hakgal-exporter\r\nContent-Length: 0\r\n\r\n"
    with somebody_else(head.encode()) as address:
        assert ask_health(address) == f"not healthy: {address} answers 500 Oops"


@pytest.mark.parametrize("server", ["other", "hakgal-exporter"])
def test_whoever_wants_tls_has_to_speak_it(server: str) -> None:
    body = "client sent an HTTP request to an HTTPS server\n"
    head = f"HTTP/1.1 400 Bad Request\r\nServer: {server}\r\n"
    head += f"Content-Length: {len(body)}\r\n\r\n"
    is_ours = server == "hakgal-exporter"
    answers = [(head + body).encode(), *([b"no TLS"] if is_ours else [])]
    with somebody_else(*answers) as address:
        problem = ask_health(address)
    assert problem
    expected = (
        f"nothing answers on {address} (" if is_ours else f"{address} answers 400"
    )
    assert problem.startswith(f"not healthy: {expected}")
