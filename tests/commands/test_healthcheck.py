"""The command ``healthcheck`` asks an exporter, protected or not, or somebody else."""

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
    ["", users(alice="a"), TLS, TLS + users(alice="a"), CLIENTS],
    ids=["nothing", "users", "TLS", "TLS and users", "client certificates"],
)
def test_protected_exporter_is_healthy(text: str, web: Web) -> None:
    path = web.write(text)
    with serving(FakeSource(), access=Access(path)) as (host, port):
        for _ in range(20):  # its alert has to arrive each time
            assert ask_health(f"{host}:{port}", path) is None


def test_command_takes_the_flags_of_the_exporter(
    processes: Processes, folder: Path, free_port: int
) -> None:
    web = f"--web.config.file={Web(folder).write(TLS)}"
    address = f"--web.listen-address=:{free_port}"
    before = run("healthcheck", address)
    Command(processes, free_port, *file_flags(folder), web).start()
    done, plain = run("healthcheck", address, web), run("healthcheck", address)

    nothing = f"not healthy: nothing answers on :{free_port} "
    assert (before.returncode, before.stdout, plain.returncode) == (1, "", 1)
    assert before.stderr == f"{nothing}([Errno 111] Connection refused)\n"
    assert plain.stderr.startswith(nothing)
    assert (done.returncode, done.stdout, done.stderr) == (0, "healthy\n", "")


@contextmanager
def somebody_else(answer: str) -> Iterator[str]:
    """Give one caller an answer; yield the address."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with listener.accept()[0] as client:
                client.recv(1000)
                client.sendall(answer.encode())

        thread = threading.Thread(target=serve)
        thread.start()
        yield "{}:{}".format(*listener.getsockname())
        thread.join()


@pytest.mark.parametrize("server", ["other", "hakgal-exporter"])
@pytest.mark.parametrize("status", ["200 OK", "401 Unauthorized", "500 Oops"])
def test_who_fails_or_is_somebody_else_is_not_healthy(server: str, status: str) -> None:
    with somebody_else(f"HTTP/1.1 {status}\r\nServer: {server}\r\n\r\n") as address:
        problem = ask_health(address, None)
    is_well = server == "hakgal-exporter" and status != "500 Oops"
    assert problem == (None if is_well else f"not healthy: {address} answers {status}")


def test_who_hangs_up_is_not_healthy(web: Web, taken_port: int) -> None:
    for path in (None, web.write(TLS)):
        problem = ask_health(f"127.0.0.1:{taken_port}", path)
        assert problem
        assert problem.startswith("not healthy: nothing answers on 127.0.0.1:")
