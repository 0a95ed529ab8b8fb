"""Locks of every kind on the files, and writers that never rest."""

import threading
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial

from tests.databases import App
from tests.servers import wait_until
from tests.torture.files_scene import Scene, collectors
from tests.torture.report import Effort, Fault, Found

WRITE = "INSERT INTO performance_metrics(metric_name, metric_value) VALUES ('a', 1)"
READ = "SELECT COUNT(*) FROM query_times"
TIDY = "PRAGMA journal_mode = delete"  # the others leave an empty journal
PATIENCE_SECONDS = 30.0
ROLLBACK_MODES = ("delete", "truncate", "persist")


@dataclass(frozen=True)
class Lock:
    """How another process takes it, and whether nobody else may read then."""

    name: str
    modes: tuple[str, ...]
    takes: tuple[str, ...]
    shuts_out: bool


EXCLUSIVE_MODE = "PRAGMA locking_mode = EXCLUSIVE"
LOCKS = (
    Lock("shared", ("wal", *ROLLBACK_MODES), ("BEGIN", READ), False),
    Lock("reserved", ("wal", *ROLLBACK_MODES), ("BEGIN IMMEDIATE", WRITE), False),
    Lock("exclusive in WAL mode", ("wal",), ("BEGIN EXCLUSIVE", WRITE), False),
    Lock("exclusive", ROLLBACK_MODES, ("BEGIN EXCLUSIVE", WRITE), True),
    Lock("kept for itself", ("wal", *ROLLBACK_MODES), (EXCLUSIVE_MODE, WRITE), True),
    Lock("kept shared", ROLLBACK_MODES, (EXCLUSIVE_MODE, READ), False),
)
KINDS = [(lock, mode) for lock in LOCKS for mode in lock.modes]


def play_locks(effort: Effort) -> Found:
    """Hold a lock, look, let it go, look again; every kind in turn."""
    with Scene(effort) as scene:
        scene.trial.settle()
        for number in range(effort.times(3 * len(KINDS))):
            lock, mode = KINDS[number % len(KINDS)]
            with scene.attempt(f"{lock.name}, {mode}"):
                _hold(scene, lock, mode)
        return scene.finish()


def _hold(scene: Scene, lock: Lock, mode: str) -> None:
    store = scene.trial.performance
    scene.trial.write()
    store.close()
    with App(store.path, PATIENCE_SECONDS) as app, store.unharmed(lock.name):
        for statement in (f"PRAGMA journal_mode = {mode}", *lock.takes):
            app.run(statement)
        scene.look(*(collectors(store) if lock.shuts_out else ()))
        if lock.takes[0].startswith("BEGIN"):
            app.run(scene.rng.choice(("COMMIT", "ROLLBACK")))
        if scene.rng.random() < 0.5:
            scene.look(strict=False)
        for statement in ("PRAGMA locking_mode = NORMAL", READ, TIDY):
            app.run(statement)


def play_pending(effort: Effort) -> Found:
    """Scrape while a writer waits for readers, and lets no other in: PENDING."""
    with Scene(effort) as scene:
        scene.trial.settle()
        for number in range(effort.times(30)):
            mode = ROLLBACK_MODES[number % len(ROLLBACK_MODES)]
            with scene.attempt(f"pending, {mode}"):
                _wait_for_reader(scene, mode)
        return scene.finish()


def _wait_for_reader(scene: Scene, mode: str) -> None:
    store = scene.trial.performance
    scene.trial.insert(store, "query_times", 1)  # what is unchanged is not read again
    store.close()
    with ExitStack() as stack, store.unharmed("commit"):
        reader, writer = (
            stack.enter_context(App(store.path, PATIENCE_SECONDS)) for _ in range(2)
        )
        for app in (reader, writer):
            app.run(f"PRAGMA journal_mode = {mode}")
        for app, statement in ((reader, READ), (writer, WRITE)):
            app.run("BEGIN")
            app.run(statement)
        waiting = threading.Thread(target=writer.run, args=("COMMIT",))
        waiting.start()
        wait_until(lambda: _is_shut(store.path.stat().st_ino), PATIENCE_SECONDS)
        scene.look(*collectors(store))
        reader.run("COMMIT")
        waiting.join()
        reader.close()
        writer.run(TIDY)


def _is_shut(inode: int) -> bool:
    """Tell whether a writer has the PENDING lock, SQLite's byte 0x40000000."""
    with open("/proc/locks", encoding="ascii") as locks:
        return any(
            f":{inode} " in line and "WRITE" in line and " 1073741824 " in line
            for line in locks
        )


def play_busy(mode: str, effort: Effort) -> Found:
    """Commit without a pause while two scrape without a pause."""
    with Scene(effort) as scene:
        for store in scene.trial.stores:
            store.mode = mode
        scene.trial.settle()
        for _ in range(effort.times(10)):
            with scene.attempt(f"busy, {mode}"):
                scrapings = [scene.trial.begin_scraping(again=True) for _ in range(2)]
                for _ in range(20):
                    store, name = scene.trial.pick()
                    scene.trial.insert(store, name, scene.rng.randint(1, 30))
                scene.trial.end_scraping(*scrapings)
        scene.found.tried *= 20
        return scene.finish()


FAULTS = (
    Fault("files", f"{len(KINDS)} kinds of lock held by another process", play_locks),
    Fault("files", "writer that waits for readers (PENDING)", play_pending),
    *(
        Fault("files", f"commits without pause, {mode}", partial(play_busy, mode))
        for mode in ("wal", "delete")
    ),
)
