"""A source to serve, a server around it, and a client that sends raw bytes."""

import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple, Self, cast

from prometheus_client import CollectorRegistry, Gauge, Histogram
from prometheus_client.core import Metric

from exporter.scrape import Exporter
from exporter.web import Server
from exporter.web.access import Access
from exporter.web.pages import Pages

WAIT_SECONDS = 30.0  # nothing here takes that long unless it is broken


class Answer(NamedTuple):
    """An HTTP answer; header names are in lower case."""

    status: int
    headers: dict[str, str]
    body: bytes


class FakeSource:
    """Two families; calls can be held up, and fail."""

    collector_names = frozenset({"facts", "queries"})

    def __init__(self) -> None:
        self.calls: list[tuple[float, frozenset[str]]] = []
        self.entered = threading.Semaphore(0)
        self.gate = threading.Event()
        self.gate.set()
        self.error: Exception | None = None
        self.reason: str | None = None
        self.help_text = "Facts."

    def collect(self, budget_seconds: float, names: frozenset[str]) -> list[Metric]:
        self.calls.append((budget_seconds, names))
        self.entered.release()
        assert self.gate.wait(WAIT_SECONDS)
        if self.error is not None:
            raise self.error
        registry = CollectorRegistry()
        Gauge("facts", self.help_text, registry=registry).set(7)
        Histogram("latency_seconds", "Latency.", registry=registry).observe(
            0.3, {"query_id": "11"}
        )
        return list(registry.collect())

    def not_ready(self) -> str | None:
        return self.reason

    def wait_until_entered(self, count: int = 1) -> None:
        """Wait until so many requests are being served."""
        for _ in range(count):
            assert self.entered.acquire(timeout=WAIT_SECONDS)


class Client:
    """A connection to a server."""

    def __init__(
        self,
        address: tuple[str, int],
        tls: ssl.SSLContext | None = None,
        *,
        seconds: float = WAIT_SECONDS,
        source: str = "",
    ) -> None:
        """Connect, from another of our own addresses if need be."""
        here = (source, 0) if source else None
        self.socket = socket.create_connection(address, seconds, here)
        if tls:
            try:
                self.socket = tls.wrap_socket(self.socket, server_hostname=address[0])
            except OSError:
                self.socket.close()
                raise
        self._reader = self.socket.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reader.close()
        self.socket.close()

    def send(self, data: bytes) -> None:
        self.socket.sendall(data)

    def read_answer(self, *, with_body: bool = True) -> Answer:
        """Read one answer; the connection stays usable."""
        version, status, _ = self._reader.readline().decode().split(" ", 2)
        assert version == "HTTP/1.1"
        headers: dict[str, str] = {}
        while line := self._reader.readline().decode().rstrip("\r\n"):
            name, _, value = line.partition(": ")
            headers[name.lower()] = value
        length = int(headers.get("content-length", 0)) if with_body else 0
        return Answer(int(status), headers, self._reader.read(length))

    def get(self, target: str = "/metrics", **headers: str) -> Answer:
        return self.request("GET", target, **headers)

    def request(self, method: str, target: str, **headers: str) -> Answer:
        """Send a request; ``accept_encoding="x"`` sends ``accept-encoding: x``."""
        lines = [f"{method} {target} HTTP/1.1", "Host: test"]
        lines += [f"{k.replace('_', '-')}: {v}" for k, v in headers.items()]
        self.send("\r\n".join([*lines, "", ""]).encode("latin-1"))
        return self.read_answer(with_body=method != "HEAD")

    def is_closed(self, within_seconds: float = WAIT_SECONDS) -> bool:
        """Tell whether the server ends the connection, without another byte."""
        self.socket.settimeout(within_seconds)
        try:
            return self.socket.recv(1) == b""
        except TimeoutError:
            return False
        except (ConnectionError, ssl.SSLError):
            return True
        finally:
            self.socket.settimeout(WAIT_SECONDS)


def make_server(
    source: FakeSource | Exporter,
    telemetry_path: str = "/metrics",
    max_requests: int = 40,
    access: Access | None = None,
    **limits: float,
) -> Server:
    """Return a server that listens; ``limits`` are attributes of it."""
    pages = Pages(cast(Exporter, source), telemetry_path, max_requests)
    server = Server(pages, ["127.0.0.1:0"], access)
    for name, value in limits.items():
        setattr(server, name, value)
    return server


@contextmanager
def serving(source: FakeSource | Exporter, **options: Any) -> Iterator[tuple[str, int]]:
    """Serve a source on a loopback port; ``options`` as of ``make_server``."""
    server = make_server(source, **options)
    server.start()
    try:
        yield server.addresses[0]
    finally:
        if isinstance(source, FakeSource):
            source.gate.set()
        server.stop()
