"""What befalls the data: writes, prunes, VACUUM, other files, backups, tables anew.

Each is a generator that yields where something may befall the exporter.
"""

import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial

from tests.faults.store import Store
from tests.faults.trial import Trial

SOME = 600  # rows
FEW = 3
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


def import_old(trial: Trial) -> Steps:
    """Write rows that are older than those before, or as old as the last swap."""
    trial.write()
    yield
    store, name = trial.pick()
    trial.insert(store, name, trial.size(SOME), age=trial.rng.choice((1, 2, 5, DAY)))
    trial.write()


def write_untimed(trial: Trial) -> Steps:
    """Write rows without a time: few, because each may count again at a swap."""
    trial.write()
    yield
    store, name = trial.pick()
    trial.insert(store, name, trial.size(FEW), age=None)
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
    """Prune the new file, perhaps before anybody has read it."""
    trial.settle()
    yield
    store, name = trial.pick()
    _replace(trial, store)
    count = trial.size(1000) + 1
    trial.insert(store, name, count)
    trial.prune(store, name, trial.rng.randint(0, count))
    trial.write(store)


def restore(trial: Trial, *, same_inode: bool = False) -> Steps:
    """Restore a backup that lacks some rows, in the same second or a day later."""
    trial.write()
    trial.settle()
    store, _ = trial.pick()
    backup = store.backup()
    trial.clock.tick(trial.rng.choice((0, 0, DAY)))
    trial.write(store, most=SOME)
    trial.settle()
    yield
    _write_unread(trial, store)
    trial.restore(store, backup, same_inode=same_inode)
    trial.write(store, most=trial.rng.choice((0, SOME, 5000)))
    yield
    trial.write()
    _maybe_move(trial, store)


def swap_copies(trial: Trial) -> Steps:
    """Put backups of some rounds in place in any order, and write to some of them.

    Perhaps HAK/GAL started without its disk first, and so made a new file.
    """
    trial.write(most=SOME)
    trial.settle()
    store, name = trial.pick()
    if trial.rng.random() < 0.2:
        store.clear(name)
        trial.settle()
    trial.keep(store)
    if trial.rng.random() < 0.3:
        _replace(trial, store)
        trial.settle()
    for _ in range(trial.rng.randint(0, 3)):
        _put_kept(trial, store)
        if trial.rng.random() < 0.7:
            trial.settle()
            trial.keep(store)
    for _ in range(trial.rng.randint(1, 3)):
        yield
        _write_unread(trial, store)
        _put_kept(trial, store)
    _maybe_move(trial, store)


def recreate(trial: Trial) -> Steps:
    trial.write()
    trial.settle()
    yield
    store, name = trial.pick()
    _write_unread(trial, store, name)
    trial.maybe_tick()
    trial.tell(f"recreate {name}")
    store.recreate(name)
    trial.insert(store, name, trial.size())
    yield
    trial.write()
    _maybe_move(trial, store)


def change_facts(trial: Trial) -> Steps:
    """Change and delete facts that were read, then perhaps move the file."""
    store = trial.knowledge_base
    trial.insert(store, "facts", trial.size(SOME) + 1)
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
    """Put an empty file in place."""
    trial.maybe_tick()
    store.mode = trial.rng.choice(("wal", "delete"))
    trial.tell(f"new file, {store.mode}")
    store.replace(renamed=trial.rng.random() < 0.5)


def _write_unread(trial: Trial, store: Store, *names: str) -> None:
    """Write rows that are thrown away, most of them before anybody has read them."""
    if trial.rng.random() < 0.3:
        for name in names or store.tables:
            trial.insert(store, name, trial.size(100))


def _put_kept(trial: Trial, store: Store) -> None:
    """Put one of some backups in place, and perhaps write to it."""
    trial.restore(store, trial.rng.choice(store.kept))
    if trial.rng.random() < 0.7:
        trial.write(store, most=SOME)


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
    DataFault("rows with old times", 4, import_old),
    DataFault("rows without a time", 2, write_untimed),
    DataFault("new file", 6, new_file),
    DataFault("new file, pruned unread", 3, new_file_pruned),
    DataFault("backup restored", 8, restore),
    DataFault("the same, in place", 6, partial(restore, same_inode=True), True),
    DataFault("copies in any order", 16, swap_copies),
    DataFault("table recreated", 6, recreate),
    DataFault("facts changed, deleted", 4, change_facts),
)
