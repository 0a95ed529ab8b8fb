"""Random histories of a table: each row counts once, whatever happens to the file.

Each row carries an operation of its own, so that the counts tell which rows they hold.
"""

import math
import random
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import dataclass, field, replace

import pytest

from exporter.counting import read_on
from exporter.counting.recognition import DAY_SECONDS
from exporter.counting.table import Counts, State, Table

HISTORIES = 40
STEPS = 70
TABLE = Table(
    "audit_log",
    "knowledge_base",
    ("audit_log",),
    source="audit_log",
    label="operation",
    known_labels=("0",),
    label_limit=10**6,
)
Rows = list[tuple[int, str | None, str]]


@dataclass(frozen=True)
class Scene:
    """What happens in a history beside append, read, tick and pruning.

    Args:
        swaps: copies of the table take each other's place, and new ones are made.
        autoincrement: no id is given out again.
        ahead: seconds by which times are ahead of the clock, as local time may be.
        imports: rows with old times are added.
        untimed: share of the rows without a time.
        deletes_newest: the newest rows are deleted, too.
    """

    name: str
    swaps: bool = False
    autoincrement: bool = True
    ahead: int = 0
    imports: bool = False
    untimed: float = 0.0
    deletes_newest: bool = False

    @property
    def is_exact(self) -> bool:
        """Whether no row may be lost and no reset may be reported."""
        return not (self.swaps or self.deletes_newest)


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
    """One table, its tail, and what may be missing in the counts.

    ``excused`` rows were deleted before they were read, or written before a swap.
    """

    scene: Scene
    draw: random.Random
    db: sqlite3.Connection
    clock: int = 20 * DAY_SECONDS
    written: int = 0
    excused: set[int] = field(default_factory=set)
    copies: list[tuple[Rows, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.table = replace(TABLE, has_sequences=self.scene.autoincrement)
        self.state = State(Counts.zero(TABLE))
        self.create()
        self.read()

    def create(self) -> None:
        key = "AUTOINCREMENT" if self.scene.autoincrement else ""
        self.db.execute("DROP TABLE IF EXISTS audit_log")
        self.db.execute(
            f"CREATE TABLE audit_log (id INTEGER PRIMARY KEY {key},"
            " timestamp TEXT, operation TEXT)"
        )

    @property
    def rows(self) -> Rows:
        return self.db.execute("SELECT * FROM audit_log ORDER BY id").fetchall()

    @property
    def sequence(self) -> int:
        found = (
            self.scene.autoincrement
            and self.db.execute(
                "SELECT seq FROM sqlite_sequence WHERE name = 'audit_log'"
            ).fetchone()
        )
        return found[0] if found else 0

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

    def append(self) -> None:
        is_import = self.scene.imports and self.draw.random() < 0.2
        age = self.draw.randrange(DAY_SECONDS, 5 * DAY_SECONDS) if is_import else 0
        for _ in range(self.draw.choice([1, 1, 2, 7, 40])):
            self.written += 1
            is_untimed = self.draw.random() < self.scene.untimed
            self.db.execute(
                "INSERT INTO audit_log (timestamp, operation)"
                " VALUES (datetime(?, 'unixepoch'), ?)",
                (
                    None if is_untimed else self.clock + self.scene.ahead - age,
                    str(self.written),
                ),
            )
            self.clock += self.draw.random() < 0.3

    def tick(self) -> None:
        self.clock += self.draw.randrange(1, 5)

    def read(self) -> None:
        self.db.execute("BEGIN")
        # A restart in between changes nothing, so that no state is kept elsewhere.
        reading = read_on(self.db, self.table, self.state, math.inf)
        assert reading.state
        self.state = reading.state
        self.db.rollback()

    def prune(self) -> None:
        self.delete(lambda ids: (min(ids), self.draw.choice(ids)))

    def prune_what_was_read(self) -> None:
        cursor = self.state.cursor
        self.db.execute("DELETE FROM audit_log WHERE id <= ?", (cursor,))

    def delete_newest(self) -> None:
        self.delete(lambda ids: (self.draw.choice(ids[-5:]), max(ids)))

    def delete(self, choose: Callable[[list[int]], tuple[int, int]]) -> None:
        if ids := [row for row, _, _ in self.rows]:
            between = "FROM audit_log WHERE id BETWEEN ? AND ?", choose(ids)
            gone = self.db.execute(f"SELECT operation {between[0]}", between[1])
            self.excused |= {int(number) for (number,) in gone}
            self.db.execute(f"DELETE {between[0]}", between[1])

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
        self.swap([], 0)

    def swap(self, rows: Rows, sequence: int) -> None:
        self.create()
        self.db.executemany("INSERT INTO audit_log VALUES (?, ?, ?)", rows)
        if self.scene.autoincrement and sequence:
            self.db.execute("DELETE FROM sqlite_sequence")
            row = ("audit_log", sequence)
            self.db.execute("INSERT INTO sqlite_sequence VALUES (?, ?)", row)
        self.excused = set(range(self.written + 1))


def histories(scene: Scene) -> Iterator[History]:
    for seed in range(HISTORIES):
        with closing(sqlite3.connect(":memory:", isolation_level=None)) as db:
            history = History(scene, random.Random(seed), db)
            history.play()
            yield history


@pytest.mark.parametrize("scene", SCENES, ids=lambda scene: scene.name)
def test_each_row_counts_once(scene: Scene) -> None:
    doubled = lost = resets = written = 0
    for history in histories(scene):
        series = history.state.counts.series
        counted = {
            int(n): sum(one.counts) for (n, _), one in series.items() if n != "0"
        }
        written += history.written
        doubled += sum(number - 1 for number in counted.values())
        lost += len(
            set(range(1, history.written + 1)) - counted.keys() - history.excused
        )
        resets += history.state.resets["replaced"]
    print(
        f"{scene.name}: {written} rows, {doubled} doubled, {lost} lost, {resets} resets"
    )
    assert doubled == 0 or (scene.swaps and scene.untimed)
    if scene.is_exact:
        assert (lost, resets) == (0, 0)
