"""What the dashboards' queries cost when a thousand exporters are watched at once.

One real exporter over a written database answers for all of them: a proxy gives its
newest page to whichever target Prometheus asks, so that only the labels differ.
"""

import shutil
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import median
from urllib.request import Request

from tests import dashboards as shipped
from tests.benchmarks.bench import Bench, say
from tests.benchmarks.client import PROMETHEUS
from tests.benchmarks.peers import folder
from tests.benchmarks.programs import Program, exporter, running, writer
from tests.benchmarks.report import Line, limit
from tests.servers import HTTP, ROOT, Prometheus, find_free_port

LIMIT_SECONDS = 1.0
EVENTS_PER_SECOND = 100
REFRESH_SECONDS = 5.0
# As many steps as a panel has points in Grafana, whatever time it shows.
STEPS = 300
HEATMAP_STEPS = 120


def dashboards(bench: Bench) -> Iterator[Line]:
    """Yield the slowest query of each dashboard."""
    program = folder() / "newest" / "bin" / "prometheus"
    if not program.exists():
        say("no Prometheus; run: make servers")
        return
    say(f"{bench.effort.instances} instances for {bench.effort.watch_seconds:g} s")
    with (
        writer(bench.small, EVENTS_PER_SECOND),
        exporter(bench.small) as one,
        _proxy(one) as port,
        _prometheus(bench, program, port) as prometheus,
    ):
        time.sleep(bench.effort.watch_seconds)
        for uid in shipped.load():
            yield _slowest(bench, prometheus, uid)


def _slowest(bench: Bench, prometheus: Prometheus, uid: str) -> Line:
    taken = [
        (_seconds(bench, prometheus, panel, target), panel.json["title"])
        for panel in shipped.panels()
        if panel.dashboard == uid
        for target in panel.targets
    ]
    seconds, title = max(taken)
    what = f"slowest query of {uid}, {bench.effort.instances} instances"
    return limit(what, seconds, "s", LIMIT_SECONDS, f"{title}; {len(taken)} queries")


def _seconds(
    bench: Bench, prometheus: Prometheus, panel: shipped.Panel, target: shipped.Json
) -> float:
    query = shipped.fill(target["expr"])
    if target["instant"]:
        ask = partial(prometheus.api, "query", query=query)
    else:
        steps = HEATMAP_STEPS if panel.kind == "heatmap" else STEPS
        end = time.time()
        ask = partial(
            prometheus.api,
            "query_range",
            query=query,
            start=str(end - bench.effort.watch_seconds),
            end=str(end),
            step=str(bench.effort.watch_seconds / steps),
        )
    taken = []
    for _ in range(3):
        began = time.perf_counter()
        ask()
        taken.append(time.perf_counter() - began)
    return median(taken)


@contextmanager
def _prometheus(bench: Bench, program: Path, proxy: int) -> Iterator[Prometheus]:
    """Run a Prometheus with the shipped configuration and very many targets."""
    copy = Path(shutil.copytree(ROOT / "prometheus", bench.folder / "prometheus"))
    targets = [f"'hakgal-{n}:8000'" for n in range(bench.effort.instances)]
    (copy / "targets" / "hakgal.yml").write_text(f"- targets: [{', '.join(targets)}]\n")
    config, port = copy / "prometheus.yml", find_free_port()
    text = config.read_text().replace("localhost:9090", f"127.0.0.1:{port}")
    job = "  - job_name: hakgal\n"
    assert job in text
    through = f"{job}    proxy_url: http://127.0.0.1:{proxy}\n"
    config.write_text(text.replace(job, through))
    with running(
        bench.folder / "prometheus.log",
        program,
        f"--config.file={config}",
        f"--storage.tsdb.path={copy / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        "--enable-feature=exemplar-storage",
        port=port,
    ) as server:
        server.wait_for("/-/ready")
        yield Prometheus(f"http://127.0.0.1:{port}")


@contextmanager
def _proxy(program: Program) -> Iterator[int]:
    """Answer for every target with an exporter's newest page."""
    pages = [_page(program)]

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            content_type, body = pages[0]
            self.send_response(200)
            self.send_header("Content-Type", content_type)
            self.send_header("Content-Encoding", "gzip")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    class Server(ThreadingHTTPServer):
        daemon_threads = True
        request_queue_size = 128

    server, stop = Server(("127.0.0.1", 0), Handler), threading.Event()

    def refresh() -> None:
        while not stop.wait(REFRESH_SECONDS):
            pages[0] = _page(program)

    threads = [threading.Thread(target=refresh)]
    threads.append(threading.Thread(target=server.serve_forever, args=[0.05]))
    for thread in threads:
        thread.start()
    try:
        yield server.server_port
    finally:
        stop.set()
        server.shutdown()
        server.server_close()
        for thread in threads:
            thread.join()


def _page(program: Program) -> tuple[str, bytes]:
    """Return the content type and the zipped text of a page."""
    url = f"http://127.0.0.1:{program.port}/metrics"
    with HTTP.open(Request(url, headers=dict(PROMETHEUS))) as answer:
        return answer.headers["Content-Type"], answer.read()
