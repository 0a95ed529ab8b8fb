"""What a client asks for in its headers: format, coding and time."""

import pytest

from exporter.negotiation import (
    OPENMETRICS,
    TEXT,
    accepts_gzip,
    budget_seconds,
    choose_format,
)

# Captured from the servers of Debian 12 (2.42.0) and Debian testing (3.5.3).
PROMETHEUS_2 = (
    "application/openmetrics-text;version=1.0.0,"
    "application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_2_NATIVE_HISTOGRAMS = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
    "encoding=delimited,application/openmetrics-text;version=1.0.0;q=0.8,"
    "application/openmetrics-text;version=0.0.1;q=0.75,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.1"
)
PROMETHEUS_3 = (
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.6,"
    "application/openmetrics-text;version=0.0.1;q=0.5,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.4,"
    "text/plain;version=0.0.4;q=0.3,*/*;q=0.2"
)
PROMETHEUS_3_UNDERSCORES = PROMETHEUS_3.replace("allow-utf-8", "underscores")
PROMETHEUS_3_NATIVE_HISTOGRAMS = (
    "application/vnd.google.protobuf;proto=io.prometheus.client.MetricFamily;"
    "encoding=delimited;q=0.6,"
    "application/openmetrics-text;version=1.0.0;escaping=allow-utf-8;q=0.5,"
    "application/openmetrics-text;version=0.0.1;q=0.4,"
    "text/plain;version=1.0.0;escaping=allow-utf-8;q=0.3,"
    "text/plain;version=0.0.4;q=0.2,*/*;q=0.1"
)
PROMETHEUS_3_TEXT_ONLY = (
    "text/plain;version=1.0.0;escaping=underscores;q=0.6,"
    "text/plain;version=0.0.4;q=0.5,*/*;q=0.4"
)
BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/webp,*/*;q=0.8"


@pytest.mark.parametrize(
    "accept",
    [
        pytest.param(PROMETHEUS_2, id="prometheus-2"),
        pytest.param(PROMETHEUS_2_NATIVE_HISTOGRAMS, id="prometheus-2-protobuf"),
        pytest.param(PROMETHEUS_3, id="prometheus-3"),
        pytest.param(PROMETHEUS_3_UNDERSCORES, id="prometheus-3-underscores"),
        pytest.param(PROMETHEUS_3_NATIVE_HISTOGRAMS, id="prometheus-3-protobuf"),
        "application/openmetrics-text",
        "application/openmetrics-text; version=0.0.1",
        'application/openmetrics-text; version="1.0.0"',
        "Application/OpenMetrics-Text ; Version=1.0.0 ; Q=0.5",
        "application/openmetrics-text;version=2.0.0,application/openmetrics-text;q=0.5",
        "application/*",
        "text/plain,application/openmetrics-text",
        "*/*,application/openmetrics-text",
        "text/plain;q=0,*/*",
        "text/plain;q=0.2,*/*;q=0.3",
        "application/openmetrics-text;q=.5,text/plain;q=0.499",
    ],
)
def test_openmetrics_is_chosen(accept: str) -> None:
    assert choose_format(accept) is OPENMETRICS


@pytest.mark.parametrize(
    "accept",
    [
        pytest.param("", id="none"),
        pytest.param(PROMETHEUS_3_TEXT_ONLY, id="prometheus-3-text-only"),
        pytest.param(BROWSER, id="browser"),
        "*/*",
        "text/*",
        "text/plain",
        "text/plain;version=0.0.4",
        "text/plain;q=0.9,application/openmetrics-text;q=0.8",
        "text/plain;q=0.5,application/*;q=0.4",
        "text/plain,*/*",
        "application/openmetrics-text;q=0",
        "application/openmetrics-text;q=0.0,*/*;q=0.1",
        "application/openmetrics-text;version=2.0.0",
        "application/openmetrics-text;version=1.0.1;q=0.9,*/*;q=0.1",
        "application/openmetrics-text;version=abc",
        "application/json",
        "image/png,text/html",
    ],
)
def test_text_is_chosen(accept: str) -> None:
    assert choose_format(accept) is TEXT


@pytest.mark.parametrize(
    "quality", ["abc", "", "-1", "2", "1.5", "nan", "inf", "1e0", "0,5", "\xb2", "0x1"]
)
def test_malformed_quality_excludes_the_element(quality: str) -> None:
    assert choose_format(f"application/openmetrics-text;q={quality}") is TEXT


@pytest.mark.parametrize("accept", [",,,", ";", ";;q=1", "/", "q=1", "\xff\xfe", "=;="])
def test_malformed_accept_gets_text(accept: str) -> None:
    assert choose_format(accept) is TEXT


def test_content_types_are_those_of_the_specifications() -> None:
    assert TEXT.content_type == "text/plain; version=0.0.4; charset=utf-8"
    expected = "application/openmetrics-text; version=1.0.0; charset=utf-8"
    assert OPENMETRICS.content_type == expected


@pytest.mark.parametrize(
    ("accept_encoding", "expected"),
    [
        ("gzip", True),
        ("deflate, GZIP;q=0.5", True),
        ("gzip, deflate, br, zstd", True),
        ("*", True),
        ("identity;q=0.5, gzip;q=0.5", True),
        ("identity;q=0, *", True),
        ("", False),
        ("identity", False),
        ("deflate, br", False),
        ("gzip;q=0", False),
        ("gzip;q=0.000, *", False),
        ("*;q=0", False),
        ("gzip;q=0.4, identity;q=0.5", False),
        ("gzip;q=many", False),
    ],
)
def test_gzip_follows_quality(accept_encoding: str, expected: bool) -> None:
    assert accepts_gzip(accept_encoding) is expected


@pytest.mark.parametrize(
    ("scrape_timeout", "expected"),
    [
        ("10", 9.5),
        ("1", 0.5),
        ("1.2", 0.7),
        ("0.01", 0.5),  # with less, all would fail
        ("60.5", 60.0),
        ("120", 60.0),
        ("3600", 60.0),
    ],
)
def test_budget_leaves_time_to_answer(scrape_timeout: str, expected: float) -> None:
    assert budget_seconds(scrape_timeout) == pytest.approx(expected)


@pytest.mark.parametrize(
    "scrape_timeout",
    ["", "abc", "0", "-5", "nan", "inf", "-inf", "1e300", "10s", "5,5"],
)
def test_unbelievable_timeout_counts_as_the_default(scrape_timeout: str) -> None:
    assert budget_seconds(scrape_timeout) == 9.5
