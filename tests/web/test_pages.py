"""What each path answers, over a real socket."""

import gzip
import logging

import pytest

from exporter import __version__
from tests.clients import Client, FakeSource, serving

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: test\r\n\r\n"
TEXT = "text/plain; version=0.0.4; charset=utf-8"
OPENMETRICS = "application/openmetrics-text; version=1.0.0; charset=utf-8"
# Captured from the servers of Debian 12 (2.42.0) and Debian testing (3.5.3).
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,"
    "application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
    "encoding=delimited;q=0.7,"
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        pytest.param(PROMETHEUS_2, OPENMETRICS, id="prometheus-2"),
        pytest.param(PROMETHEUS_3, OPENMETRICS, id="prometheus-3"),
        pytest.param("text/html,*/*;q=0.8", TEXT, id="browser"),
        pytest.param("", TEXT, id="none"),
        pytest.param("application/openmetrics-text;version=x.y", TEXT, id="odd"),
        pytest.param("\xff;=,", TEXT, id="nonsense"),
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


def test_page_is_compressed_on_demand(client: Client) -> None:
    target = "/metrics?name%5B%5D=facts&other=1"
    plain, packed = client.get(target), client.get(target, accept_encoding="br, gzip")
    assert plain.body == gzip.decompress(packed.body)
    assert plain.body.count(b"\nfacts 7.0") == plain.body.count(b"# TYPE") == 1
    for answer, encoding in ((plain, None), (packed, "gzip")):
        assert answer.headers.get("content-encoding") == encoding
        assert answer.headers["vary"] == "Accept, Accept-Encoding"


@pytest.mark.parametrize(
    ("scrape_timeout", "budget"),
    [
        ("10", 9.5),
        ("1.2", 0.7),
        ("0.01", 0.5),  # with less, all would fail
        ("inf", 60.0),
        *((text, 9.5) for text in ("", "0", "-5", "nan", "10s")),
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


def test_landing_page_has_relative_links() -> None:
    with (
        serving(FakeSource(), telemetry_path="/a/m~1") as address,
        Client(address) as client,
    ):
        page = client.get("/").body.decode()
        assert client.get("/a/m~1").status == 200
    assert f"HAK/GAL exporter {__version__}" in page
    for link in ("a/m~1", "-/healthy", "-/ready"):
        assert f'href="{link}"' in page


def test_other_paths_and_methods_are_refused(
    source: FakeSource, client: Client
) -> None:
    for target in ("/metrics/", "//metrics", "/%6detrics", "metrics"):
        assert client.get(target).status == 404
    for method in ("POST", "OPTIONS", "get"):
        answer = client.request(method, "/metrics")
        assert (answer.status, answer.headers["allow"]) == (405, "GET, HEAD")
    assert source.calls == []


def test_failing_source_is_logged_once_and_leaks_nothing(
    source: FakeSource, client: Client, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "exporter.scrape.worker")
    source.error = RuntimeError("secret path")
    answers = [client.get(), client.get()]
    assert [answer.status for answer in answers] == [500, 500]
    assert b"secret" not in answers[0].body
    source.error = None
    assert [client.get().status, client.get().status] == [200, 200]
    told = [r for r in caplog.records if r.name == "exporter.scrape.worker"]
    assert [record.getMessage() for record in told] == ["failing", "recovered"]
    assert told[0].exc_info is not None
