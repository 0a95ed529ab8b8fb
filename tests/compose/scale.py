"""The stack for those who outgrow one machine: one of each dies, nothing is lost."""

import json
import time
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from typing import Any

import pytest

from tests.compose.stack import Stack, get, open_sockets, running
from tests.dashboards import fill, panels
from tests.servers import HTTP, wait_until

START = (
    "docker compose --file docker-compose.yml --file docker-compose.scale.yml"
    " --profile demo up --detach --wait"
)
REPLICAS = {"PROMETHEUS_PORT": "a", "PROMETHEUS_2_PORT": "b"}
MEMBERS = ("ALERTMANAGER_PORT", "ALERTMANAGER_2_PORT", "ALERTMANAGER_3_PORT")
STORE = "VICTORIAMETRICS_PORT"
INTERVAL_SECONDS = 15
PATIENCE_SECONDS = 180.0

pytestmark = pytest.mark.timeout(900)


@pytest.fixture(scope="module")
def stack() -> Iterator[Stack]:
    before = open_sockets()
    with running(Stack(START)) as started:
        assert open_sockets() <= before
        yield started


def stored(stack: Stack) -> list[float]:
    """Return when the exporter was seen to be up, as the store has it, in seconds."""
    url = f"{stack.url(STORE)}/api/v1/export?match[]=up%7Bjob%3D%22hakgal%22%7D"
    with HTTP.open(url, timeout=10) as answer:
        series = [json.loads(line) for line in answer]
    assert len(series) <= 1, "replicas are not told apart in the store"
    assert all(value == 1 for found in series for value in found["values"])
    return [t / 1000 for found in series for t in found["timestamps"]]


def has_members(stack: Stack, port: str) -> bool:
    """Tell whether an Alertmanager knows of all three."""
    cluster: dict[str, Any] = get(f"{stack.url(port)}/api/v2/status")["cluster"]
    return len(cluster["peers"]) == len(MEMBERS)


def test_each_replica_scrapes_and_has_a_label_of_its_own(stack: Stack) -> None:
    for port, replica in REPLICAS.items():
        prometheus = stack.prometheus(port)

        def sees_all(prometheus: Any = prometheus) -> bool:
            ups = prometheus.query('up{job!="grafana"}')
            # An exporter, itself, three Alertmanagers.
            return len(ups) == 5 and all(value == 1 for _, value in ups)

        wait_until(sees_all, PATIENCE_SECONDS)
        config = prometheus.api("status/config")["yaml"]
        assert f"replica: {replica}\n" in config


def test_alertmanagers_are_one_cluster(stack: Stack) -> None:
    for port in MEMBERS:
        wait_until(partial(has_members, stack, port), PATIENCE_SECONDS)


def test_the_store_keeps_one_sample_of_both_replicas(stack: Stack) -> None:
    def enough() -> bool:
        return len(stored(stack)) >= 6

    wait_until(enough, PATIENCE_SECONDS)
    times = stored(stack)
    # One in each interval of the clock; the last may still be open.
    slots = [int(moment // INTERVAL_SECONDS) for moment in times[:-1]]
    assert len(set(slots)) == len(slots)


def test_grafanas_queries_are_understood_by_the_store(stack: Stack) -> None:
    prometheus = stack.prometheus(STORE)
    asked = 0
    for panel in panels():
        for target in panel.targets:
            prometheus.api("query", query=fill(target["expr"]))
            asked += 1
    assert asked > 100


def test_a_dead_prometheus_and_alertmanager_cost_nothing(stack: Stack) -> None:
    began = time.time()
    stack.compose("kill", "prometheus", "alertmanager-2")
    fault = "hakgal-exporter simulate --fault broken-rows --rate 50 --duration 120"
    files = "--database.knowledge-base /data/hexagonal_kb.db"
    files += " --database.performance /data/hakgal_performance.db"
    stack.compose("exec", "-T", "--detach", "hakgal", *f"{fault} {files}".split())
    wait_until(lambda: stack.told_of("HakgalRowsRejected"), 300)
    stack.compose("up", "--detach", "--wait", "prometheus", "alertmanager-2")
    # Both replicas judge it again, all three members know of it; nobody says it twice.
    time.sleep(60)
    assert len(stack.told_of("HakgalRowsRejected")) == 1
    times = [moment for moment in stored(stack) if moment > began - 60]
    assert len(times) > 10
    longest = max(after - before for before, after in pairwise(times))
    assert longest < 2 * INTERVAL_SECONDS + 1
    for port in MEMBERS:
        wait_until(partial(has_members, stack, port), PATIENCE_SECONDS)
