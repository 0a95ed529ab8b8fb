"""The history in real Prometheus servers: what dashboards show of it, and the joint."""

import re
import time
from collections.abc import Callable, Iterator
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from exporter.backfill.history import MEASURES
from tests import dashboards
from tests.backfill.old_monitor import (
    Collection,
    collections,
    write_events,
    write_history,
)
from tests.backfill.running import backfill
from tests.databases import Files
from tests.exporters import Command, file_flags
from tests.servers import (
    Processes,
    Prometheus,
    Servers,
    adapt_config,
    find_servers,
    start_prometheus,
    wait_until,
)

PATIENCE_SECONDS = 60
HOUR = 3600
QUERIES = "hakgal_query_duration_seconds"
COUNTERS = "hakgal_(query|cache)_.+_(total|count|sum|bucket)|hakgal_cache_.+_total"
PANELS = [
    (panel, target["expr"], measure)
    for panel in dashboards.panels()
    for target in panel.targets
    for measure in MEASURES
    if not target["instant"]
    and re.match(rf"{measure.name}(_total)?\{{[^}}]*\}}$", target["expr"])
]


class Past(NamedTuple):
    """A Prometheus that knows a week of the old monitor, and what that measured."""

    prometheus: Prometheus
    found: list[Collection]
    report: str


@pytest.fixture(scope="module", params=find_servers(), ids=lambda s: s.folder.name)
def past(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Past]:
    """Bring a week along by the two commands, and start Prometheus over it."""
    servers: Servers = request.param
    if servers.version is None:
        pytest.fail("the servers are missing; run: make servers")
    folder = tmp_path_factory.mktemp("past")
    Files(folder).close()
    end = int(time.time()) // 60 * 60
    found = list(collections(end))
    write_history(folder / "hakgal_performance.db", iter(found))
    processes = Processes(folder)
    try:
        config = adapt_config(folder, scrape_interval="1s")
        report = make_blocks(servers, folder, config.parent / "data")
        prometheus = start_prometheus(servers, processes, config)
        yield Past(prometheus, found, report)
    finally:
        processes.stop()


def make_blocks(servers: Servers, folder: Path, data: Path, *flags: str) -> str:
    """Run both commands and return what they said."""
    text = folder / "history.om"
    done = backfill(folder, f"--output={text}", *flags)
    assert done.returncode == 0, done.stderr
    # Longer blocks for the time that the test takes; they are the same otherwise.
    words = "create-blocks-from", "openmetrics", "--max-block-duration=24h"
    code, output = servers.run("promtool", "tsdb", *words, text, data)
    assert code == 0, output
    return done.stderr + output


def ask(prometheus: Prometheus, query: str, found: list[Collection]) -> Any:
    """Return the series of a query at the moments of the old monitor."""
    first, last = found[0].moment, found[-1].moment
    return prometheus.api(
        "query_range", query=query, start=str(first), end=str(last), step="60"
    )["result"]


def test_dashboards_that_show_a_measure_as_it_is_are_among_the_panels() -> None:
    shown = {measure.old for _, _, measure in PANELS}

    assert shown == {
        "facts_count",
        "avg_query_time",
        "system_cpu_percent",
        "system_memory_percent",
    }


@pytest.mark.parametrize(
    ("panel", "query", "measure"), PANELS, ids=[p.name for p, _, _ in PANELS]
)
def test_a_panel_shows_the_old_rows(
    panel: dashboards.Panel, query: str, measure: Any, past: Past
) -> None:
    (series,) = ask(past.prometheus, dashboards.fill(query), past.found)

    assert {int(t): float(v) for t, v in series["values"]} == {
        c.moment: c.values[measure.old] / measure.divisor for c in past.found
    }


@pytest.mark.parametrize("old", ["cache_hits", "cache_misses"])
def test_counters_rise_by_what_the_old_monitor_counted(old: str, past: Past) -> None:
    (series,) = ask(past.prometheus, f"hakgal_{old}_total", past.found)
    assert [float(v) for _, v in series["values"]] == [
        c.values[old] for c in past.found
    ]

    # Of six days, with six restarts of the old monitor.
    begin = past.found[1440]
    query = f"increase(hakgal_{old}_total[6d])"
    ((_, increase),) = instant(past.prometheus, query, past.found[-1].moment)

    counted = [c.values[old] for c in past.found if c.moment > begin.moment - 1]
    rises = (b if b < a else b - a for a, b in pairwise(counted))
    assert increase == pytest.approx(sum(rises), rel=1e-3)


def instant(
    prometheus: Prometheus, query: str, moment: float
) -> list[tuple[dict[str, str], float]]:
    result = prometheus.api("query", query=query, time=str(moment))["result"]
    return [(series["metric"], float(series["value"][1])) for series in result]


def test_no_increase_is_made_up_where_the_exporter_begins(
    servers: Servers, processes: Processes, tmp_path: Path, free_port: int
) -> None:
    now = int(time.time())
    with Files(tmp_path) as files:
        rows = write_events(files.performance.path, now - HOUR, now - 120, each=5) // 2
        Command(processes, free_port, *file_flags(tmp_path)).start()
        until = int(time.time())
        config = adapt_config(tmp_path, f"127.0.0.1:{free_port}", scrape_interval="1s")
        make_blocks(
            servers,
            tmp_path,
            config.parent / "data",
            "--backfill.events",
            f"--backfill.until={until_text(until)}",
            f"--backfill.instance=127.0.0.1:{free_port}",
        )
        prometheus = start_prometheus(servers, processes, config)
        wait_for_count(prometheus, rows)
        for _ in range(7):
            files.add_query(0.3)
        wait_for_count(prometheus, rows + 7)

    def start_again() -> Prometheus:
        processes.stop()
        return start_prometheus(servers, processes, config)

    check_the_joint(prometheus, rows)
    check_that_a_restart_keeps(prometheus, start_again)


def until_text(moment: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(moment))


def wait_for_count(prometheus: Prometheus, count: int) -> None:
    wanted = f"sum({QUERIES}_count{{job='hakgal'}}) == {count}"
    wait_until(partial(prometheus.query, wanted), PATIENCE_SECONDS)


def check_the_joint(prometheus: Prometheus, rows: int) -> None:
    """Look at all counters over the whole time, and at the increase over the joint."""
    names = prometheus.api("label/__name__/values")
    counters = [name for name in names if re.fullmatch(COUNTERS, name)]
    assert len(counters) == 8
    for name in counters:
        assert prometheus.query(f"sum(resets({name}[2h]))") == [({}, 0)], name
    # 7 new ones, and what was in the last 5 min: one each 5 s up to two minutes before.
    ((_, recent),) = prometheus.query(f"sum(increase({QUERIES}_count[5m]))")
    assert 7 <= recent < 60
    ((_, seconds),) = prometheus.query(f"sum(increase({QUERIES}_sum[5m]))")
    assert 2.1 <= seconds < 20
    ((_, everything),) = prometheus.query(f"sum(increase({QUERIES}_count[2h]))")
    assert everything == pytest.approx(rows + 7, rel=0.02)
    (series,) = prometheus.api("query", query=f"count({QUERIES}_count)")["result"]
    assert series["value"][1] == "12"  # the same series, not others beside them


def check_that_a_restart_keeps(
    prometheus: Prometheus, start_again: Callable[[], Prometheus]
) -> None:
    """Compare what was scraped after the blocks' end: they must not hide it."""
    scraped = prometheus.api("query", query="hakgal_up[5m]")["result"]
    kept = start_again().api("query", query="hakgal_up[5m]")["result"]

    assert len(scraped) == len(kept) == 2
    for before, after in zip(scraped, kept, strict=True):
        assert {t for t, _ in before["values"]} <= {t for t, _ in after["values"]}
