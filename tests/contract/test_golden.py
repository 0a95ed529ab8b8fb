"""The whole page for one small knowledge base, compared line by line.

After a change that is meant: ``make test ARGS='--renew-golden -k golden'``, then read
the diff of ``tests/contract/golden``.
"""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.clients import serving
from tests.databases import Files, at
from tests.exporters import (
    fetch,
    make_config,
    make_exporter,
    parse_openmetrics,
)
from tests.servers import Servers

GOLDEN = Path(__file__).parent / "golden"
TEXT, OPENMETRICS = "metrics.txt", "metrics.openmetrics.txt"
ACCEPTED = {TEXT: "text/plain", OPENMETRICS: "application/openmetrics-text"}
# What differs from run to run or from machine to machine.
VOLATILE = (
    *("process_", "python_", "hakgal_system_", "hakgal_exporter_build_info"),
    *("hakgal_exporter_checkpoint_", "hakgal_exporter_collector_duration_"),
)
LABEL_LIMIT = 7


@pytest.fixture
def address(tmp_path: Path) -> Iterator[tuple[str, int]]:
    """Serve the small knowledge base; facts are removed after a first scrape."""
    config = make_config(tmp_path, label_limit=LABEL_LIMIT)
    with Files(tmp_path, "delete") as files:
        fill = {
            "performance": files.performance,
            "knowledge_base": files.knowledge_base,
        }
        for name, file in fill.items():
            file.db.executescript((GOLDEN / f"{name}.sql").read_text())
    with serving(make_exporter(config)) as address:
        while fetch(address).text.count("\nhakgal_database_connections{") < 2:
            pass  # they are counted after a scrape
        with Files(tmp_path, "delete") as files:
            files.knowledge_base.run("DELETE FROM facts WHERE id <= 3")
            # Rows of which some are gone before they can be read.
            files.performance.run("BEGIN")
            for _ in range(4):
                files.add_query(timestamp=at(600))
            files.performance.run("DELETE FROM query_times WHERE id > 70 AND id % 4")
            files.performance.run("COMMIT")
        yield address


@pytest.mark.parametrize("name", ACCEPTED)
def test_page_is_the_golden_page(
    name: str, address: tuple[str, int], request: pytest.FixtureRequest
) -> None:
    page = fetch(address, Accept=ACCEPTED[name]).text
    families = re.split(r"(?=^# HELP )", page, flags=re.MULTILINE)
    volatile = tuple(f"# HELP {metric}" for metric in VOLATILE)
    stable = "".join(f for f in families if not f.startswith(volatile))
    if name == OPENMETRICS:
        assert parse_openmetrics(page)
    if request.config.getoption("--renew-golden"):
        (GOLDEN / name).write_text(stable)

    assert stable == (GOLDEN / name).read_text()


def test_promtool_finds_nothing_to_say_about_the_page(
    address: tuple[str, int], servers: Servers
) -> None:
    command = servers.program("promtool"), "check", "metrics"
    page = fetch(address).text
    done = subprocess.run(command, input=page, capture_output=True, text=True)

    assert (done.returncode, done.stdout + done.stderr) == (0, "")
