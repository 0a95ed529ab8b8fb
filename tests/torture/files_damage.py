"""Damage: files truncated, overwritten, with flipped bits, replaced, half left behind.

What is damaged is put back as it was, and rows are written on: then all must be counted
as if nothing had been. Only where SQLite itself reads other rows out of a damaged file,
and says nothing of it (its pages have no checksum), nobody could do that; how often is
said.
"""

import os
import sqlite3
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from random import Random

from tests.databases import App
from tests.faults import data_faults
from tests.faults.store import Store
from tests.faults.target import Scraping
from tests.torture.files_scene import (
    Content,
    Scene,
    collectors,
    put_files,
    take,
    take_crashed,
)
from tests.torture.report import Effort, Fault, Found

PAGE_BYTES = 4096
MOST_ROWS = 100
PROBE_SECONDS = 2.0
PIECE_ROWS = 10
NEAR_BOUNDARY = (0, 1, 100, PAGE_BYTES - 1)


def play_truncated(effort: Effort) -> Found:
    """Cut the file at each page boundary and beside it, look, put it back."""
    with Scene(effort) as scene:
        _fill(scene)
        tries = effort.times(200)
        while scene.found.tried < tries:
            store = scene.rng.choice(scene.trial.stores)
            store.mode = scene.rng.choice(("wal", "delete"))
            whole = len(take(store)[""])
            lengths = {
                n + m for n in range(0, whole, PAGE_BYTES) for m in NEAR_BOUNDARY
            }
            for length in scene.rng.sample(sorted(lengths), min(40, len(lengths))):
                with scene.attempt(f"{length} of {whole} bytes"):
                    _truncate(scene, store, length)
        return scene.finish()


def _truncate(scene: Scene, store: Store, length: int) -> None:
    scene.trial.write(most=MOST_ROWS)
    good = take(store)
    cut = good[""][: min(length, len(good[""]) - 1)]
    put_files(store.path, {"": cut})
    scene.look(*collectors(store))
    put_files(store.path, good)
    if scene.rng.random() < 0.5:
        scene.trial.write(most=MOST_ROWS)


def play_overwritten(effort: Effort) -> Found:
    """Write something else over the file or a part of it, look, put it back."""
    with Scene(effort) as scene:
        _fill(scene, 1500)
        for _ in range(effort.times(60)):
            with scene.attempt("overwritten"):
                _play_damage(scene, _overwrite)
        return _finish(scene)


def _overwrite(rng: Random, good: Content) -> Content:
    whole = good[""]
    pages = len(whole) // PAGE_BYTES
    start = rng.randrange(pages) * PAGE_BYTES
    length = rng.randint(1, pages) * PAGE_BYTES
    part = rng.choice((bytes(length), rng.randbytes(length), whole[:length]))
    damaged = whole[:start] + part + whole[start + length :]
    return {**good, "": damaged[: len(whole)]}


def play_flips(what: str, effort: Effort) -> Found:
    """Flip bits, look, flip them back; with the log as a crash leaves it."""
    with Scene(effort) as scene:
        _fill(scene)
        for _ in range(effort.times(100 if what == "" else 60)):
            with scene.attempt(f"bits of {what or 'the database'}"):
                _play_damage(scene, partial(_flip, what), crashed=bool(what))
        return _finish(scene)


def _flip(suffix: str, rng: Random, good: Content) -> Content:
    damaged = bytearray(good[suffix])
    for _ in range(rng.choice((1, 1, 2, 10, 100))):
        # A third of them where the structure is: the first bytes of a page.
        place = rng.randrange(len(damaged))
        if rng.random() < 0.3:
            place = min(place // PAGE_BYTES * PAGE_BYTES + place % 100, place)
        damaged[place] ^= 1 << rng.randrange(8)
    return {**good, suffix: bytes(damaged)}


def _play_damage(
    scene: Scene, damage: Callable[[Random, Content], Content], *, crashed: bool = False
) -> None:
    """Damage files, some of whose rows have been read; look; put the good ones back."""
    trial, rng = scene.trial, scene.rng
    store = rng.choice(trial.stores)
    store.mode = "wal" if crashed else rng.choice(("wal", "delete"))
    trial.may_misread = True
    trial.settle()  # so that it is known how often counting has begun anew before
    for name in store.tables:
        trial.insert(store, name, rng.randint(1, MOST_ROWS))
    if rng.random() < 0.5:
        trial.settle()
    good = (take_crashed if crashed else take)(store)
    damaged = damage(rng, good)
    _look_at_damage(scene, store, good, damaged)
    put_files(store.path, good)
    if rng.random() < 0.5:
        trial.settle()
    trial.clock.tick()
    trial.write(most=MOST_ROWS)


def _look_at_damage(
    scene: Scene, store: Store, good: Content, damaged: Content
) -> None:
    """Look, perhaps beside somebody who has the files open: only then an index counts.

    A damaged log without one ends where the damage begins, its checksums tell: SQLite
    reads what was there before, so that all must be counted right in the end.
    """
    truth = probe(store)
    put_files(store.path, damaged)
    is_true_so_far = is_true(probe(store), truth)
    with ExitStack() as stack:
        if "-shm" in damaged and scene.rng.random() < 0.5:
            bystander = stack.enter_context(App(store.path))
            stack.callback(bystander.kill)
            with suppress(sqlite3.Error):
                bystander.run("SELECT COUNT(*) FROM sqlite_schema")
            put_files(store.path, damaged)
            scene.is_readable = is_true_so_far and is_true(probe(store), truth)
        else:
            log_alone = damaged[""] == good[""]
            scene.is_readable = is_true_so_far or log_alone
        for _ in range(scene.rng.randint(1, 3)):
            scene.look(strict=False)


def play_replaced(effort: Effort) -> Found:
    """Move, copy, replace, recreate and restore the file while two scrape."""
    with Scene(effort) as scene:
        _fill(scene)
        for _ in range(effort.times(30)):
            steps = scene.rng.choice(REPLACEMENTS)
            with scene.attempt(steps.__name__):
                scrapings: list[Scraping] = []
                for _ in steps(scene.trial):
                    if not scrapings:
                        scrapings = [
                            scene.trial.begin_scraping(again=True) for _ in range(2)
                        ]
                scene.trial.end_scraping(*scrapings)
        return scene.finish()


def play_strange(effort: Effort) -> Found:
    """Put what is no database in the place of the file, or of its log and index."""
    with Scene(effort) as scene:
        _fill(scene)
        for _ in range(effort.times(250)):
            make, suffix = scene.rng.choice(STRANGE), scene.rng.choice(("", "-wal"))
            with scene.attempt(f"{make.__name__} as {suffix or 'database'}"):
                _put_strange(scene, make, suffix)
        return scene.finish()


def _put_strange(scene: Scene, make: Callable[[Path], object], suffix: str) -> None:
    store = scene.rng.choice(scene.trial.stores)
    store.mode = "wal"
    scene.trial.write(store, most=MOST_ROWS)
    store.run("SELECT COUNT(*) FROM sqlite_schema")
    for name in store.tables:
        scene.trial.insert(store, name, scene.rng.randint(1, MOST_ROWS))
    good = take_crashed(store)
    places = [Path(f"{store.path}{s}") for s in ((suffix, "-shm") if suffix else ("",))]
    for place in places:
        place.rename(f"{place}.aside")
        make(place)
    for _ in range(scene.rng.randint(1, 2)):
        scene.look(*collectors(store))
    for place in places:
        place.rmdir() if place.is_dir() and not place.is_symlink() else place.unlink()
        Path(f"{place}.aside").rename(place)
    put_files(store.path, good)
    store.run("SELECT COUNT(*) FROM sqlite_schema")


def link_to_itself(place: Path) -> None:
    place.symlink_to(place)


def link_to_zeros(place: Path) -> None:
    place.symlink_to("/dev/zero")


def pipe(place: Path) -> None:
    os.mkfifo(place)


STRANGE = (Path.mkdir, link_to_itself, link_to_zeros, pipe)
REPLACEMENTS = (
    data_faults.move_away,
    data_faults.copy,
    data_faults.vacuum_into,
    data_faults.new_file,
    data_faults.restore,
    data_faults.swap_copies,
    data_faults.switch_mode,
)


def probe(store: Store) -> list[object]:
    """Return what SQLite reads out of files that nobody writes, None where it refuses.

    In pieces, because the exporter may have to read a whole part of a damaged file.
    """
    mode = "readonly_shm=1" if Path(f"{store.path}-shm").exists() else "immutable=1"
    uri = f"{store.path.as_uri()}?mode=ro&{mode}"
    with closing(sqlite3.connect(uri, uri=True, timeout=0.1)) as db:
        db.text_factory = bytes
        until = time.monotonic() + PROBE_SECONDS
        db.set_progress_handler(lambda: time.monotonic() > until, 10_000)
        first, *queries = _queries(store)
        if _ask(db, first) is None:  # after 10 s, where it makes no sense of a log
            return [None] * (1 + len(queries))
        return [_ask(db, query) for query in (first, *queries)]


def is_true(found: list[object], truth: list[object]) -> bool:
    """Tell whether SQLite read nothing that was not written, if it read at all."""
    return all(a is None or a == b for a, b in zip(found, truth, strict=True))


def _ask(db: sqlite3.Connection, query: str) -> object:
    try:
        return db.execute(query).fetchall()
    except (sqlite3.Error, OverflowError, UnicodeDecodeError):
        return None


def _queries(store: Store) -> list[str]:
    """Return what reads all there is: ids, rows, and the row after each id."""
    queries = ["SELECT name FROM sqlite_schema"]
    for name, table in store.tables.items():
        queries += [
            f"SELECT seq FROM sqlite_sequence WHERE name = '{name}'",
            f"SELECT MIN(id), MAX(id) FROM {name}",
            f"SELECT COUNT(*) FROM {name} WHERE id > {table.last}",
        ]
        for start in range(0, table.last, PIECE_ROWS):
            rows = f"id > {start} AND id <= {start + PIECE_ROWS}"
            queries.append(f"SELECT * FROM {name} WHERE {rows}")
            queries.append(f"SELECT MIN(id) FROM {name} WHERE id > {start}")
    return queries


def _fill(scene: Scene, rows: int = 300) -> None:
    for store in scene.trial.stores:
        for name in store.tables:
            scene.trial.insert(store, name, rows)
    scene.trial.settle()


def _finish(scene: Scene) -> Found:
    found, misled = scene.finish(), scene.misled
    if misled:
        found.notes.append(
            f"{misled['tried']} times SQLite read other rows without a word:"
            f" {misled['lost']} lost, {misled['doubled']} doubled by that"
        )
    return found


FAULTS = (
    Fault("files", "moved, copied, replaced, recreated in scrapes", play_replaced),
    Fault("files", "folder, pipe, link or device in a file's place", play_strange),
    Fault("files", "truncated at each page boundary and beside", play_truncated),
    Fault("files", "overwritten in place", play_overwritten),
    Fault("files", "bits of the database flipped", partial(play_flips, "")),
    Fault("files", "bits of the -wal flipped", partial(play_flips, "-wal")),
    Fault("files", "bits of the -shm flipped", partial(play_flips, "-shm")),
)
