"""The whole page for one small knowledge base, compared line by line.

After a change that is meant: ``make test ARGS='--renew-golden -k golden'``, then read
the diff of ``tests/golden``.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.databases import Files, at
from tests.exporters import (
    fetch,
    make_config,
    make_exporter,
    parse_openmetrics,
    serving,
)
from tests.servers import Servers

GOLDEN = Path(__file__).parent / "golden"
TEXT, OPENMETRICS = "metrics.txt", "metrics.openmetrics.txt"
ACCEPTED = {TEXT: "text/plain", OPENMETRICS: "application/openmetrics-text"}
# What differs from run to run or from machine to machine.
VOLATILE = (
    "hakgal_exporter_build_info",
    "hakgal_exporter_checkpoint_timestamp_seconds",
    "hakgal_exporter_collector_duration_seconds",
    "hakgal_system_",
    "process_",
    "python_",
)
LABEL_LIMIT = 7
# By type and success. All numbers differ; times in 1/256 s add up exactly.
QUERIES = {
    ("add_fact", 1): (6, 8),
    ("add_fact", 0): (20,),
    ("consistency_check", 1): (40, 60, 77, 300, 3000),
    ("get_system_status", 1): (3, 4, 5, 7),
    ("health_check", 1): (1, 2, 2),
    ("health_check", 0): (900, 900, 900, 901, 901, 902, 903),
    ("search_knowledge", 1): (13, 15, 16, 25, 26, 30, 35, 90, 100, 110, 120),
    ("search_knowledge", 0): (256, 640, 641, 650, 1280, 1281, 1282, 1283, 1284),
    ("plan_route", 1): (50, 51, 52, 53, 54, 55),
    (None, 0): (70, 71, 72, 73, 74, 75, 76, 78),
    ("too_many", 1): (10, 11, 12, 14, 17, 18, 19, 21, 22, 23),
}
BAD_QUERIES: list[dict[str, Any]] = [
    *[{"success": None}] * 2,
    *[{"query_time": "slow"}] * 3,
    *[{"query_time": -0.25}] * 4,
    *[{"query_time": 9e999}] * 5,
    *[{"success": "yes"}] * 6,
]
# By hit; in 1/1024 s, None for a look-up without a time.
CACHE = {
    1: (0.25, 0.5, 0.75, 1, 1, 2, 2, 3, 4, 5, 6, None, None),
    0: (5, 10, 11, 30, 31, 60, 61, None, 70, 200, 300, 2000, 3000, None, None, 7, 9),
}
BAD_CACHE: list[dict[str, Any]] = [
    *[{"hit": "no"}] * 1,
    *[{"response_time": "?"}] * 7,
    *[{"response_time": -1}] * 8,
    *[{"response_time": 9e999}] * 9,
]
OPERATIONS = ("add_fact", "update_fact", "merge", "split", "export", "import", "sync")
CONFIDENCES = (0.0, 0.125, 0.25, 0.375, 0.5, 0.5625, 0.625, 0.75, 0.875, 1.0, 2.0)
BAD_CONFIDENCES = (*[None] * 3, *["low"] * 1, *[-0.5] * 2, *[9e999] * 4)
REMOVED_FACTS = 3


@pytest.fixture
def address(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Serve the small knowledge base; facts are removed after a first scrape."""
    config = make_config(tmp_path, label_limit=LABEL_LIMIT)
    with Files(tmp_path, "delete") as files:
        fill_performance(files)
        fill_knowledge_base(files)
    with serving(make_exporter(config)) as address:
        while fetch(address).text.count("\nhakgal_database_connections{") < 2:
            pass  # they are counted after a scrape
        with Files(tmp_path, "delete") as files:
            files.knowledge_base.run(f"DELETE FROM facts WHERE id <= {REMOVED_FACTS}")
            prune_unseen(files)
        yield address


def fill_performance(files: Files) -> None:
    for (query_type, success), times in QUERIES.items():
        for time in times:
            files.add_query(time / 256, query_type, success, timestamp=at(0))
    for columns in BAD_QUERIES:
        files.add_query(**columns, timestamp=at(100))
    for hit, lengths in CACHE.items():
        for length in lengths:
            files.add_cache(hit, length and length / 1024, timestamp=at(200))
    for columns in BAD_CACHE:
        files.add_cache(**columns, timestamp=at(300))


def fill_knowledge_base(files: Files) -> None:
    for number, operation in enumerate(OPERATIONS, start=1):
        for _ in range(number):
            files.add_audit(operation, timestamp=at(400))
    for confidence in (*CONFIDENCES, *BAD_CONFIDENCES):
        statement = f"HasProperty(Robot, {'Long' * 1000})."
        files.add_fact(statement, confidence, timestamp=at(500))


def prune_unseen(files: Files) -> None:
    """Write rows of which some are gone before they can be read."""
    files.performance.run("BEGIN")
    for _ in range(4):
        files.add_query(timestamp=at(600))
    files.performance.run("DELETE FROM query_times WHERE id > 70 AND id % 4")
    files.performance.run("COMMIT")


def keep_stable(page: str) -> str:
    """Return a page without its volatile families."""
    families = re.split(r"(?=^# HELP )", page, flags=re.MULTILINE)
    volatile = tuple(f"# HELP {name}" for name in VOLATILE)
    return "".join(f for f in families if not f.startswith(volatile))


@pytest.mark.parametrize("name", ACCEPTED)
def test_page_is_the_golden_page(
    name: str, address: tuple[str, int], request: pytest.FixtureRequest
) -> None:
    page = keep_stable(fetch(address, Accept=ACCEPTED[name]).text)
    if request.config.getoption("--renew-golden"):
        (GOLDEN / name).write_text(page)

    assert page == (GOLDEN / name).read_text()


def test_promtool_finds_nothing_to_say_about_the_page(
    address: tuple[str, int], servers: Servers
) -> None:
    done = subprocess.run(
        [servers.program("promtool"), "check", "metrics"],
        input=fetch(address).text,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "")


def test_openmetrics_parser_accepts_the_page(address: tuple[str, int]) -> None:
    page = fetch(address, Accept=ACCEPTED[OPENMETRICS]).text

    families = parse_openmetrics(page)

    exemplars = [s.exemplar for f in families for s in f.samples if s.exemplar]
    assert all(exemplar.labels.keys() == {"query_id"} for exemplar in exemplars)
    assert exemplars
