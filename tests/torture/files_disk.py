"""Disks and rights: full, read-only, slow or hanging disks, files nobody may touch.

Mounts small file systems, so that this has to be run as root.
"""

import os
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.databases import App
from tests.exporters import AS_NOBODY, NOBODY
from tests.faults.store import Store
from tests.faults.target import Target
from tests.torture.files_scene import (
    Content,
    Scene,
    collectors,
    put_files,
    read_files,
    take,
    take_crashed,
)
from tests.torture.report import Effort, Fault, Found

MOST_ROWS = 60
FULL = ("database or disk is full", "disk I/O error")
WAL_HEADER = 32
SLOW_SECONDS = (0.02, 0.2, 3.0)


def play_state_full(effort: Effort) -> Found:
    """Fill the state file's disk, look, make room."""
    place = effort.folder / "state"
    disk = mounted(place, "-t", "tmpfs", "-o", "size=256k", "tmpfs")
    with disk, Scene(effort) as scene:
        scene.trial.settle()
        for _ in range(effort.times(100)):
            with scene.attempt("no room for the state file"):
                with _unmoved(scene):
                    _fill(place / "ballast")
                    scene.trial.write(most=MOST_ROWS)
                (place / "ballast").unlink()
        return scene.finish()


def play_databases_full(effort: Effort) -> Found:
    """Fill the databases' disk until HAK/GAL cannot write, look, make room."""
    small = effort.folder / "small"
    disk = mounted(small, "-t", "tmpfs", "-o", "size=8m", "tmpfs")
    with disk, Scene(Effort(small, effort.rng)) as scene:
        _move_target(scene, effort.folder, small)
        scene.trial.settle()
        for number in range(effort.times(60)):
            _set_mode(scene, number)
            with scene.attempt("no room for the databases"):
                _fill(small / "ballast")
                scene.trial.write(most=MOST_ROWS)
                scene.look(strict=False)
                (small / "ballast").unlink()
                _forgive(scene, *FULL)
                _write_each(scene)
        return scene.finish()


def play_read_only(effort: Effort) -> Found:
    """Read through a mount that cannot be written, beside a writer that can."""
    folder = effort.folder / "databases"
    folder.mkdir()
    view = effort.folder / "view"
    with mounted(view, "--bind", str(folder)):
        _run("mount", "-o", "remount,bind,ro", str(view))
        with Scene(Effort(folder, effort.rng)) as scene:
            _move_target(scene, effort.folder, view)
            scene.trial.settle()
            for number in range(effort.times(100)):
                _set_mode(scene, number)
                with scene.attempt("read-only"):
                    scene.trial.write(most=MOST_ROWS)
                    scene.look()
                    if scene.rng.random() < 0.3:
                        scene.trial.performance.close()
                        scene.look()
            return scene.finish()


def play_state_folder(effort: Effort) -> Found:
    """Take the state's folder away, or the right to write there, under a running one.

    As a user to whom rights apply.
    """
    with Scene(effort) as scene:
        _be_nobody(scene, effort.folder)
        scene.trial.settle()
        for _ in range(effort.times(100)):
            breaks, mends = scene.rng.choice(STATE_FAULTS)
            with scene.attempt(breaks.__name__):
                with _unmoved(scene):
                    scene.trial.write(most=MOST_ROWS)
                    breaks(scene.target.state)
                mends(scene.target.state)
                if scene.rng.random() < 0.3:
                    scene.trial.settle()
                    scene.trial.end(signal.SIGKILL)
        return scene.finish()


def _forbid(state: Path) -> None:
    os.chmod(state.parent, 0o500)


def _allow(state: Path) -> None:
    os.chmod(state.parent, 0o700)


def _remove(state: Path) -> None:
    shutil.move(state.parent, state.parent.with_name("moved-state"))


def _return(state: Path) -> None:
    shutil.move(state.parent.with_name("moved-state"), state.parent)


def _block(state: Path) -> None:
    state.rename(state.with_name("aside"))
    state.mkdir()
    (state / "file").touch()


def _unblock(state: Path) -> None:
    shutil.rmtree(state)
    state.with_name("aside").rename(state)


STATE_FAULTS = ((_forbid, _allow), (_remove, _return), (_block, _unblock))


def play_rights(effort: Effort) -> Found:
    """Forbid the exporter's user to read a file, its log, index or folder."""
    with Scene(effort) as scene:
        _be_nobody(scene, effort.folder)
        scene.trial.settle()
        for _ in range(effort.times(120)):
            suffix = scene.rng.choice(("", "-wal", "-shm", "folder"))
            with scene.attempt(f"may not read {suffix or 'the database'}"):
                _forbid_reading(scene, suffix)
        return scene.finish()


def _forbid_reading(scene: Scene, suffix: str) -> None:
    store = scene.rng.choice(scene.trial.stores)
    for name in store.tables:
        scene.trial.insert(store, name, scene.rng.randint(1, MOST_ROWS))
    file = store.path.parent if suffix == "folder" else Path(f"{store.path}{suffix}")
    mode = file.stat().st_mode
    os.chmod(file, 0)
    stores = scene.trial.stores if suffix == "folder" else [store]
    scene.look(*(name for one in stores for name in collectors(one)))
    scene.trial.insert(store, next(iter(store.tables)), 1)
    os.chmod(file, mode)


def play_leftovers(effort: Effort) -> Found:
    """Read what crashes leave, and what is left when side files are removed."""
    with Scene(effort) as scene:
        scene.trial.settle()
        for number in range(effort.times(10 * len(LEFTOVERS))):
            name, leaves, fails = LEFTOVERS[number % len(LEFTOVERS)]
            with scene.attempt(name):
                store = scene.rng.choice(scene.trial.stores)
                store.close()
                store.mode = "wal"
                for table in store.tables:
                    scene.trial.insert(store, table, scene.rng.randint(1, MOST_ROWS))
                if scene.rng.random() < 0.5:
                    scene.trial.settle()
                put_files(store.path, leaves(store))
                scene.look(*(collectors(store) if fails else ()))
                store.run("SELECT COUNT(*) FROM sqlite_schema")  # HAK/GAL starts
                scene.trial.write(most=MOST_ROWS)
        return scene.finish()


def _crashed(store: Store) -> Content:
    return take_crashed(store)


def _no_index(store: Store) -> Content:
    content = take_crashed(store)
    return {suffix: content[suffix] for suffix in ("", "-wal")}


def _strange_index(store: Store) -> Content:
    content = take_crashed(store)
    size = store.rng.choice((0, 1, 136, 32768))
    return {**content, "-shm": store.rng.randbytes(size)}


def _empty_log(store: Store) -> Content:
    return {**take(store), "-wal": b""}


def _empty_log_and_index(store: Store) -> Content:
    return {**take(store), "-wal": b"", "-shm": bytes(32768)}


def _index_alone(store: Store) -> Content:
    return {**take(store), "-shm": bytes(32768)}


def _header_alone(store: Store) -> Content:
    log = take_crashed(store)["-wal"][:WAL_HEADER]
    store.run("PRAGMA wal_checkpoint(TRUNCATE)")
    return {**take(store), "-wal": log}


def _hot_journal(store: Store) -> Content:
    """Kill a writer in a transaction that has reached the file already."""
    store.mode = "delete"
    store.run("SELECT 1")
    store.close()
    name = next(iter(store.tables))
    with App(store.path) as app:
        for statement in (
            "PRAGMA journal_mode = delete",
            "PRAGMA cache_size = 1",
            "BEGIN IMMEDIATE",
            f"UPDATE {name} SET timestamp = timestamp || hex(zeroblob(1000))",
        ):
            app.run(statement)
        app.kill()
    content = read_files(store.path)
    assert content.get("-journal"), "no hot journal"
    return content


LEFTOVERS: tuple[tuple[str, Callable[[Store], Content], bool], ...] = (
    ("log and index of a crash", _crashed, False),
    ("log without its index", _no_index, True),
    ("log with a strange index", _strange_index, False),
    ("empty log", _empty_log, False),
    ("empty log and index", _empty_log_and_index, False),
    ("index without a log", _index_alone, False),
    ("header of a log alone", _header_alone, False),
    ("hot journal", _hot_journal, True),
)


def play_slow(effort: Effort) -> Found:
    """Delay each read of a database, up to far beyond the scrape's time."""
    _need_strace()
    with Scene(effort) as scene:
        scene.trial.settle()
        slow = 0
        for number in range(max(len(SLOW_SECONDS), effort.times(9))):
            seconds = SLOW_SECONDS[number % len(SLOW_SECONDS)]
            with scene.attempt(f"{seconds} s a read"):
                slow += _read_slowly(scene, seconds)
        if not slow:
            raise RuntimeError("no disk was slow: strace has delayed nothing")
        return scene.finish()


def _read_slowly(scene: Scene, seconds: float) -> int:
    """Return how many scrapes could not read all."""
    scene.trial.end(signal.SIGKILL)
    store = scene.rng.choice(scene.trial.stores)
    scene.trial.write(most=MOST_ROWS)
    scene.target.prefix = (
        *("strace", "-D", "-f", "-qq", "-o", "/dev/null", "-P", str(store.path)),
        *("-e", "trace=read,pread64"),
        *("-e", f"inject=read,pread64:delay_enter={int(seconds * 1e6)}"),
    )
    scene.trial.start()
    scene.target.wait_until_up()
    slow = 0
    for _ in range(4):
        scene.trial.insert(store, next(iter(store.tables)), 1)
        timeout = scene.rng.choice((0.3, 1.0))
        page = scene.look(strict=False, timeout=timeout)
        slow += bool(page and not page.succeeded(collectors(store)[0]))
    scene.trial.end(signal.SIGKILL)
    scene.target.prefix = ()
    return slow


@contextmanager
def _unmoved(scene: Scene) -> Iterator[None]:
    """Write rows that cannot be made durable: then no counter may show them."""
    scene.trial.settle()
    before = scene.look()
    yield
    for _ in range(2):
        after = scene.look()
        if before and after and before.counters != after.counters:
            scene.target.crashes.append("counters moved that are not durable")


def _move_target(scene: Scene, folder: Path, databases: Path) -> None:
    """Let the exporter keep its state elsewhere, and read through another path."""
    paths = (databases / store.path.name for store in scene.trial.stores)
    scene.target = scene.trial.target = Target(folder, *paths)


def _be_nobody(scene: Scene, folder: Path) -> None:
    os.chmod(folder, 0o755)
    scene.target.state.parent.mkdir()
    os.chown(scene.target.state.parent, NOBODY, NOBODY)
    scene.target.program = ("-c", AS_NOBODY)


def _set_mode(scene: Scene, number: int) -> None:
    """Switch between WAL and rollback journal every ten tries."""
    for store in scene.trial.stores:
        mode = ("wal", "delete")[number // 10 % 2]
        if store.mode != mode:
            store.close()
        store.mode = mode
        store.run("SELECT COUNT(*) FROM sqlite_schema")


def _write_each(scene: Scene) -> None:
    for store in scene.trial.stores:
        for name in store.tables:
            scene.trial.insert(store, name, 2)


def _forgive(scene: Scene, *texts: str) -> None:
    """Forget errors that the application would have seen alone as well."""
    for store in scene.trial.stores:
        store.harm[:] = [h for h in store.harm if not any(t in h for t in texts)]


def _fill(ballast: Path) -> None:
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


@contextmanager
def mounted(place: Path, *arguments: str) -> Iterator[None]:
    """Mount something; raises where that is not allowed, lest it seem to be tried."""
    place.mkdir(exist_ok=True)
    _run("mount", *arguments, str(place))
    try:
        yield
    finally:
        _run("umount", "--lazy", str(place))


def _need_strace() -> None:
    """Install what delays a program's reads, if it is missing."""
    if not shutil.which("strace"):
        _run("apt-get", "update", "-qq")
        _run("apt-get", "install", "-qq", "-y", "--no-install-recommends", "strace")


def _run(*command: str) -> None:
    subprocess.run(command, check=True, stdin=subprocess.DEVNULL)


FAULTS = (
    Fault("files", "disk of the state file full", play_state_full),
    Fault("files", "disk of the databases full", play_databases_full),
    Fault("files", "databases on a read-only mount", play_read_only),
    Fault("files", "state's folder forbidden, moved, blocked", play_state_folder),
    Fault("files", "file, log, index or folder unreadable", play_rights),
    Fault("files", f"{len(LEFTOVERS)} kinds of leftovers of a crash", play_leftovers),
    Fault("files", "slow and hanging disk", play_slow),
)
