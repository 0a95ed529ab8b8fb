"""The torture in short, and whether it notices what it is there to notice."""

from pathlib import Path

import pytest

from tests.torture.__main__ import SCENES
from tests.torture.files import KINDS
from tests.torture.ledger import Ledger, Row
from tests.torture.report import Found
from tests.torture.rows import CACHE, MISSED, PASSED_OVER, Key, Tally
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
    "takes any table for the one that it knows": (
        *("history", "lost", 3),
        "import zlib; zlib.crc32 = lambda *_: 0",
    ),
    "leaves a file beside a database": (
        *("history", "harmed", 3),
        AFTER_SAVE.format("replace(source, target); Path(f'{data}-journal').touch()"),
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
}


def run(name: str, tries: int, folder: Path, *program: str) -> tuple[Found, list[str]]:
    """Play a scene and return what was found, and what was said."""
    (scene,) = (scene for scene in SCENES if scene.name == name)
    said: list[str] = []
    return scene.run(folder, SEED, tries, said.append, program), said


@pytest.mark.parametrize(("name", "tries"), [("history", 25), ("lock", len(KINDS))])
def test_nothing_is_lost_doubled_or_harmed(
    name: str, tries: int, tmp_path: Path
) -> None:
    found, said = run(name, tries, tmp_path, *PROGRAM)
    assert found.is_clean, said


@pytest.mark.parametrize("name", SABOTAGES)
def test_broken_exporter_is_reported(name: str, tmp_path: Path) -> None:
    scene, findings, tries, sabotage = SABOTAGES[name]
    found, said = run(scene, tries, tmp_path, "-c", sabotage + MAIN)
    assert any(found.counts[finding] for finding in findings.split()), found
    assert f"--only '{scene}' --seed {SEED} --rounds" in said[0]


def test_scenes_have_names_and_sentences_of_their_own() -> None:
    assert not Found().is_clean  # what was not tried
    assert len({scene.name for scene in SCENES}) == len(SCENES)
    assert len({scene.sentence for scene in SCENES} - {""}) == len(SCENES)


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
    ledger = Ledger(CACHE)
    ledger.commit([Row(10, 1, FAST, 0.0625), Row(10, 2, SLOW, 2.0)])
    difference = ledger.settle(page)
    assert (difference.lost, difference.doubled) == (lost, doubled), difference.text
