"""The stack for those who outgrow one machine: one of each dies, nothing is lost."""

import json
import time
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.compose.stack import PATIENCE_SECONDS, Stack, open_sockets, running
from tests.grafana.dashboards import fill, panels
from tests.servers import HTTP, wait_until

START = (
    "docker compose --file docker-compose.yml --file docker-compose.scale.yml"
    " --profile demo up --detach --wait"
)
REPLICAS = {"PROMETHEUS_PORT": "a", "PROMETHEUS_2_PORT": "b"}
MEMBERS = ("ALERTMANAGER_PORT", "ALERTMANAGER_2_PORT", "ALERTMANAGER_3_PORT")
STORE = "VICTORIAMETRICS_PORT"
INTERVAL_SECONDS = 15

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


def are_one_cluster(stack: Stack) -> bool:
    """Tell whether each Alertmanager knows of all three."""
    urls = [f"{stack.url(port)}/api/v2/status" for port in MEMBERS]
    clusters = [json.load(HTTP.open(url, timeout=10))["cluster"] for url in urls]
    return all(len(cluster["peers"]) == len(MEMBERS) for cluster in clusters)


@pytest.mark.parametrize(("port", "replica"), REPLICAS.items())
def test_each_replica_scrapes_and_has_a_label_of_its_own(
    stack: Stack, port: str, replica: str
) -> None:
    prometheus = stack.prometheus(port)
    # An exporter, itself, three Alertmanagers.
    ups = 'sum(up{job!="grafana"}) == 5'
    wait_until(lambda: prometheus.query(ups), PATIENCE_SECONDS)
    assert f"replica: {replica}\n" in prometheus.api("status/config")["yaml"]


def test_alertmanagers_are_one_cluster(stack: Stack) -> None:
    wait_until(lambda: are_one_cluster(stack), PATIENCE_SECONDS)


def test_the_store_keeps_one_sample_of_both_replicas(stack: Stack) -> None:
    wait_until(lambda: len(stored(stack)) >= 6, PATIENCE_SECONDS)
    # One in each interval of the clock; the last may still be open.
    slots = [int(moment // INTERVAL_SECONDS) for moment in stored(stack)[:-1]]
    assert len(set(slots)) == len(slots)


def test_grafanas_queries_are_understood_by_the_store(stack: Stack) -> None:
    queries = [fill(target["expr"]) for panel in panels() for target in panel.targets]
    assert len(queries) > 100
    for query in queries:
        stack.prometheus(STORE).api("query", query=query)


def test_a_dead_prometheus_and_alertmanager_cost_nothing(stack: Stack) -> None:
    began = time.time()
    stack.compose("kill", "prometheus", "alertmanager-2")
    stack.simulate("--fault broken-rows --rate 50 --duration 120")
    wait_until(lambda: stack.told_of("HakgalRowsRejected"), PATIENCE_SECONDS)
    stack.compose("up", "--detach", "--wait", "prometheus", "alertmanager-2")
    # Both replicas judge it again, all three members know of it; nobody says it twice.
    time.sleep(60)
    assert len(stack.told_of("HakgalRowsRejected")) == 1
    times = [moment for moment in stored(stack) if moment > began - 60]
    assert len(times) > 10
    longest = max(after - before for before, after in pairwise(times))
    assert longest < 2 * INTERVAL_SECONDS + 1
    wait_until(lambda: are_one_cluster(stack), PATIENCE_SECONDS)
