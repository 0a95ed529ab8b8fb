"""What each path answers, over a real socket."""

import gzip
import logging
from collections.abc import Iterator

import pytest
from prometheus_client import exposition
from prometheus_client.openmetrics import exposition as openmetrics

from exporter import __version__
from tests.clients import Client, FakeSource, serving

OPENMETRICS = "application/openmetrics-text"


@pytest.fixture
def source() -> FakeSource:
    return FakeSource()


@pytest.fixture
def client(source: FakeSource) -> Iterator[Client]:
    with serving(source) as address, Client(address) as client:
        yield client


def test_metrics_are_the_librarys_text(source: FakeSource, client: Client) -> None:
    answer = client.get()
    assert answer.status == 200
    assert answer.headers["content-type"] == exposition.CONTENT_TYPE_PLAIN_0_0_4
    assert b"\nfacts 7.0\n" in answer.body
    assert b"query_id" not in answer.body


def test_metrics_are_the_librarys_openmetrics(client: Client) -> None:
    answer = client.get(accept=OPENMETRICS)
    assert answer.headers["content-type"] == openmetrics.CONTENT_TYPE_LATEST
    assert b'# {query_id="11"} 0.3' in answer.body
    assert answer.body.endswith(b"# EOF\n")


@pytest.mark.parametrize(
    "accept", ["application/openmetrics-text;version=x", "\xff;=,"]
)
def test_malformed_accept_is_no_error(client: Client, accept: str) -> None:
    answer = client.get(accept=accept)
    assert answer.status == 200
    assert answer.headers["content-type"] == exposition.CONTENT_TYPE_PLAIN_0_0_4


def test_page_is_compressed_on_demand(client: Client) -> None:
    plain = client.get("/metrics?name[]=facts")
    packed = client.get("/metrics?name[]=facts", accept_encoding="gzip")
    assert packed.headers["content-encoding"] == "gzip"
    assert int(packed.headers["content-length"]) == len(packed.body)
    assert packed.body[4:8] == bytes(4)  # no time stamp: equal pages, equal bytes
    assert gzip.decompress(packed.body) == plain.body
    assert "content-encoding" not in plain.headers


@pytest.mark.parametrize("encoding", ["identity", "gzip"])
def test_caches_are_told_what_the_page_depends_on(
    client: Client, encoding: str
) -> None:
    answer = client.get(accept_encoding=encoding)
    assert answer.headers["vary"] == "Accept, Accept-Encoding"


@pytest.mark.parametrize(
    "query",
    ["name[]=facts", "name%5B%5D=facts", "name[]=facts&name[]=none&other=1"],
)
def test_names_restrict_the_page(client: Client, query: str) -> None:
    answer = client.get(f"/metrics?{query}")
    assert b"facts 7.0" in answer.body
    assert b"latency" not in answer.body


def test_repeated_names_add_up(client: Client) -> None:
    answer = client.get("/metrics?name[]=facts&name[]=latency_seconds_sum")
    assert b"facts 7.0" in answer.body
    assert b"latency_seconds_sum 0.3" in answer.body
    assert b"latency_seconds_count" not in answer.body


def test_unknown_name_gives_an_empty_page(client: Client) -> None:
    answer = client.get("/metrics?name[]=none")
    assert (answer.status, answer.body) == (200, b"")


@pytest.mark.parametrize(
    ("query", "collectors"),
    [
        ("", {"facts", "queries"}),
        ("?", {"facts", "queries"}),
        ("?collect[]=facts", {"facts"}),
        ("?collect[]=facts&collect[]=queries", {"facts", "queries"}),
    ],
)
def test_collectors_are_chosen(
    source: FakeSource, client: Client, query: str, collectors: set[str]
) -> None:
    assert client.get(f"/metrics{query}").status == 200
    assert [chosen for _, chosen in source.calls] == [collectors]


@pytest.mark.parametrize("name", ["other", "", "facts%00"])
def test_unknown_collector_is_refused_with_the_valid_ones(
    source: FakeSource, client: Client, name: str
) -> None:
    answer = client.get(f"/metrics?collect[]={name}&collect[]=facts")
    assert answer.status == 400
    assert answer.body == b"unknown collector; there are: facts, queries\n"
    assert source.calls == []


@pytest.mark.parametrize(
    "query", ["name[]", "=&=&x", "name[]=%ff", "a=1&&b=2", "a=1&" * 1001]
)
def test_malformed_query_is_refused(client: Client, query: str) -> None:
    answer = client.get(f"/metrics?{query}")
    assert (answer.status, answer.body) == (400, b"malformed query\n")


def test_budget_comes_from_prometheus_header(
    source: FakeSource, client: Client
) -> None:
    client.get(x_prometheus_scrape_timeout_seconds="4")
    client.get(X_Prometheus_Scrape_Timeout_Seconds="nan")
    budgets = [budget for budget, _ in source.calls]
    assert budgets == pytest.approx([3.5, 9.5], abs=0.1)


def test_healthy_while_not_ready(source: FakeSource, client: Client) -> None:
    source.reason = "the backlog is being read"
    healthy = client.get("/-/healthy")
    assert (healthy.status, healthy.body) == (200, b"HAK/GAL exporter is healthy.\n")
    unready = client.get("/-/ready")
    assert (unready.status, unready.body) == (503, b"the backlog is being read\n")
    source.reason = None
    ready = client.get("/-/ready")
    assert (ready.status, ready.body) == (200, b"HAK/GAL exporter is ready.\n")


def test_landing_page_links_escaped(source: FakeSource) -> None:
    path = '/m"<script>&'
    with serving(source, telemetry_path=path) as address, Client(address) as client:
        answer = client.get("/")
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    assert "default-src 'none'" in answer.headers["content-security-policy"]
    page = answer.body.decode()
    assert f"Version {__version__}" in page
    assert 'href="/m&quot;&lt;script&gt;&amp;"' in page
    assert 'href="/-/ready"' in page
    assert "<script>" not in page


def test_telemetry_path_can_be_the_root(source: FakeSource) -> None:
    with serving(source, telemetry_path="/") as address, Client(address) as client:
        assert b"facts 7.0" in client.get("/").body
        assert client.get("/metrics").status == 404


@pytest.mark.parametrize(
    "target",
    [
        "/metrics/",
        "//metrics",
        "/METRICS",
        "/%6detrics",
        "/metrics#x",
        "/favicon.ico",
        "/-/",
        "metrics",
    ],
)
def test_other_paths_are_not_found(client: Client, target: str) -> None:
    answer = client.get(target)
    assert (answer.status, answer.body) == (404, b"not found\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS", "get", "BREW"])
@pytest.mark.parametrize("target", ["/metrics", "/-/healthy", "/none"])
def test_other_methods_are_not_allowed(
    client: Client, method: str, target: str
) -> None:
    answer = client.request(method, target)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD"


def test_failing_source_is_logged_once_and_leaks_nothing(
    source: FakeSource, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    source.error = RuntimeError("secret path")
    answers = [client.get(), client.get()]
    assert [answer.status for answer in answers] == [500, 500]
    assert b"secret" not in answers[0].body
    [record] = caplog.records
    assert record.levelno == logging.ERROR
    assert record.exc_info is not None
    assert record.getMessage() == "request failed"


def test_server_recovers_with_its_source(
    source: FakeSource, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, logger="exporter.pages")
    source.error = RuntimeError("broken")
    assert client.get().status == 500
    source.error = None
    assert client.get().status == 200
    assert client.get().status == 200
    messages = [r.getMessage() for r in caplog.records if r.name == "exporter.pages"]
    assert messages == ["request failed", "requests succeed again"]


def test_failing_generator_costs_its_answer_only(
    source: FakeSource, client: Client
) -> None:
    source.help_text = None  # type: ignore[assignment]
    assert client.get().status == 500
    assert client.get("/-/healthy").status == 200
