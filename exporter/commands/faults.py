"""Faults that ``simulate`` causes on demand: the real conditions, in the files.

A fault changes how HAK/GAL behaves, or what is done with the rows it writes, or holds
something in the files as long as the run lasts.
"""

import itertools
import sqlite3
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from contextlib import nullcontext as nothing
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from exporter.commands.activity import NORMAL, Batch, Operation, Totals
from exporter.commands.simulate import (
    Simulator,
    Write,
    connect,
    explained,
    patiently,
    write_batch,
)
from exporter.errors import DatabaseError

# More than the exporter keeps apart by default.
_MANY_TYPES = tuple(Operation(f"type_{n}", 0.010, 0.030) for n in range(150))
_NO_ADDING = tuple(o for o in NORMAL.operations if o.query_type != "add_fact")
_PRUNE = tuple(
    f"DELETE FROM {table} WHERE id < (SELECT MAX(id) FROM {table})"
    for table in ("query_times", "cache_events")
)
_JOURNAL_MODE = "PRAGMA journal_mode"
_READ = "SELECT COUNT(*) FROM sqlite_schema"

Paths = Sequence[Path]
Hold = Callable[[Paths, threading.Event], AbstractContextManager[object]]


def prune(db: sqlite3.Connection, batch: Batch) -> Counter[str]:
    """Delete all events but the newest; some have just been committed."""
    for statement in _PRUNE:
        db.execute(statement)
    return Counter()


@contextmanager
def locked(paths: Paths, stop: threading.Event) -> Iterator[None]:
    """Have the databases for ourselves: in WAL mode, too, nobody else can read.

    A log with content belongs to it: without one, a file could be read past the lock.
    """

    def take() -> Counter[str]:
        db.execute("BEGIN EXCLUSIVE")
        ((version,),) = db.execute("PRAGMA user_version").fetchall()
        db.execute(f"PRAGMA user_version = {int(version)}")
        db.execute("COMMIT")
        db.execute("BEGIN EXCLUSIVE")
        return Counter()

    with ExitStack() as stack:
        for path in paths:
            with explained(path):
                db = stack.enter_context(closing(connect(path)))
                db.execute("PRAGMA locking_mode = EXCLUSIVE")
                patiently(take, stop)
        yield


@contextmanager
def read_for_ever(paths: Paths, stop: threading.Event) -> Iterator[None]:
    """Begin to read and never end it: logs can no longer be emptied."""
    with ExitStack() as stack:
        for path in paths:
            with explained(path):
                db = stack.enter_context(closing(connect(path)))
                ((mode,),) = db.execute(_JOURNAL_MODE).fetchall()
                if mode != "wal":
                    raise DatabaseError(
                        f"cannot make the log of {path} grow: it has none, its journal"
                        f" mode is {mode}; set it with PRAGMA journal_mode = WAL"
                    )
                db.execute("BEGIN")
                db.execute(_READ).fetchall()
        yield


@dataclass(frozen=True)
class Fault:
    """What goes wrong.

    Args:
        does: the words for ``--help``.
        changes: fields of ``NORMAL`` that differ.
        write_events: done with each batch instead of writing it.
        hold: held as long as the run lasts.
    """

    does: str
    changes: Mapping[str, Any] = field(default_factory=dict)
    write_events: Sequence[Write] = ()
    hold: Hold = lambda paths, stop: nothing()

    @property
    def fields(self) -> set[str]:
        """What this fault decides, so that no other can."""
        return {*self.changes, *(["write_events"] if self.write_events else [])}


FAULTS = {
    "slow-queries": Fault("Queries take ten times as long.", {"slowness": 10.0}),
    "failures": Fault("Every second query fails.", {"failure_share": 0.5}),
    "cache-misses": Fault("Of ten look-ups one hits.", {"hit_share": 0.1}),
    "no-writes": Fault(
        "The files are held open, nothing is written.", {"is_active": False}
    ),
    "lock": Fault(
        "The files are locked, nothing is written.", {"is_active": False}, hold=locked
    ),
    "facts-lost": Fault(
        "Each round removes a fact, none adds one.",
        {"removal_share": 1.0, "operations": _NO_ADDING},
    ),
    "wal-growth": Fault(
        "A reader never ends, the logs grow with --rate.", hold=read_for_ever
    ),
    "prune-unread": Fault(
        "Events are deleted as soon as they are written.",
        write_events=(write_batch, prune),
    ),
    "broken-rows": Fault(
        "Every second query has a negative, infinite or no time.",
        {"broken_share": 0.5},
    ),
    "query-types": Fault(
        f"Queries have {len(_MANY_TYPES)} types.", {"operations": _MANY_TYPES}
    ),
}


def contradiction(names: Sequence[str]) -> str | None:
    """Return why these faults cannot be had at the same time, None if they can."""
    for first, second in itertools.combinations(dict.fromkeys(names), 2):
        one, other = FAULTS[first], FAULTS[second]
        idle = "is_active" in one.fields | other.fields
        if idle or one.fields & other.fields:
            return f"{first} and {second} exclude each other"
    return None


class Saboteur(Simulator):
    """A simulator that causes faults while it runs."""

    def __init__(
        self, *paths: Path, faults: Sequence[str] = (), **options: Any
    ) -> None:
        """Take the faults by name, and what a ``Simulator`` takes."""
        chosen = [FAULTS[name] for name in dict.fromkeys(faults)]
        changes = {name: v for f in chosen for name, v in f.changes.items()}
        writes = [write for fault in chosen for write in fault.write_events]
        options |= {"behaviour": replace(NORMAL, **changes), "write_events": writes}
        super().__init__(*paths, **options)
        self._paths = paths
        self._holds = [fault.hold for fault in chosen]

    def run(self, stop: threading.Event, duration: float | None = None) -> Totals:
        """Write until the event is set or the duration, in seconds, is over.

        Raises:
            DatabaseError: what is to be held is somebody else's, or writing failed.
        """
        with ExitStack() as stack:
            for hold in self._holds:
                stack.enter_context(hold(self._paths, stop))
            return super().run(stop, duration)
