"""Whatever befalls a table, in any order: each row counts once, as a model says."""

import tempfile
from dataclasses import dataclass, field
from itertools import count
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from exporter.fold import Table
from exporter.tail import PAST_LIVES
from tests.databases import Files
from tests.stories import FACTS, QUERIES, Story


@dataclass
class Content:
    """What a table holds: numbers by id, of all rows written and of those left."""

    written: dict[int, int] = field(default_factory=dict)
    rows: dict[int, int] = field(default_factory=dict)

    @property
    def high_water(self) -> int:
        return max(self.written, default=0)

    @property
    def is_pruned(self) -> bool:
        return self.rows != self.written

    def copy(self) -> "Content":
        return Content(dict(self.written), dict(self.rows))

    def continues(self, older: "Content") -> bool:
        """Say whether all that was ever written to ``older`` was written here too."""
        return older.written.items() <= self.written.items()


@dataclass
class Backup:
    path: Path
    content: Content


class Machine(RuleBasedStateMachine):
    """A table, its exporter, and a model of both.

    Rows are known by their numbers. ``passed`` are those that the exporter has passed,
    ``remembered`` those of them that were there then, ``counted`` those it has to show.
    A table is unsettled from when it was replaced until the exporter has seen it: rows
    deleted meanwhile leave no trace, so that none are.
    """

    table: Table = QUERIES
    spread = True

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.files = Files(Path(self._folder.name))
        self.story = Story(self.files, self.table, self.spread)
        self.file = self.story.file
        self.content = Content()
        self.backups: list[Backup] = []
        self.counted: list[int] = []
        self.passed: set[int] = set()
        self.remembered: set[int] = set()
        self.turns = 0
        self.missed = 0
        self.is_settled = True
        self.is_lost = False
        self.counters: dict[tuple[object, ...], int] = {}
        self.shown: dict[str, Any] = {"rows": 0, "sum": 0, "missed": 0}
        self.scrape()

    def teardown(self) -> None:
        self.files.close()
        self._folder.cleanup()

    @rule(number=st.sampled_from((1, 2, 3, 5, 12)))
    def insert(self, number: int) -> None:
        first = self.story.written + 1
        new = dict(zip(self.story.write(number), count(first), strict=False))
        self.content.written |= new
        self.content.rows |= new

    @precondition(lambda self: self.is_settled and self.content.rows)
    @rule(data=st.data())
    def delete_one(self, data: st.DataObject) -> None:
        row = data.draw(st.sampled_from(sorted(self.content.rows)))
        self.story.delete(row)
        del self.content.rows[row]

    @precondition(lambda self: self.is_settled)
    @rule(keep=st.integers(0, 5))
    def prune(self, keep: int) -> None:
        self.story.prune(keep)
        newest = sorted(self.content.rows)[len(self.content.rows) - keep :]
        kept = newest if keep < len(self.content.rows) else self.content.rows
        self.content.rows = {row: self.content.rows[row] for row in kept}

    @rule()
    def vacuum(self) -> None:
        self.file.vacuum()

    @rule(mode=st.sampled_from(("PASSIVE", "FULL", "RESTART", "TRUNCATE")))
    def fold_the_log(self, mode: str) -> None:
        self.file.run(f"PRAGMA wal_checkpoint({mode})")

    @rule()
    def vacuum_into(self) -> None:
        self.file.vacuum_into()

    @rule()
    def move_to_copy(self) -> None:
        self.file.move_to_copy()

    @rule()
    def close_and_open(self) -> None:
        self.file.close()
        self.file.open()

    @rule()
    def make_backup(self) -> None:
        path = self.file.backup(f"backup-{len(self.backups)}.db")
        self.backups.append(Backup(path, self.content.copy()))

    @precondition(lambda self: self.restorable())
    @rule(data=st.data(), same_inode=st.booleans())
    def restore_backup(self, data: st.DataObject, same_inode: bool) -> None:
        backup = data.draw(st.sampled_from(self.restorable()))
        self.file.restore(backup.path, same_inode)
        self.turn_to(backup.content.copy())

    @rule(same_inode=st.booleans())
    def replace_by_a_new_file(self, same_inode: bool) -> None:
        self.file.replace(same_inode)
        self.turn_to(Content())

    @rule()
    def drop_and_recreate(self) -> None:
        self.file.recreate(self.table.name)
        self.turn_to(Content())

    @rule()
    def scrape(self) -> None:
        self.story.scrape()
        self.story.save()
        if self.is_lost:
            self.counters = {}  # the life of each series ends here
        self.follow()
        counters = self.read_counters()
        for key, number in self.counters.items():
            assert counters[key] >= number, f"{key} fell"
        self.counters = counters
        self.shown = {n: v for n, v in self.story.found.items() if n != "resets"}

    @rule(number=st.integers(1, 4))
    def insert_and_scrape(self, number: int) -> None:
        self.insert(number)
        self.scrape()

    @rule()
    def crash(self) -> None:
        self.restart()

    @rule()
    def crash_before_the_checkpoint(self) -> None:
        self.story.scrape()
        self.restart()

    @rule()
    def lose_checkpoint(self) -> None:
        self.story.lose_checkpoint()
        self.is_lost = True

    @invariant()
    def shows_what_the_model_has_counted(self) -> None:
        if not self.is_lost:
            wanted = {"rows": len(self.counted), "sum": sum(self.counted)}
            assert self.shown == {**wanted, "missed": self.missed}

    def read_counters(self) -> dict[tuple[object, ...], int]:
        """Return each counter that a page would show, but for sums."""
        state = self.story.state
        numbers: dict[tuple[object, ...], int] = {
            (*key, place): number
            for key, one in state.counts.series.items()
            for place, number in enumerate(one.counts)
        }
        numbers |= {("resets", reason): n for reason, n in state.resets.items()}
        return {**numbers, ("missed",): state.missed}

    def restart(self) -> None:
        if not self.is_lost:
            self.story.restart()
        else:
            self.story.lose_checkpoint()

    def turn_to(self, content: Content) -> None:
        self.content = content
        self.is_settled = False
        self.turns += 1

    def restorable(self) -> list[Backup]:
        """Return the backups whose rows the exporter can tell from new ones."""
        return [backup for backup in self.backups if self.is_known(backup.content)]

    def is_known(self, content: Content) -> bool:
        """Say whether these are older rows of this table, or of one not long past.

        Without the help of time, rows that were missed look like new ones.
        """
        passed = self.passed & set(content.rows.values())
        if not (self.spread or passed <= self.remembered):
            return False
        if self.content.continues(content):
            return True
        newest = content.rows.get(self.cursor_in(content))
        return self.turns <= PAST_LIVES and newest in self.remembered

    def cursor_in(self, content: Content) -> int:
        """Return the last id that the exporter has passed."""
        written = content.written.items()
        return max((row for row, n in written if n in self.passed), default=0)

    def follow(self) -> None:
        """Do in the model what a scrape does."""
        content = self.content
        if self.is_lost:
            self.counted, self.missed, self.turns, self.is_lost = [], 0, 0, False
            self.passed = set(content.written.values()) if content.is_pruned else set()
            self.remembered = set(content.rows.values()) & self.passed
            self.backups = [b for b in self.backups if content.continues(b.content)]
        new = [number for number in content.rows.values() if number not in self.passed]
        self.missed += content.high_water - self.cursor_in(content) - len(new)
        self.counted += new
        self.remembered.update(new)
        self.passed.update(content.written.values())
        self.is_settled = True


class InOneSecond(Machine):
    """All rows have the same time: only their content tells them apart."""

    spread = False


class OfFacts(Machine):
    """Rows that could be updated: in the same file, only their time counts."""

    table = FACTS


MACHINES = (Machine, InOneSecond, OfFacts)
SETTINGS = settings(
    max_examples=25,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=list(HealthCheck),
)
TestSpread = Machine.TestCase
TestSpread.settings = SETTINGS
TestInOneSecond = InOneSecond.TestCase
TestInOneSecond.settings = SETTINGS
TestOfFacts = OfFacts.TestCase
TestOfFacts.settings = SETTINGS
