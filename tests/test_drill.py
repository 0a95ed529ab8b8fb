"""The fire drill in short, and what in it could lie; ``make drill`` plays all of it."""

import pytest

from tests.drill.__main__ import drill
from tests.drill.drills import DRILLS
from tests.drill.report import MISSING, undrilled
from tests.drill.scaling import scale
from tests.servers import find_servers

SHORT = ("table", "lock")
FACTOR = 60.0


def test_fault_is_told_and_told_to_be_over(capsys: pytest.CaptureFixture[str]) -> None:
    servers = find_servers()[-1]
    assert servers.version, f"nothing in {servers.folder}: run `make servers`"

    assert drill(servers, [d for d in DRILLS if d.name in SHORT], FACTOR, print)

    table = capsys.readouterr().out
    for drilled in DRILLS:
        assert (f"-- {drilled.fault}\n" in table) == (drilled.name in SHORT)


def test_alert_that_is_not_drilled_has_a_reason_and_a_test() -> None:
    for alert, why, files in undrilled():
        assert MISSING not in (why, files), alert


@pytest.mark.parametrize(
    ("shipped", "scaled"),
    [
        ("    for: 5m\n", "    for: 5000ms\n"),
        ("  scrape_interval: 15s # why\n", "  scrape_interval: 250ms # why\n"),
        ("      group_wait: 0s\n", "      group_wait: 0ms\n"),
        (
            "- alert: A\n  keep_firing_for: 1h30m",
            "- alert: A\n  keep_firing_for: 90000ms",
        ),
        ("rate(x_total[5m]) > 1", "rate(x_total[5000ms]) > 1"),
        ("max_over_time(x[1h:1m])", "max_over_time(x[60000ms:1000ms])"),
        ("max_over_time(x[1h:])", "max_over_time(x[60000ms:])"),
        ("x offset 1d", "x offset 1440000ms"),
        ("record: instance:x:rate5m", "record: instance:x:rate5m"),
        ("# within 5m of [it]", "# within 5m of [it]"),
        (
            "{record: hakgal:events_stalled_seconds:threshold, expr: 900, labels: {}}",
            "{record: hakgal:events_stalled_seconds:threshold, expr: (900) / 60,"
            " labels: {}}",
        ),
        (
            "{record: hakgal:query_duration_seconds:threshold, expr: 0.1, labels: {}}",
            "{record: hakgal:query_duration_seconds:threshold, expr: 0.1, labels: {}}",
        ),
    ],
)
def test_durations_are_divided_and_nothing_else(shipped: str, scaled: str) -> None:
    assert scale(shipped, 60) == scaled
