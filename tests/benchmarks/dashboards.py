"""What rules and dashboards cost when a thousand exporters are watched at once.

One real exporter over a written database answers for all of them: a proxy gives its
newest page to whichever target Prometheus asks, so that only the labels differ.
"""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from urllib.request import Request

from tests import servers
from tests.alertmanager.sinks import running
from tests.benchmarks.bench import Bench
from tests.benchmarks.client import PROMETHEUS
from tests.benchmarks.programs import Program, exporter, writer
from tests.benchmarks.report import Line, limit
from tests.drill.pages import PageServer
from tests.grafana import dashboards as shipped

PANEL_SECONDS = 1.0
RULES_SHARE = 0.1  # of the time from one evaluation to the next
EVENTS_PER_SECOND = 100
REFRESH_SECONDS = 5.0
STEPS = 300  # about as many as a panel has points, whatever time it shows
_SHARE = """max(prometheus_rule_group_last_duration_seconds
/ prometheus_rule_group_interval_seconds)"""


def dashboards(bench: Bench) -> Iterator[Line]:
    """Yield the longest group of rules, and the slowest query of each dashboard."""
    many = f"{bench.effort.instances} instances"
    with (
        writer(bench.small, EVENTS_PER_SECOND),
        exporter(bench.small) as one,
        _proxy(one) as port,
        _prometheus(bench, port) as prometheus,
    ):
        time.sleep(bench.effort.watch_seconds)
        for _, share in prometheus.query(_SHARE):
            what = f"slowest group of rules in its interval, {many}"
            yield limit(what, share, "", RULES_SHARE)
        for uid in shipped.load():
            taken = [
                (_seconds(bench, prometheus, target), panel.json["title"])
                for panel in shipped.panels()
                if panel.dashboard == uid
                for target in panel.targets
            ]
            seconds, title = max(taken)
            what = f"slowest query of {uid}, {many}"
            yield limit(what, seconds, "s", PANEL_SECONDS, f"{title}; of {len(taken)}")


def _seconds(
    bench: Bench, prometheus: servers.Prometheus, target: shipped.Json
) -> float:
    path, words = "query", {"query": shipped.fill(target["expr"])}
    if not target["instant"]:
        path, end, shown = "query_range", time.time(), bench.effort.watch_seconds
        words |= {"start": str(end - shown), "end": str(end)}
        words["step"] = str(shown / STEPS)
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        prometheus.api(path, **words)
        taken.append(time.perf_counter() - began)
    return median(taken)


@contextmanager
def _prometheus(bench: Bench, proxy: int) -> Iterator[servers.Prometheus]:
    """Run a Prometheus with the shipped configuration and very many targets."""
    targets = [f"hakgal-{n}:8000" for n in range(bench.effort.instances)]
    config = servers.adapt_config(bench.folder, *targets, scrape_interval="15s")
    port, job = servers.find_free_port(), "  - job_name: hakgal\n"
    through = f"{job}    proxy_url: http://127.0.0.1:{proxy}\n"
    text = config.read_text().replace("localhost:9090", f"127.0.0.1:{port}")
    assert job in text
    config.write_text(text.replace(job, through))
    processes = servers.Processes(bench.folder, is_quiet=True)
    try:
        yield servers.start_prometheus(
            servers.find_servers()[-1], processes, config, port=port
        )
    finally:
        processes.stop()


@contextmanager
def _proxy(program: Program) -> Iterator[int]:
    """Answer for every target with an exporter's page, not older than some seconds."""
    url = f"http://127.0.0.1:{program.port}/metrics"
    pages: dict[int, bytes] = {}  # by when they were taken
    lock = threading.Lock()  # only one of those who wait takes the next one

    def page() -> bytes:
        now, request = int(time.monotonic() / REFRESH_SECONDS), Request(url)
        request.headers.update(PROMETHEUS)
        with lock:
            if now not in pages:
                with servers.HTTP.open(request) as answer:
                    pages[now] = answer.read()
            return pages[now]

    kind = "application/openmetrics-text; version=1.0.0"
    server = PageServer(page, Content_Type=kind, Content_Encoding="gzip")
    with running(server):
        yield server.server_port
