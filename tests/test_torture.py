"""The torture in short, and whether it notices what it is there to notice."""

from pathlib import Path

import pytest

from tests.torture.__main__ import SCENES
from tests.torture.ledger import Ledger, Row
from tests.torture.report import FINDINGS, Found, table
from tests.torture.rows import CACHE, FACTS, MISSED, PASSED_OVER, Key, Spec, Tally
from tests.torture.victim import PROGRAM

SEED = 1
FAST: Key = ("counted", "", "hit", "0.1")
SLOW: Key = ("counted", "", "hit", "inf")
SUM: Key = ("sum", "", "hit")
RIGHT: Tally = {FAST: 1, SLOW: 1, SUM: 2.0625}

MAIN = "\nfrom exporter.__main__ import main\nraise SystemExit(main())"
# What a broken exporter does after each save; nothing of it is the exporter's own code.
AFTER_SAVE = """
import os, sys
from pathlib import Path
data = Path(next(word for word in sys.argv if "knowledge" in word).partition("=")[2])
saves, replace = [], os.replace
def broken(source, target):
    saves.append(target)
    {}
os.replace = broken
"""
SABOTAGES = {
    "forgets every other save": (
        *("kill at a call", "lost fell", 8),
        AFTER_SAVE.format("if len(saves) % 2: replace(source, target)"),
    ),
    "makes nothing durable": (
        *("cut power", "lost fell", 12),
        "import os; os.fsync = lambda descriptor: None",
    ),
    "counts twice": (
        *("history", "doubled misread", 3),
        """
from prometheus_client.core import HistogramMetricFamily as Family
add = Family.add_metric
def broken(self, labels, buckets, sum_value):
    twice = [(bound, 2 * count, *more) for bound, count, *more in buckets]
    add(self, labels, twice, 2 * sum_value)
Family.add_metric = broken
""",
    ),
    "leaves a file beside a database": (
        *("history", "harmed", 3),
        AFTER_SAVE.format("replace(source, target); Path(f'{data}-journal').touch()"),
    ),
    "changes a database's mode": (
        *("history", "harmed", 3),
        AFTER_SAVE.format("replace(source, target); data.chmod(0o600)"),
    ),
    "ends by itself": (
        *("lock", "crashed", 3),
        AFTER_SAVE.format("replace(source, target); len(saves) < 3 or os._exit(3)"),
    ),
    "takes too long for a page": (
        *("lock", "crashed", 1),
        """
import time
from prometheus_client.core import HistogramMetricFamily as Family
add = Family.add_metric
Family.add_metric = lambda *words: time.sleep(0.25) or add(*words)
""",
    ),
    "lets in whoever has no certificate": (
        *("intrude", "crashed", 1),
        "import ssl; ssl.CERT_REQUIRED = ssl.CERT_OPTIONAL",
    ),
}


def run(name: str, tries: int, folder: Path, *program: str) -> tuple[Found, list[str]]:
    """Play a scene and return what was found, and what was said."""
    (scene,) = (scene for scene in SCENES if scene.name == name)
    said: list[str] = []
    return scene.run(folder, SEED, tries, said.append, program), said


def test_histories_lose_and_double_nothing(tmp_path: Path) -> None:
    found, said = run("history", 12, tmp_path, *PROGRAM)
    assert found.is_clean, said


@pytest.mark.parametrize("name", SABOTAGES)
def test_broken_exporter_is_reported(name: str, tmp_path: Path) -> None:
    scene, findings, tries, sabotage = SABOTAGES[name]
    found, said = run(scene, tries, tmp_path, "-c", sabotage + MAIN)
    assert any(found.counts[finding] for finding in findings.split()), found
    assert f"--only '{scene}' --seed {SEED} --rounds" in said[0]


def test_scenes_have_names_and_sentences_of_their_own() -> None:
    assert len({scene.name for scene in SCENES}) == len(SCENES)
    assert len({scene.sentence for scene in SCENES} - {""}) == len(SCENES)


def test_table_adds_up_and_what_was_not_tried_is_not_clean() -> None:
    one, other = Found(), Found()
    for number, finding in enumerate(("tries", *FINDINGS)):
        one.note(finding, "", number + 1)
    lines = table([("A", "one", one), ("B", "other", other)]).splitlines()
    assert not one.is_clean
    assert not other.is_clean
    (total,) = (line.split() for line in lines if line.startswith("ALL"))
    assert total == ["ALL", "1", "2", "3", "4", "5", "6", "7", "0"]


def begin(spec: Spec = CACHE) -> Ledger:
    """Return a ledger with a fast and a slow row, none of them read."""
    ledger = Ledger(spec)
    ledger.commit([Row(10, 1, FAST, 0.0625), Row(10, 2, SLOW, 2.0)])
    return ledger


@pytest.mark.parametrize(
    ("page", "lost", "doubled"),
    [
        (RIGHT, 0, 0),
        ({FAST: 1, SUM: 0.0625}, 1, 0),
        ({FAST: 2, SLOW: 1, SUM: 2.125}, 0, 1),
        ({FAST: 2, SUM: 0.125}, 1, 1),
        (RIGHT | {SUM: 2.125}, 1, 0),
        (RIGHT | {MISSED: 1}, 0, 1),
        ({FAST: 1, SUM: 0.0625, PASSED_OVER: 1}, 1, 1),
    ],
    ids=["right", "lost", "doubled", "mistaken", "other value", "missed", "old"],
)
def test_ledger_sees_lost_and_doubled_rows(
    page: Tally, lost: int, doubled: int
) -> None:
    difference = begin().settle(page)
    assert (difference.lost, difference.doubled) == (lost, doubled), difference.text


@pytest.mark.parametrize("is_read", [False, True])
def test_ledger_knows_what_may_become_of_a_pruned_row(is_read: bool) -> None:
    def settle(page: Tally) -> bool:
        ledger = begin()
        if is_read:
            ledger.expose()
        ledger.prune(lambda row: row.id == 1)
        return not ledger.settle(page).text

    missed: Tally = {SLOW: 1, SUM: 2.0, MISSED: 1}
    assert settle(missed)
    assert settle(RIGHT) is is_read
    assert not settle(RIGHT | {MISSED: 1})
    assert not settle({SLOW: 1, SUM: 2.0})


def test_ledger_takes_a_part_with_its_backlog() -> None:
    ledger = begin()
    ledger.expose()
    assert not ledger.check({FAST: 1, SUM: 0.0625}, 1).text
    assert ledger.check({FAST: 1, SUM: 0.0625}, 0).text
    assert ledger.check({FAST: 2, SUM: 0.125}, 0).text


def test_ledger_of_facts_knows_no_missed_rows() -> None:
    """An id without a fact says nothing: INSERT OR IGNORE leaves such ids."""
    ledger = begin(FACTS)
    ledger.prune(lambda row: row.id == 1)
    assert not ledger.check({}, 2).text
    assert not ledger.check({SLOW: 1, SUM: 2.0}, 0).text
    assert ledger.check({SLOW: 1, SUM: 2.0, MISSED: 1}, 0).text
    assert ledger.check({}, 0).text


@pytest.mark.parametrize(
    ("time", "page", "found"),
    [
        (11, {FAST: 2, SLOW: 1, SUM: 2.125}, (0, 0, 0)),
        (11, RIGHT, (1, 0, 0)),
        (11, {FAST: 3, SLOW: 1, SUM: 2.1875}, (0, 1, 0)),
        (10, {FAST: 2, SLOW: 1, SUM: 2.125}, (0, 0, 0)),
        (10, RIGHT | {PASSED_OVER: 1}, (0, 0, 1)),
    ],
    ids=["right", "lost", "doubled", "old", "passed over"],
)
def test_ledger_promises_after_a_swap_what_is_newer(
    time: int, page: Tally, found: tuple[int, int, int]
) -> None:
    ledger = begin()
    assert not ledger.settle(RIGHT).text
    ledger.swap(2)
    ledger.commit([Row(time, 3, FAST, 0.0625)])
    difference = ledger.settle(page)
    assert difference[:2] + difference[3:] == found, difference.text


def test_ledger_promises_nothing_of_rows_that_old_ones_hide_from_a_swap() -> None:
    ledger = begin()
    ledger.swap(0)
    ledger.commit([Row(11, 1, FAST, 0.0625)])
    ledger.commit([Row(9, 2, FAST, 0.0625)])
    ledger.commit([Row(11, 3, SLOW, 2.0)])
    assert not ledger.settle({SLOW: 1, SUM: 2.0}).lost
    ledger.commit([Row(9, 4, FAST, 0.0625), Row(9, 5, FAST, 0.0625)])
    assert not ledger.settle({SLOW: 1, SUM: 2.0, PASSED_OVER: 2}).text
