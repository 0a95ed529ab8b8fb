"""A scraper: the bytes of a page, and how long they took."""

import gzip
import ssl
import time
from collections.abc import Mapping
from http.client import HTTPConnection, HTTPSConnection
from typing import NamedTuple, Self

TIMEOUT_SECONDS = 600.0  # a peer may take long; it is measured, not cut off
TEXT: Mapping[str, str] = {"Accept": "text/plain;version=0.0.4"}
PROMETHEUS: Mapping[str, str] = {  # as 2.42 and 3.5 send it, but for the user agent
    "Accept": "application/openmetrics-text;version=1.0.0;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2",
    "Accept-Encoding": "gzip",
    "X-Prometheus-Scrape-Timeout-Seconds": "10",
}


class Answer(NamedTuple):
    """What came back, and when; unpacking it is not counted."""

    status: int
    seconds: float
    text: str


class Client:
    """One scraper of one page, on one kept connection."""

    def __init__(
        self,
        port: int,
        target: str = "/metrics",
        headers: Mapping[str, str] = PROMETHEUS,
        tls: ssl.SSLContext | None = None,
    ) -> None:
        self._target, self._headers = target, dict(headers)
        self._connection = HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_SECONDS)
        if tls:
            self._connection = HTTPSConnection("127.0.0.1", port, context=tls)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def get(self) -> Answer:
        """Get the page once; on a new connection, connecting counts."""
        started = time.perf_counter()
        self._connection.request("GET", self._target, headers=self._headers)
        answer = self._connection.getresponse()
        body = answer.read()
        seconds = time.perf_counter() - started
        if answer.getheader("Content-Encoding") == "gzip":
            body = gzip.decompress(body)
        return Answer(answer.status, seconds, body.decode())

    def page(self) -> Answer:
        """Get the page once; nothing but 200 will do."""
        answer = self.get()
        assert answer.status == 200, answer
        return answer

    def timed(self, times: int) -> list[float]:
        """Return the seconds of each of so many pages."""
        return [self.page().seconds for _ in range(times)]
