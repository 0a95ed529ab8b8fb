"""The command ``healthcheck`` asks an exporter, protected or not, or somebody else."""

import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from exporter.commands.healthcheck import ask_health
from exporter.web.access import Access
from tests.clients import FakeSource, serving
from tests.exporters import Command, file_flags, run
from tests.servers import Processes
from tests.webs import CLIENTS, TLS, Web, users


@pytest.mark.parametrize("text", ["", users(alice="a"), TLS, CLIENTS], ids=range(4))
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
    before = run("healthcheck", address, web)
    Command(processes, free_port, *file_flags(folder), web).start()
    done = run("healthcheck", address, web)

    refused = f"nothing answers on :{free_port} ([Errno 111] Connection refused)"
    assert (before.returncode, before.stdout) == (1, "")
    assert before.stderr == f"not healthy: {refused}\n"
    assert (done.returncode, done.stdout, done.stderr) == (0, "healthy\n", "")


@pytest.mark.parametrize(
    ("server", "status"), [("other", "200 OK"), ("hakgal-exporter", "500 Oops")]
)
def test_who_fails_or_is_somebody_else_is_not_healthy(server: str, status: str) -> None:
    answer = f"HTTP/1.1 {status}\r\nServer: {server}\r\n\r\n".encode()
    with (
        socket.create_server(("127.0.0.1", 0)) as listener,
        ThreadPoolExecutor() as pool,
    ):
        address = "{}:{}".format(*listener.getsockname())
        asked = pool.submit(ask_health, address, None)
        with listener.accept()[0] as client:
            client.recv(1000)
            client.sendall(answer)
        assert asked.result() == f"not healthy: {address} answers {status}"


def test_who_hangs_up_is_not_healthy(web: Web, taken_port: int) -> None:
    for path in (None, web.write(TLS)):
        problem = ask_health(f"127.0.0.1:{taken_port}", path)
        assert (problem or "").startswith("not healthy: nothing answers on 127.0.0.1:")
