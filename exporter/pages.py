"""What each path answers.

Nothing here knows of sockets: a request comes in, a response goes out.
"""

import gzip
import logging
import sys
import threading
from copy import copy
from html import escape
from http import HTTPStatus
from typing import Protocol
from urllib.parse import parse_qs

from prometheus_client.core import Metric
from prometheus_client.registry import Collector

from exporter import __version__
from exporter.http_connection import Request, Response
from exporter.negotiation import (
    accepts_gzip,
    budget_seconds,
    choose_format,
)

GZIP_LEVEL = 1  # a page of 50 kB: 0.1 ms and 8.4 kB; level 9: 1.7 ms and 6.9 kB

_TIMEOUT_HEADER = "x-prometheus-scrape-timeout-seconds"
_QUERY_FIELDS_LIMIT = 1000
_LANDING_PAGE = """<!DOCTYPE html>
<html lang="en">
<head><meta charset="utf-8"><title>HAK/GAL exporter</title></head>
<body>
<h1>HAK/GAL exporter</h1>
<p>Version {version}</p>
<ul>
<li><a href="{telemetry_path}">Metrics</a></li>
<li><a href="/-/healthy">Health</a></li>
<li><a href="/-/ready">Readiness</a></li>
</ul>
</body>
</html>
"""
_HTML_HEADERS = {
    "Content-Type": "text/html; charset=utf-8",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
}

logger = logging.getLogger(__name__)


class Source(Protocol):
    """What the exporter serves."""

    collector_names: frozenset[str]

    def collect(self, budget_seconds: float, names: frozenset[str]) -> list[Metric]:
        """Return the families of these collectors, made within the budget."""

    def not_ready(self) -> str | None:
        """Return why the source is not ready yet, or None."""


class Pages:
    """The pages that show a source."""

    def __init__(self, source: Source, telemetry_path: str, max_requests: int) -> None:
        self._source = source
        self._telemetry_path = telemetry_path
        self._max_requests = max_requests
        self._slots = threading.BoundedSemaphore(max_requests or sys.maxsize)
        self._is_failing = False

    def answer(self, request: Request) -> Response:
        """Answer a request, whatever happens."""
        if request.method not in ("GET", "HEAD"):
            refusal = plain_text(HTTPStatus.METHOD_NOT_ALLOWED, "use GET or HEAD")
            return refusal._replace(headers=refusal.headers | {"Allow": "GET, HEAD"})
        try:
            return self._route(request)
        # A fault outside the collectors, which scrape.py isolates, costs one answer
        # and not the server; the client learns nothing of it.
        except Exception:
            self._log_failure(request.path)
            message = "internal error, the exporter's log has the details"
            return plain_text(HTTPStatus.INTERNAL_SERVER_ERROR, message)

    def _route(self, request: Request) -> Response:
        match request.path:
            case self._telemetry_path:
                return self._metrics(request)
            case "/-/healthy":
                return plain_text(HTTPStatus.OK, "HAK/GAL exporter is healthy.")
            case "/-/ready":
                return self._readiness()
            case "/":
                return self._landing_page()
        return plain_text(HTTPStatus.NOT_FOUND, "not found")

    def _readiness(self) -> Response:
        reason = self._source.not_ready()
        if reason is None:
            return plain_text(HTTPStatus.OK, "HAK/GAL exporter is ready.")
        return plain_text(HTTPStatus.SERVICE_UNAVAILABLE, reason)

    def _landing_page(self) -> Response:
        page = _LANDING_PAGE.format(
            version=escape(__version__), telemetry_path=escape(self._telemetry_path)
        )
        return Response(HTTPStatus.OK, page.encode(), _HTML_HEADERS)

    def _metrics(self, request: Request) -> Response:
        try:
            names, collectors = _parse_query(request.query)
        except ValueError:
            return plain_text(HTTPStatus.BAD_REQUEST, "malformed query")
        valid = self._source.collector_names
        if not collectors <= valid:
            message = f"unknown collector; there are: {', '.join(sorted(valid))}"
            return plain_text(HTTPStatus.BAD_REQUEST, message)
        if not self._slots.acquire(blocking=False):
            message = f"limit of {self._max_requests} concurrent requests reached"
            return plain_text(HTTPStatus.SERVICE_UNAVAILABLE, message)
        try:
            return self._exposition(request.headers, names, collectors or valid)
        finally:
            self._slots.release()

    def _exposition(
        self, asked: dict[str, str], names: list[str], collectors: frozenset[str]
    ) -> Response:
        form = choose_format(asked.get("accept", ""))
        is_gzip = accepts_gzip(asked.get("accept-encoding", ""))
        budget = budget_seconds(asked.get(_TIMEOUT_HEADER, ""))
        families = self._source.collect(budget, collectors)
        body = form.generate(_Families(_named(families, names) if names else families))
        headers = {
            "Content-Type": form.content_type,
            "Vary": "Accept, Accept-Encoding",
        }
        if is_gzip:
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
            headers["Content-Encoding"] = "gzip"
        self._log_recovery()
        return Response(HTTPStatus.OK, body, headers)

    def _log_failure(self, path: str) -> None:
        if not self._is_failing:
            logger.exception("request failed", extra={"fields": {"path": path}})
        self._is_failing = True

    def _log_recovery(self) -> None:
        if self._is_failing:
            logger.info("requests succeed again")
        self._is_failing = False


class _Families(Collector):
    """Families for the library's writers."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> list[Metric]:
        return self._families


def _named(families: list[Metric], names: list[str]) -> list[Metric]:
    """Return what was asked for by the names of samples, as the library does."""
    asked_for = [copy(family) for family in families]
    for family in asked_for:
        family.samples = [one for one in family.samples if one.name in names]
    return [family for family in asked_for if family.samples]


def plain_text(status: HTTPStatus, message: str) -> Response:
    """Return one line of text as an answer."""
    headers = {"Content-Type": "text/plain; charset=utf-8"}
    return Response(status, f"{message}\n".encode(), headers)


def _parse_query(query: str) -> tuple[list[str], frozenset[str]]:
    """Return what ``name[]`` and ``collect[]`` ask for; empty means everything."""
    if not query:
        return [], frozenset()
    fields = parse_qs(
        query,
        keep_blank_values=True,
        strict_parsing=True,
        errors="strict",
        max_num_fields=_QUERY_FIELDS_LIMIT,
    )
    return fields.get("name[]", []), frozenset(fields.get("collect[]", []))
