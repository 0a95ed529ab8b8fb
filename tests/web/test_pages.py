"""What each path answers, over a real socket."""

import gzip
import logging
from contextlib import ExitStack

import pytest

from exporter import __version__
from tests.clients import Client, FakeSource, serving

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
# Captured from the servers of Debian 12 (2.42.0) and Debian testing (3.5.3); the others
# are in the source of VictoriaMetrics, and what curl and Firefox send.
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,"
    "application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROTOBUF = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
    "encoding=delimited;q=0.6,"
)
PROMETHEUS_3_TEXT_ONLY = (
    "text/plain;version=1.0.0;escaping=underscores;q=0.6,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.4"
)
VICTORIA_METRICS = "text/plain;version=0.0.4;q=1,*/*;q=0.1"
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        pytest.param(PROMETHEUS_2, OPENMETRICS, id="prometheus-2"),
        pytest.param(PROMETHEUS_3, OPENMETRICS, id="prometheus-3"),
        pytest.param(PROTOBUF + PROMETHEUS_3, OPENMETRICS, id="protobuf"),
        pytest.param("application/openmetrics-text", OPENMETRICS, id="no-version"),
        pytest.param(
            PROMETHEUS_3_TEXT_ONLY, TEXT.replace("0.0.4", "1.0.0"), id="text-only"
        ),
        pytest.param(VICTORIA_METRICS, TEXT, id="victoria-metrics"),
        pytest.param("", TEXT, id="none"),
        pytest.param("*/*", TEXT, id="curl"),
        pytest.param(BROWSER, TEXT, id="browser"),
        *(
            pytest.param(f"application/openmetrics-text;version={v}", TEXT, id=v)
            for v in ("x", "x.y", "1.x", "0.0.1", "\xff")
        ),
        *(pytest.param(text, TEXT, id=ascii(text)) for text in (",;=", "\xff;=,", "/")),
    ],
)
def test_format_is_what_the_client_asks_for(
    client: Client, accept: str, content_type: str
) -> None:
    answer = client.get(accept=accept)
    assert answer.status == 200
    assert answer.headers["content-type"].partition("; escaping=")[0] == content_type
    assert b"\nfacts 7.0\n" in answer.body
    is_open_metrics = content_type == OPENMETRICS
    assert (b'# {query_id="11"} 0.3' in answer.body) is is_open_metrics
    assert answer.body.endswith(b"# EOF\n") is is_open_metrics


@pytest.mark.parametrize(
    ("encoding", "is_packed"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("gzip, deflate, br, zstd", True),
        ("", False),
        ("identity", False),
        ("deflate, br", False),
    ],
)
def test_page_is_compressed_on_demand(
    client: Client, encoding: str, is_packed: bool
) -> None:
    plain = client.get("/metrics?name[]=facts")
    answer = client.get("/metrics?name[]=facts", accept_encoding=encoding)
    assert answer.headers["vary"] == "Accept, Accept-Encoding"
    assert answer.headers.get("content-encoding") == ("gzip" if is_packed else None)
    if is_packed:
        assert answer.body[4:8] == bytes(4)  # no time stamp: equal pages, equal bytes
    body = gzip.decompress(answer.body) if is_packed else answer.body
    assert body == plain.body


@pytest.mark.parametrize(
    ("query", "shown"),
    [
        ("name[]=facts", {"facts"}),
        ("name%5B%5D=facts&name[]=none&other=1", {"facts"}),
        ("name[]=facts&name[]=latency_seconds_sum", {"facts", "latency_seconds_sum"}),
        ("name[]=none", set()),
        ("name[]=%ff", set()),
    ],
)
def test_names_restrict_the_page(client: Client, query: str, shown: set[str]) -> None:
    answer = client.get(f"/metrics?{query}")
    lines = answer.body.decode().splitlines()
    assert answer.status == 200
    assert {line.split()[0] for line in lines if line[0] != "#"} == shown


@pytest.mark.parametrize(
    ("query", "collectors"),
    [
        ("", {"facts", "queries"}),
        ("?", {"facts", "queries"}),
        ("?=&=&x&&" + "a=1&" * 99, {"facts", "queries"}),
        ("?collect[]=facts", {"facts"}),
        ("?collect[]=facts&collect[]=queries", {"facts", "queries"}),
    ],
    ids=lambda value: value[:40] if isinstance(value, str) else "",
)
def test_collectors_are_chosen(
    source: FakeSource, client: Client, query: str, collectors: set[str]
) -> None:
    assert client.get(f"/metrics{query}").status == 200
    assert [chosen for _, chosen in source.calls] == [collectors]


@pytest.mark.parametrize("name", ["other", "", "facts%00", "%ff"])
def test_unknown_collector_is_refused_with_the_valid_ones(
    source: FakeSource, client: Client, name: str
) -> None:
    answer = client.get(f"/metrics?collect[]={name}&collect[]=facts")
    assert answer.status == 400
    assert answer.body == b"unknown collector; there are: facts, queries\n"
    assert source.calls == []


@pytest.mark.parametrize(
    ("scrape_timeout", "budget"),
    [
        ("10", 9.5),
        ("1.2", 0.7),
        ("0.01", 0.5),  # with less, all would fail
        ("60.5", 60.0),
        ("3600", 60.0),
        ("inf", 60.0),
        *((text, 9.5) for text in ("", "abc", "0", "-5", "nan", "10s")),
    ],
)
def test_budget_leaves_time_to_answer(
    source: FakeSource, client: Client, scrape_timeout: str, budget: float
) -> None:
    client.get(X_Prometheus_Scrape_Timeout_Seconds=scrape_timeout)
    assert source.calls[0][0] == pytest.approx(budget, abs=0.05)


def test_requests_above_the_limit_are_refused(source: FakeSource) -> None:
    source.gate.clear()
    with (
        serving(source, max_requests=1) as address,
        Client(address) as one,
        Client(address) as two,
    ):
        one.send(SCRAPE)
        source.wait_until_entered()
        refused = two.get()
        assert refused.status == 503
        assert refused.body == b"limit of 1 concurrent requests reached\n"
        assert two.get("/-/healthy").status == 200
        source.gate.set()
        assert one.read_answer().status == 200
        source.error = RuntimeError("broken")  # it gives its place back
        assert [two.get().status for _ in range(3)] == [500] * 3


def test_zero_means_no_limit(source: FakeSource) -> None:
    source.gate.clear()
    with serving(source, max_requests=0) as address, ExitStack() as stack:
        clients = [stack.enter_context(Client(address)) for _ in range(50)]
        for client in clients:
            client.send(SCRAPE)
        source.wait_until_entered(50)
        source.gate.set()
        assert {client.read_answer().status for client in clients} == {200}


def test_healthy_while_not_ready(source: FakeSource, client: Client) -> None:
    source.reason = "the backlog is being read"
    healthy, unready = client.get("/-/healthy"), client.get("/-/ready")
    assert (healthy.status, healthy.body) == (200, b"HAK/GAL exporter is healthy.\n")
    assert (unready.status, unready.body) == (503, b"the backlog is being read\n")
    source.reason = None
    ready = client.get("/-/ready")
    assert (ready.status, ready.body) == (200, b"HAK/GAL exporter is ready.\n")


def test_landing_page_has_relative_links() -> None:
    with (
        serving(FakeSource(), telemetry_path="/a/m~1") as address,
        Client(address) as client,
    ):
        answer = client.get("/")
        assert client.get("/a/m~1").status == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    page = answer.body.decode()
    assert f"HAK/GAL exporter {__version__}" in page
    for link in ("a/m~1", "-/healthy", "-/ready"):
        assert f'href="{link}"' in page


def test_telemetry_path_can_be_the_root(source: FakeSource) -> None:
    with serving(source, telemetry_path="/") as address, Client(address) as client:
        assert b"facts 7.0" in client.get("/").body
        assert client.get("/metrics").status == 404


@pytest.mark.parametrize(
    "target", ["/metrics/", "//metrics", "/METRICS", "/%6detrics", "/-/", "metrics"]
)
def test_other_paths_are_not_found(client: Client, target: str) -> None:
    answer = client.get(target)
    assert (answer.status, answer.body) == (404, b"not found\n")
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"


@pytest.mark.parametrize("method", ["POST", "OPTIONS", "get", "BREW"])
def test_other_methods_are_not_allowed(
    source: FakeSource, client: Client, method: str
) -> None:
    answer = client.request(method, "/metrics")
    assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert source.calls == []


def test_failing_source_is_logged_once_and_leaks_nothing(
    source: FakeSource, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    source.error = RuntimeError("secret path")
    answers = [client.get(), client.get()]
    assert [answer.status for answer in answers] == [500, 500]
    assert b"secret" not in answers[0].body
    [record] = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert record.exc_info is not None
    source.error = None
    assert [client.get().status, client.get().status] == [200, 200]
    messages = [
        r.getMessage() for r in caplog.records if r.name == "exporter.scrape.worker"
    ]
    assert messages == ["failing", "recovered"]


def test_page_that_cannot_be_written_costs_its_answer_only(
    source: FakeSource, client: Client
) -> None:
    source.help_text = None  # type: ignore[assignment]
    assert client.get().status == 500
    assert client.get("/-/healthy").status == 200


def test_scrape_without_a_thread_costs_its_answer_only(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr("exporter.web.pages.start_new_thread", fail)
        assert client.get().status == 500
    assert client.get().status == 200
