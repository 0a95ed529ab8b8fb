"""The fault test in short; ``make faults`` plays a thousand rounds."""

from pathlib import Path

import pytest

from tests.faults.ledger import Ledger, Row
from tests.faults.rows import MISSED, PASSED_OVER, Key, Tally
from tests.faults.run import Run

ROUNDS = 25
FAST: Key = ("counted", "", "hit", "0.1")
SLOW: Key = ("counted", "", "hit", "inf")
SUM: Key = ("sum", "", "hit")


def test_rounds_of_faults_lose_and_double_nothing(tmp_path: Path) -> None:
    with Run(tmp_path, seed=1) as run:
        run.play(ROUNDS)
    assert not run.failed, run.report()


def begin(*, burns_ids: bool = False) -> Ledger:
    """Return a ledger with a fast and a slow row, none of them read."""
    ledger = Ledger(burns_ids=burns_ids)
    ledger.commit([Row(10, 1, FAST, 0.0625), Row(10, 2, SLOW, 2.0)])
    return ledger


@pytest.mark.parametrize(
    ("page", "lost", "doubled"),
    [
        ({FAST: 1, SLOW: 1, SUM: 2.0625}, 0, 0),
        ({FAST: 1, SUM: 0.0625}, 1, 0),
        ({FAST: 2, SLOW: 1, SUM: 2.125}, 0, 1),
        ({FAST: 2, SUM: 0.125}, 1, 1),
        ({FAST: 1, SLOW: 1, SUM: 2.125}, 1, 0),
        ({FAST: 1, SLOW: 1, SUM: 2.0625, MISSED: 1}, 0, 1),
        ({FAST: 1, SUM: 0.0625, PASSED_OVER: 1}, 1, 1),
    ],
    ids=["right", "lost", "doubled", "mistaken", "other value", "missed", "old"],
)
def test_ledger_sees_lost_and_doubled_rows(
    page: Tally, lost: int, doubled: int
) -> None:
    difference = begin().settle(page)
    assert (difference.lost, difference.doubled) == (lost, doubled), difference.text


@pytest.mark.parametrize(
    ("is_read", "page", "is_right"),
    [
        (False, {SLOW: 1, SUM: 2.0, MISSED: 1}, True),
        (False, {FAST: 1, SLOW: 1, SUM: 2.0625}, False),
        (True, {SLOW: 1, SUM: 2.0, MISSED: 1}, True),
        (True, {FAST: 1, SLOW: 1, SUM: 2.0625}, True),
        (True, {SLOW: 1, SUM: 2.0}, False),
        (True, {FAST: 1, SLOW: 1, SUM: 2.0625, MISSED: 1}, False),
    ],
    ids=["missed", "read?", "maybe missed", "maybe read", "neither", "both"],
)
def test_ledger_knows_what_may_become_of_a_pruned_row(
    is_read: bool, page: Tally, is_right: bool
) -> None:
    ledger = begin()
    if is_read:
        ledger.expose()
    ledger.prune(lambda row: row.id == 1)
    assert (not ledger.settle(page).text) == is_right


def test_ledger_takes_a_part_with_its_backlog() -> None:
    ledger = begin()
    ledger.expose()
    assert not ledger.check({FAST: 1, SUM: 0.0625}, 1).text
    assert ledger.check({FAST: 1, SUM: 0.0625}, 0).text
    assert ledger.check({FAST: 2, SUM: 0.125}, 0).text


def test_ledger_of_facts_knows_no_missed_rows() -> None:
    """An id without a fact says nothing: INSERT OR IGNORE leaves such ids."""
    ledger = begin(burns_ids=True)
    ledger.prune(lambda row: row.id == 1)
    assert not ledger.check({}, 2).text
    assert not ledger.check({SLOW: 1, SUM: 2.0}, 0).text
    assert ledger.check({SLOW: 1, SUM: 2.0}, 2).text
    assert ledger.check({SLOW: 1, SUM: 2.0, MISSED: 1}, 0).text
    assert ledger.check({}, 0).text
    assert not ledger.settle({SLOW: 1, SUM: 2.0}).text


@pytest.mark.parametrize(
    ("time", "page", "found"),
    [
        (11, {FAST: 2, SLOW: 1, SUM: 2.125}, (0, 0, 0)),
        (11, {FAST: 1, SLOW: 1, SUM: 2.0625}, (1, 0, 0)),
        (11, {FAST: 3, SLOW: 1, SUM: 2.1875}, (0, 1, 0)),
        (10, {FAST: 2, SLOW: 1, SUM: 2.125}, (0, 0, 0)),
        (10, {FAST: 1, SLOW: 1, SUM: 2.0625, PASSED_OVER: 1}, (0, 0, 1)),
        (None, {FAST: 3, SLOW: 1, SUM: 2.1875}, (0, 0, 1)),
        (None, {FAST: 4, SLOW: 1, SUM: 2.25}, (0, 1, 1)),
    ],
    ids=["right", "lost", "doubled", "old", "passed over", "left over", "doubled more"],
)
def test_ledger_promises_after_a_swap_what_is_newer(
    time: int | None, page: Tally, found: tuple[int, int, int]
) -> None:
    ledger = begin()
    assert not ledger.settle({FAST: 1, SLOW: 1, SUM: 2.0625}).text
    if time is None:
        ledger.commit([Row(time, 3, FAST, 0.0625)])
        assert not ledger.settle({FAST: 2, SLOW: 1, SUM: 2.125}).text
    assert ledger.swap(2) == 0
    if time:
        ledger.commit([Row(time, 3, FAST, 0.0625)])
    difference = ledger.settle(page)
    assert difference[:2] + difference[3:] == found, difference.text
