"""Answer requests, by path."""

import asyncio
import gzip
from _thread import start_new_thread
from collections.abc import Callable
from concurrent.futures import Future
from contextlib import suppress
from copy import copy
from functools import partial
from html import escape
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, NamedTuple

from prometheus_client import exposition
from prometheus_client.core import Metric
from prometheus_client.openmetrics import exposition as openmetrics
from tornado.httputil import HTTPHeaders, HTTPServerRequest

from exporter import __version__
from exporter.errors import ExporterError
from exporter.scrape import Exporter
from exporter.scrape.worker import Failures, Outcome, isolate

GZIP_LEVEL = 1  # a page of 50 kB: 0.1 ms and 8.4 kB; level 9: 1.7 ms and 6.9 kB
DEFAULT_TIMEOUT_SECONDS = 10.0  # Prometheus' own default scrape timeout
LONGEST_BUDGET_SECONDS = 60.0  # no scrape should read a database for longer
LEAST_BUDGET_SECONDS = 0.5  # with less, every collector would fail
OFFSET_SECONDS = 0.5  # to write, compress and send the page

_LANDING_PAGE = """<!DOCTYPE html>
<html lang="en"><head><meta charset="utf-8"><title>HAK/GAL exporter</title></head><body>
<h1>HAK/GAL exporter {version}</h1>
<ul><li><a href="{metrics}">Metrics</a></li><li><a href="-/healthy">Health</a></li>
<li><a href="-/ready">Readiness</a></li></ul></body></html>
"""
_HTML = {"Content-Type": "text/html; charset=utf-8"}
Headers = dict[str, str]


class Response(NamedTuple):
    """A response, without the headers that the server adds."""

    status: HTTPStatus
    body: bytes
    headers: Headers


class Pages:
    """The pages of a source; ``max_requests`` 0 means no limit."""

    def __init__(self, source: Exporter, path: str, max_requests: int) -> None:
        self._source, self._telemetry_path = source, path
        self._max_requests, self._running = max_requests, 0
        self._failures = Failures()

    async def answer(self, request: HTTPServerRequest) -> Response:
        """Answer a request, with status 500 after an unexpected error."""
        try:
            return await self._route(request)
        except Exception as error:  # outside the collectors; lose one answer
            self._failures.note("request", error)
            message = "internal error; see the exporter's log"
            return plain_text(HTTPStatus.INTERNAL_SERVER_ERROR, message)

    async def _route(self, request: HTTPServerRequest) -> Response:
        if request.method not in ("GET", "HEAD"):
            allow = {"Allow": "GET, HEAD"}
            return plain_text(HTTPStatus.METHOD_NOT_ALLOWED, "use GET or HEAD", allow)
        match request.path:
            case self._telemetry_path:
                return await self._metrics(request)
            case "/-/healthy":
                return plain_text(HTTPStatus.OK, "HAK/GAL exporter is healthy.")
            case "/-/ready":
                if reason := self._source.not_ready():
                    return plain_text(HTTPStatus.SERVICE_UNAVAILABLE, reason)
                return plain_text(HTTPStatus.OK, "HAK/GAL exporter is ready.")
            case "/":
                metrics = escape(self._telemetry_path.removeprefix("/"))
                page = _LANDING_PAGE.format(version=__version__, metrics=metrics)
                return Response(HTTPStatus.OK, page.encode(), _HTML)
        return plain_text(HTTPStatus.NOT_FOUND, "not found")

    async def _metrics(self, request: HTTPServerRequest) -> Response:
        query = request.query_arguments
        names = {n.decode(errors="replace") for n in query.get("name[]", ())}
        collectors = {n.decode(errors="replace") for n in query.get("collect[]", ())}
        valid = self._source.collector_names
        if not collectors <= valid:
            message = f"unknown collector; use: {', '.join(sorted(valid))}"
            return plain_text(HTTPStatus.BAD_REQUEST, message)
        if self._running >= self._max_requests > 0:
            message = f"limit of {self._max_requests} concurrent requests reached"
            return plain_text(HTTPStatus.SERVICE_UNAVAILABLE, message)
        self._running += 1
        try:
            asked = request.headers, names, frozenset(collectors) or valid
            outcome = await in_thread(self._exposition, *asked)
        finally:
            self._running -= 1
        if outcome.error:
            raise outcome.error
        self._failures.note("request", None)
        return outcome.result  # type: ignore[no-any-return]

    def _exposition(
        self, asked: HTTPHeaders, names: set[str], collectors: frozenset[str]
    ) -> Response:
        generate, content_type = choose_format(asked.get("Accept", ""))
        budget = budget_seconds(asked.get("X-Prometheus-Scrape-Timeout-Seconds", ""))
        families = self._source.collect(budget, collectors)
        shown = _named(families, names) if names else families
        body = generate(SimpleNamespace(collect=lambda: shown))
        headers = {"Content-Type": content_type, "Vary": "Accept, Accept-Encoding"}
        if exposition.gzip_accepted(asked.get("Accept-Encoding", "")):
            body = gzip.compress(body, GZIP_LEVEL, mtime=0)
            headers["Content-Encoding"] = "gzip"
        return Response(HTTPStatus.OK, body, headers)


def plain_text(status: HTTPStatus, line: str, more: Headers | None = None) -> Response:
    """Return a response with one line of text, and more headers."""
    headers = {"Content-Type": "text/plain; charset=utf-8"} | (more or {})
    return Response(status, f"{line}\n".encode(), headers)


async def in_thread(call: Callable[..., object], *arguments: Any) -> Outcome:
    """Return a call's outcome; its daemon thread does not block the exit."""
    future = Future[Outcome]()
    future.set_running_or_notify_cancel()  # the caller may give up, the call goes on

    def run() -> None:
        future.set_result(isolate(call, *arguments))

    try:
        start_new_thread(run, ())  # Thread.start waits for ever if memory is short
    except (RuntimeError, MemoryError) as error:  # no more threads possible
        return Outcome(None, ExporterError(str(error)))
    return await asyncio.wrap_future(future)


def choose_format(accept: str) -> tuple[Callable[[Any], bytes], str]:
    """Return the writer and the content type for an Accept header."""
    try:
        generate, content_type = exposition.choose_encoder(accept)
    except TypeError:  # raised for a version such as x.y
        return exposition.generate_latest, exposition.CONTENT_TYPE_PLAIN_0_0_4
    if content_type.startswith("application/openmetrics-text"):
        # Our names need no escaping; checking for that would double the time.
        generate = partial(openmetrics.generate_latest, escaping=openmetrics.ALLOWUTF8)
    return generate, content_type


def budget_seconds(scrape_timeout: str) -> float:
    """Return the time budget of a scrape, from Prometheus' timeout header."""
    timeout = 0.0
    with suppress(ValueError):
        timeout = float(scrape_timeout)
    timeout = timeout if timeout > 0.0 else DEFAULT_TIMEOUT_SECONDS
    budget = max(timeout - OFFSET_SECONDS, timeout / 2, LEAST_BUDGET_SECONDS)
    return min(budget, LONGEST_BUDGET_SECONDS)


def _named(families: list[Metric], names: set[str]) -> list[Metric]:
    """Return the samples with these names, as prometheus_client does."""
    asked_for = [copy(family) for family in families]
    for family in asked_for:
        family.samples = [one for one in family.samples if one.name in names]
    return [family for family in asked_for if family.samples]
