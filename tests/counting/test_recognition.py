"""Random histories of a table, read beside a model of how it is recognised.

Each row carries a number of its own, so that the counts tell which rows they hold.
"""

import math
import random
import sqlite3
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import NamedTuple
from unittest import mock

import pytest

from exporter import counting
from exporter.counting.table import Counts, State, Table

HISTORIES = 40
STEPS = 70
DAY_SECONDS = 86_400
SLICES = (4, 5000)  # rows that are read at once
TABLE = Table(
    "audit_log",
    "knowledge_base",
    ("audit_log",),
    source="audit_log",
    label="operation",
    label_limit=10**6,
)
SELECT = """SELECT id, CAST(strftime('%s', timestamp) AS INTEGER),
    CAST(operation AS INTEGER) FROM audit_log ORDER BY id"""
INSERT = "INSERT INTO audit_log VALUES (?, datetime(?, 'unixepoch'), ?)"
SEQUENCE = "INSERT INTO sqlite_sequence VALUES ('audit_log', ?)"


class Row(NamedTuple):
    """When it was written, None if it does not say, and what it is."""

    time: int | None
    number: int


Rows = dict[int, Row]


@dataclass
class Model:
    """The rule that exporter/counting/recognition.py says in words."""

    cursor: int = 0
    newest: int = -1
    mark: int = -1
    missed: int = 0
    passed_over: int = 0
    resets: int = 0
    known: Rows = field(default_factory=dict)
    counted: Counter[int] = field(default_factory=Counter)

    def read(self, rows: Rows, sequence: int) -> None:
        highest = max(sequence, max(rows, default=0))
        self.recognise(rows, sequence, highest)
        start, self.cursor = self.cursor, highest
        self.missed += highest - start - sum(row > start for row in rows)
        for time, number in (row for n, row in rows.items() if n > start):
            if time is not None and time <= self.mark:
                self.passed_over += 1
                continue
            self.counted[number] += 1
            self.newest = max(self.newest, -1 if time is None else time)
        self.remember(rows, start)

    def recognise(self, rows: Rows, sequence: int, highest: int) -> None:
        same = {n: old for n, old in self.known.items() if is_same(old, rows.get(n))}
        newest = max(self.known, default=0)
        differs = len(same) < len(self.known.keys() & rows.keys())
        differs |= any(newest < row <= self.cursor for row in rows)
        if not differs and highest >= self.cursor:
            return
        self.mark, self.known, self.cursor = max(self.mark, self.newest), same, highest
        if differs or sequence or not same:
            self.resets += 1
            self.cursor = self.last_not_newer(rows, highest)
        self.remember(rows, 0)

    def last_not_newer(self, rows: Rows, highest: int) -> int:
        timed = {n: row.time for n, row in rows.items() if row.time is not None}
        not_newer = [n for n, time in timed.items() if time <= self.mark]
        return max(not_newer, default=min(rows) - 1) if timed else highest

    def remember(self, rows: Rows, start: int) -> None:
        for distance in (0, *(2**n for n in range((self.cursor - start).bit_length()))):
            near = [row for row in rows if start < row <= self.cursor - distance]
            self.known = self.known | {n: rows[n] for n in near[-1:]}
        read = sorted((n for n in self.known if n <= self.cursor), reverse=True)
        oldest = {(self.cursor - row).bit_length(): row for row in read}
        self.known = {n: self.known[n] for n in {*read[:1], *oldest.values()}}


def is_same(old: Row, new: Row | None) -> bool:
    return new is not None and old in (new, new._replace(time=None))


@dataclass(frozen=True)
class Scene:
    """What happens in a history beside append, read, tick and pruning."""

    name: str
    swaps: bool = False  # copies take each other's place, and new tables are made
    autoincrement: bool = True  # no id is given out again
    ahead: int = 0  # seconds by which times are ahead of the clock, as local time may
    imports: bool = False  # rows with old times are added
    untimed: float = 0.0  # share of the rows without a time
    deletes_newest: bool = False


SCENES = (
    Scene("append and prune"),
    Scene("local times", ahead=7200),
    Scene("imports", imports=True),
    Scene("a third without time", untimed=0.3),
    Scene("swaps", swaps=True),
    Scene("swaps, local times", swaps=True, ahead=7200),
    Scene("swaps, imports", swaps=True, imports=True),
    Scene("swaps, a third without time", swaps=True, untimed=0.3),
    Scene("ids again", autoincrement=False, deletes_newest=True),
    Scene("ids again, swaps", autoincrement=False, deletes_newest=True, swaps=True),
)


@dataclass
class History:
    """One table, what the exporter knows of it, and what the model does."""

    scene: Scene
    draw: random.Random
    db: sqlite3.Connection
    clock: int = 20 * DAY_SECONDS
    written: int = 0
    copies: list[tuple[Rows, int]] = field(default_factory=list)
    model: Model = field(default_factory=Model)
    state: State = field(default_factory=lambda: State(Counts.zero(TABLE)))

    def __post_init__(self) -> None:
        self.table = replace(TABLE, has_sequences=self.scene.autoincrement)
        self.swap({}, 0)
        self.read()

    @property
    def rows(self) -> Rows:
        return {n: Row(*values) for n, *values in self.db.execute(SELECT)}

    @property
    def sequence(self) -> int:
        """The largest id ever given out, 0 if that is not kept."""
        is_kept = self.scene.autoincrement
        found = is_kept and self.db.execute("SELECT seq FROM sqlite_sequence")
        return max((seq for (seq,) in found or ()), default=0)

    def play(self) -> None:
        choices = [self.append] * 6 + [self.read] * 5
        choices += [self.prune, self.prune_what_was_read, self.tick]
        if self.scene.swaps:
            choices += [self.copy] * 2 + [self.restore] * 2 + [self.recreate]
        if self.scene.deletes_newest:
            choices += [self.delete_newest] * 2
        for _ in range(STEPS):
            self.draw.choice(choices)()
        self.read()

    def read(self) -> None:
        self.model.read(self.rows, self.sequence)
        self.db.execute("BEGIN")
        # A restart in between changes nothing: no state is kept elsewhere.
        reading = counting.read_on(self.db, self.table, self.state, math.inf)
        self.db.rollback()
        assert reading.state
        self.state, model = reading.state, self.model
        rejected = self.state.counts.rejected["before_replacement"]
        found = (self.state.missed, rejected, self.state.resets["replaced"])
        assert found == (model.missed, model.passed_over, model.resets)

    def append(self) -> None:
        is_import = self.scene.imports and self.draw.random() < 0.2
        age = self.draw.randrange(DAY_SECONDS, 5 * DAY_SECONDS) if is_import else 0
        for _ in range(self.draw.choice([1, 1, 2, 7, 40])):
            self.written += 1
            is_untimed = self.draw.random() < self.scene.untimed
            time = None if is_untimed else self.clock + self.scene.ahead - age
            self.db.execute(INSERT, (None, time, self.written))
            self.clock += self.draw.random() < 0.3

    def tick(self) -> None:
        self.clock += self.draw.randrange(1, 5)

    def prune(self) -> None:
        self.delete(lambda ids: (0, self.draw.choice(ids)))

    def prune_what_was_read(self) -> None:
        self.delete(lambda ids: (0, self.state.cursor))

    def delete_newest(self) -> None:
        self.delete(lambda ids: (self.draw.choice(ids[-5:]), ids[-1]))

    def delete(self, choose: Callable[[list[int]], tuple[int, int]]) -> None:
        if ids := [*self.rows]:
            between = "DELETE FROM audit_log WHERE id BETWEEN ? AND ?"
            self.db.execute(between, choose(ids))

    def copy(self) -> None:
        self.copies.append((self.rows, self.sequence))

    def restore(self) -> None:
        if not self.copies:
            return
        if self.draw.random() < 0.5:
            self.copy()
        self.swap(*self.draw.choice(self.copies))

    def recreate(self) -> None:
        self.copy()
        self.clock += 1
        self.swap({}, 0)

    def swap(self, rows: Rows, sequence: int) -> None:
        """Put another table in the place of this one."""
        key = "AUTOINCREMENT" if self.scene.autoincrement else ""
        self.db.executescript(
            f"""DROP TABLE IF EXISTS audit_log; CREATE TABLE audit_log
            (id INTEGER PRIMARY KEY {key}, timestamp TEXT, operation TEXT)"""
        )
        self.db.executemany(INSERT, ((n, *row) for n, row in rows.items()))
        if self.scene.autoincrement and sequence:
            self.db.execute("DELETE FROM sqlite_sequence")
            self.db.execute(SEQUENCE, (sequence,))


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_each_row_counts_once(scene: Scene) -> None:
    for seed in range(HISTORIES):
        with (
            mock.patch.object(counting, "SLICE_ROWS", SLICES[seed % 2]),
            closing(sqlite3.connect(":memory:", isolation_level=None)) as db,
        ):
            history = History(scene, random.Random(seed), db)
            history.play()
        series, model = history.state.counts.series, history.model
        counted = {int(n): sum(one.counts) for (n, _), one in series.items() if n}
        assert counted == model.counted
        # Rows without a time are not recognised when they come back with a copy.
        assert set(counted.values()) <= {1} or (scene.swaps and scene.untimed)
        if not (scene.swaps or scene.deletes_newest):
            assert len(counted) + model.missed == history.written
            assert model.resets == 0
