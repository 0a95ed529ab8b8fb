"""The command ``healthcheck`` against an exporter that is protected."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from exporter.commands.healthcheck import ask_health
from exporter.web.access import Access
from tests.clients import FakeSource, serving
from tests.exporters import Command, file_flags, run
from tests.servers import Processes
from tests.webs import CLIENTS, TLS, Web, users


@pytest.mark.parametrize(
    "text",
    [
        pytest.param("", id="nothing"),
        pytest.param(users(alice="a"), id="users"),
        pytest.param(TLS, id="TLS"),
        pytest.param(TLS + users(alice="a"), id="TLS and users"),
        pytest.param(CLIENTS, id="client certificates"),
    ],
)
def test_protected_exporter_is_healthy(text: str, web: Web) -> None:
    path = web.write(text)
    with serving(FakeSource(), access=Access(path)) as (host, port):
        for _ in range(20):  # its alert has to arrive each time
            assert ask_health(f"{host}:{port}", path) is None


def test_web_configuration_file_is_the_exporters(
    processes: Processes, folder: Path, free_port: int
) -> None:
    web = f"--web.config.file={Web(folder).write(TLS)}"
    command = Command(processes, free_port, *file_flags(folder), web).start()

    done = run("healthcheck", *command.flags)
    without = run("healthcheck", command.flags[-1])

    assert (done.returncode, done.stdout) == (0, "healthy\n")
    assert without.returncode == 1
    assert without.stderr.startswith("not healthy: nothing answers on ")


@contextmanager
def somebody_else(answer: str) -> Iterator[str]:
    """Give one caller an answer; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(answer.encode())

        thread = threading.Thread(target=serve)
        thread.start()
        yield "{}:{}".format(*listener.getsockname())
        thread.join()


@pytest.mark.parametrize(
    ("server", "status"),
    [
        ("other", "200 OK"),
        ("other", "401 Unauthorized"),
        ("hakgal-exporter", "500 Oops"),
    ],
)
def test_who_fails_or_is_somebody_else_is_not_healthy(server: str, status: str) -> None:
    answer = f"HTTP/1.1 {status}\r\nServer: {server}\r\nContent-Length: 0\r\n\r\n"
    with somebody_else(answer) as address:
        problem = ask_health(address, None)
    assert problem == f"not healthy: {address} answers {status}"


def test_who_speaks_no_tls_where_it_is_wanted_is_not_healthy(
    web: Web, taken_port: int
) -> None:
    problem = ask_health(f"127.0.0.1:{taken_port}", web.write(TLS))
    assert problem
    assert problem.startswith("not healthy: nothing answers on 127.0.0.1:")
