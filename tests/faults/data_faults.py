"""What befalls the data: writes, prunes, VACUUM, other files, backups, tables anew.

Each is a generator that yields where something may befall the exporter. What a file
cannot tell, such as rows that are thrown away with it unread, is read before.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from tests.faults.store import Store
from tests.faults.trial import Trial

NEAR = 300  # rows: well within what the exporter remembers row by row
FAR = 1500  # rows: beyond that, where their time decides
DAY = 86_400

Steps = Iterator[None]


@dataclass(frozen=True)
class DataFault:
    """Something that befalls a database.

    ``quiet`` if nobody may read meanwhile: a file that is half overwritten in place
    cannot be told from a whole one.
    """

    name: str
    weight: int
    steps: Callable[[Trial], Steps]
    quiet: bool = False


def write(trial: Trial) -> Steps:
    trial.write()
    yield
    trial.write()


def roll_back(trial: Trial) -> Steps:
    trial.write()
    yield
    store, name = trial.pick()
    store.insert(name, trial.size(), commits=False)
    trial.write(store)


def prune_read(trial: Trial) -> Steps:
    trial.write()
    trial.settle()
    yield
    store, name = trial.pick()
    trial.prune(store, name, trial.rng.randint(0, store.tables[name].last))
    trial.write()
    _maybe_move(trial, store)


def prune_unread(trial: Trial) -> Steps:
    trial.settle()
    yield
    store, name = trial.pick()
    count = trial.size() + 1
    trial.insert(store, name, count)
    trial.prune(store, name, store.tables[name].last - trial.rng.randint(0, count))
    yield
    trial.write()
    _maybe_move(trial, store)


def delete_all(trial: Trial) -> Steps:
    trial.write()
    if trial.rng.random() < 0.5:
        trial.settle()
    yield
    store, name = trial.pick()
    trial.tell(f"delete all of {name}")
    store.clear(name)
    if trial.rng.random() < 0.8:
        trial.write()
    _maybe_move(trial, store)


def vacuum(trial: Trial) -> Steps:
    trial.write()
    yield
    for store in trial.stores:
        store.run("VACUUM")
    trial.write()


def vacuum_into(trial: Trial) -> Steps:
    trial.write()
    yield
    store, _ = trial.pick()
    store.put(store.copy())
    trial.write()


def copy(trial: Trial, *, same_inode: bool = False) -> Steps:
    trial.write()
    yield
    store, _ = trial.pick()
    store.put(store.copy(shutil.copy2), same_inode=same_inode)
    trial.write()


def move_away(trial: Trial) -> Steps:
    trial.write()
    yield
    store, _ = trial.pick()
    store.close()
    aside = store.path.with_name("aside.db")
    os.replace(store.path, aside)
    if trial.target.is_up:
        trial.scrape()
    yield
    os.replace(aside, store.path)
    trial.write()


def switch_mode(trial: Trial) -> Steps:
    trial.write()
    yield
    store, _ = trial.pick()
    store.close()
    store.mode = "delete" if store.mode == "wal" else "wal"
    trial.write()


def new_file(trial: Trial) -> Steps:
    trial.write()
    trial.settle()
    yield
    store, _ = trial.pick()
    _write_unread(trial, store)
    _replace(trial, store)
    trial.write(store)
    yield
    trial.write()
    _maybe_move(trial, store)


def new_file_pruned(trial: Trial) -> Steps:
    """Prune the new file before anybody has read it: what was there, nobody knows."""
    trial.settle()
    yield
    store, name = trial.pick()
    _replace(trial, store)
    count = trial.size(1000) + 1
    trial.insert(store, name, count)
    if not trial.is_read:
        trial.prune(store, name, trial.rng.randint(0, count), unseen=True)
    trial.write(store)


def old_file_returns(trial: Trial) -> Steps:
    """Start HAK/GAL without its disk, so that it makes a new file, then mount it."""
    store, _ = trial.pick()
    for name in store.tables:  # a table without any row could not be recognised
        trial.insert(store, name, trial.size() + 1)
    trial.settle()
    old = store.backup()
    _replace(trial, store)
    if trial.rng.random() < 0.7:
        trial.write(store)
    trial.settle()
    yield
    trial.restore(store, old)
    trial.write(store)
    yield
    trial.write()
    _maybe_move(trial, store)


def restore_near(trial: Trial, *, same_inode: bool = False) -> Steps:
    """Restore a backup that lacks some hundreds of rows, in the same second."""
    trial.write()
    trial.settle()
    store, _ = trial.pick()
    backup = store.backup()
    trial.write(store, most=NEAR)
    trial.settle()
    yield
    _write_unread(trial, store)
    trial.restore(store, backup, same_inode=same_inode)
    trial.write(store, most=trial.rng.choice((0, NEAR, 2 * NEAR, 5000)))
    yield
    trial.write()
    _maybe_move(trial, store)


def restore_far(trial: Trial) -> Steps:
    """Restore a backup of the day before."""
    trial.write()
    trial.settle()
    store, name = trial.pick()
    backup = store.backup()
    trial.clock.tick(DAY)
    trial.insert(store, name, FAR + trial.size())
    trial.write(store)
    trial.settle()
    yield
    trial.clock.tick()
    trial.restore(store, backup)
    trial.write(store)
    yield
    trial.write()
    _maybe_move(trial, store)


def restore_kept(trial: Trial) -> Steps:
    """Restore a backup made some rounds before, after whatever was done since."""
    trial.write()
    trial.settle()
    store, _ = trial.pick()
    backup = store.kept or store.backup()
    yield
    trial.clock.tick()
    if store.kept:
        trial.restore(store, backup)
    else:
        trial.tell("keep a backup")
    store.kept = backup
    trial.write(store)


def restore_empty(trial: Trial) -> Steps:
    """Restore a backup of a table that was pruned to nothing."""
    store, name = trial.pick()
    trial.insert(store, name, trial.size(NEAR) + 1)
    trial.settle()
    store.clear(name)
    backup = store.backup()
    trial.insert(store, name, trial.size(NEAR) + 1)
    trial.settle()
    yield
    trial.restore(store, backup)
    trial.write(store, most=2 * NEAR)


def restore_twice(trial: Trial) -> Steps:
    """Restore the wrong backup, then a newer one, whose rows were read before."""
    trial.write(most=NEAR)
    trial.settle()
    store, _ = trial.pick()
    older = store.backup()
    trial.clock.tick()
    trial.write(store, most=NEAR)
    trial.settle()
    newer = store.backup()
    trial.write(store, most=NEAR)
    trial.settle()
    trial.restore(store, older)
    if trial.rng.random() < 0.7:
        trial.write(store, most=NEAR)
    trial.settle()
    yield
    trial.restore(store, newer)
    trial.write(store, most=2 * NEAR)
    _maybe_move(trial, store)


def recreate(trial: Trial) -> Steps:
    trial.write()
    trial.settle()
    yield
    store, name = trial.pick()
    _write_unread(trial, store, name)
    trial.clock.tick()
    trial.tell(f"recreate {name}")
    store.recreate(name)
    trial.insert(store, name, trial.size())
    yield
    trial.write()
    _maybe_move(trial, store)


def change_facts(trial: Trial) -> Steps:
    """Change and delete facts that were read, then perhaps move the file.

    Facts of more than a second are among the newest: by these they are recognised.
    """
    store = trial.knowledge_base
    for _ in range(2):
        trial.insert(store, "facts", 2 * NEAR)
        trial.clock.tick()
    trial.write(store, most=NEAR)
    trial.settle()
    last = store.tables["facts"].last
    share = trial.rng.choice((1, 2, 10, 1000))
    trial.tell(f"change one in {share} facts, up to {last}")
    store.run(
        "UPDATE facts SET statement = statement || '.', confidence = 0.5"
        f" WHERE id = {last} OR (id % {share} = 0 AND id < {last})"
    )
    if trial.rng.random() < 0.5:
        trial.settle()
    yield
    some = trial.rng.sample(range(1, last + 1), min(last, 20))
    store.delete("facts", set(some))
    trial.write()
    _maybe_move(trial, store)


def _replace(trial: Trial, store: Store) -> None:
    """Put an empty file in place; that takes a moment."""
    trial.clock.tick()
    store.mode = trial.rng.choice(("wal", "delete"))
    trial.tell(f"new file, {store.mode}")
    store.replace(renamed=trial.rng.random() < 0.5)


def _write_unread(trial: Trial, store: Store, *names: str) -> None:
    """Write rows that are thrown away before anybody can have read them."""
    if not trial.is_read and trial.rng.random() < 0.3:
        for name in names or store.tables:
            trial.insert(store, name, trial.size(100))


def _maybe_move(trial: Trial, store: Store) -> None:
    """Put a copy in the file's place, so that the inode says nothing."""
    if trial.rng.random() < 0.2:
        trial.tell("move")
        store.put(store.copy())


DATA_FAULTS = (
    DataFault("rows written", 6, write),
    DataFault("write rolled back", 2, roll_back),
    DataFault("read rows pruned", 8, prune_read),
    DataFault("unread rows pruned", 7, prune_unread),
    DataFault("all rows deleted", 4, delete_all),
    DataFault("VACUUM", 4, vacuum),
    DataFault("VACUUM INTO, renamed over", 4, vacuum_into),
    DataFault("copied, renamed over", 4, copy),
    DataFault("copied in place", 3, partial(copy, same_inode=True), quiet=True),
    DataFault("moved away and back", 3, move_away),
    DataFault("journal mode switched", 3, switch_mode, quiet=True),
    DataFault("new file", 6, new_file),
    DataFault("new file, pruned unread", 3, new_file_pruned),
    DataFault("old file comes back", 4, old_file_returns),
    DataFault("backup restored", 7, restore_near),
    DataFault("the same, in place", 5, partial(restore_near, same_inode=True), True),
    DataFault("backup from far back", 6, restore_far),
    DataFault("backup from rounds before", 6, restore_kept),
    DataFault("backup of an empty table", 3, restore_empty),
    DataFault("older, then newer backup", 5, restore_twice),
    DataFault("table recreated", 6, recreate),
    DataFault("facts changed, deleted", 5, change_facts),
)
