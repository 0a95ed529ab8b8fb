"""Random histories: what befalls the databases, and the exporter at the same time.

And what befalls the process over time: hours of scrapes, too little memory.
"""

import os
import resource
import shutil
import signal
import threading
import time
from collections.abc import Callable
from functools import partial
from random import Random

import psutil

from tests.torture.scene import Scene
from tests.torture.stage import TIMEOUTS, Stage
from tests.torture.store import Store

MOST_ROWS = 20_000
SOME, FEW = 600, 3  # rows
DAY = 86_400
MOST_KEPT = 4  # backups of each database
MEBIBYTE = 1 << 20
ROOMS = (0, 0, 0.1, 0.5, 1, 2, 5, 9, 20)
MEMORY_ERRORS = ("MemoryError", "out of memory", "Traceback", "can't start new thread")
SCRAPES = 240  # of one Prometheus in an hour
# Allocators keep what was freed in pieces, for each of the threads that run at the same
# time: 0.4 MB were measured. A page leaked by each scrape of an hour would be 7 MB.
GROWTH_BYTES = 3 * MEBIBYTE
STATE_BYTES = 32 << 10  # four tables: counts, and fingerprints of some dozen rows

Ending = Callable[[], object]


def history(stage: Stage, number: int) -> None:
    """Random histories: rows, pruning, files, copies in any order, kill -9."""
    rng = stage.rng
    changes = [draw_change(rng) for _ in range(rng.choice((1, 1, 1, 2, 2, 4)))]
    are_quiet = any(change in QUIET for change in changes)
    mishaps = {m: n for m, n in MISHAPS.items() if not (are_quiet and m in AMID)}
    (mishap,) = rng.choices([*mishaps], [*mishaps.values()])
    stage.tell(f"round {number}: {', '.join(changes)}; {mishap.__name__}")
    _begin(stage)
    is_early = rng.random() < 0.5
    ending = mishap(stage) if is_early else None
    for change in changes:
        befall(stage, change)
        if rng.random() < 0.7:
            _write(stage, most=SOME)
    ending = ending if is_early else mishap(stage)
    _write(stage)
    if ending:
        ending()
    stage.settle()
    for store in stage.stores:
        store.check_closed()
        if rng.random() < 0.3:
            store.close()


def _begin(stage: Stage) -> None:
    """Write, perhaps until all is read; only then a copy may be kept, or facts change.

    What is in a copy has been there before, so that none of it may count again.
    """
    _write(stage)
    if stage.rng.random() < 0.6:
        stage.settle()
        store, _ = stage.pick()
        if stage.rng.random() < 0.5:
            _keep(stage, store)
        if stage.rng.random() < 0.1:
            _change_facts(stage)
    stage.clock.tick(stage.rng.choice((0, 0, 0, 1, DAY)))


# What befalls a database


def draw_change(rng: Random) -> str:
    """Return one of the changes, some more often than others."""
    changes = ROW_CHANGES | FILE_CHANGES
    return rng.choices([*changes], [*changes.values()])[0]


def befall(stage: Stage, change: str) -> None:
    """Let a change befall a database."""
    store, name = stage.pick()
    if change in SWAPS and stage.rng.random() < 0.8:  # else in the very same second
        stage.clock.tick()
    stage.tell(f"{change}: {name}")
    if change in ROW_CHANGES:
        _change_rows(stage, store, name, change)
    else:
        _change_file(stage, store, change)


def _change_rows(stage: Stage, store: Store, name: str, change: str) -> None:
    rng, table = stage.rng, store.tables[name]
    match change:
        case "write":
            _write(stage)
        case "roll back":
            store.insert(name, _size(stage), commits=False)
        case "prune":
            stage.prune(store, name, rng.randint(0, table.last))
        case "prune unread":
            stage.insert(store, name, count := _size(stage) + 1)
            stage.prune(store, name, table.last - rng.randint(0, count))
        case "delete all":
            store.delete(name, "", lambda row: True)
        case "import old":  # older than those before, or as old as the last swap
            age = rng.choice((1, 2, 5, DAY))
            stage.insert(store, name, _size(stage, SOME), age=age)
        case "write untimed":  # few, because each may count again at a swap
            stage.insert(store, name, _size(stage, FEW), age=None)
        case "recreate":
            store.recreate(name)
            stage.insert(store, name, _size(stage))


def _change_file(stage: Stage, store: Store, change: str) -> None:
    match change:
        case "VACUUM":
            store.run("VACUUM")
        case "VACUUM INTO":
            store.put(store.copy())
        case "copy" | "copy in place":
            store.put(store.copy(shutil.copy2), same_inode=change in QUIET)
        case "move away and back":
            store.close()
            aside = store.path.with_name("aside.db")
            os.replace(store.path, aside)
            if stage.victim.is_up:
                stage.scrape(stage.rng.choice(TIMEOUTS))
            os.replace(aside, store.path)
        case "switch mode":
            store.close()
            store.mode = "delete" if store.mode == "wal" else "wal"
        case "new file":
            store.mode = stage.rng.choice(("wal", "delete"))
            store.replace(renamed=stage.rng.random() < 0.5)
        case "restore" | "restore in place" if store.kept:
            backup = stage.rng.choice(store.kept)
            stage.tell(f"restore {backup.last}")
            store.restore(backup, same_inode=change in QUIET)


def _write(stage: Stage, most: int = MOST_ROWS) -> None:
    """Write some rows into some tables."""
    for store in stage.stores:
        for name in store.tables:
            if stage.rng.random() < 0.5:
                stage.insert(store, name, _size(stage, most))


def _size(stage: Stage, most: int = MOST_ROWS) -> int:
    """Return a number of rows: small more often than large, 0 among them."""
    return int((most + 1) ** stage.rng.random()) - stage.rng.randint(0, 1)


def _keep(stage: Stage, store: Store) -> None:
    """Keep a copy for later rounds, perhaps in the place of another."""
    stage.rng.shuffle(store.kept)
    for old in store.kept[MOST_KEPT - 1 :]:
        old.path.unlink()
    store.kept[MOST_KEPT - 1 :] = [store.backup()]


def _change_facts(stage: Stage) -> None:
    """Change and delete facts that were read."""
    store = stage.stores[0]
    last = store.tables["facts"].last
    share = stage.rng.choice((1, 2, 10, 1000))
    stage.tell(f"change one in {share} facts, up to {last}")
    store.run(
        "UPDATE facts SET statement = statement || '.', confidence = 0.5"
        f" WHERE id = {last} OR (id % {share} = 0 AND id < {last})"
    )
    ids = stage.rng.sample(range(1, last + 1), min(last, 20))
    listed = ", ".join(map(str, ids))
    store.delete("facts", f"WHERE id IN ({listed})", lambda row: row.id in ids)


# What befalls the exporter


def leave_running(stage: Stage) -> None:
    pass


def scrape_amid(stage: Stage) -> Ending:
    """Scrape all the time, by one Prometheus or by two."""
    count = stage.rng.randint(1, 2)
    scrapings = [stage.begin_scraping(again=True) for _ in range(count)]
    return partial(stage.end_scraping, *scrapings)


def kill(stage: Stage) -> None:
    """Kill it; perhaps once more while it starts or reads for the first time."""
    stage.end(signal.SIGKILL)
    if stage.rng.random() < 0.3:
        stage.start()
        time.sleep(stage.rng.uniform(0.1, 0.4))
        stage.end(signal.SIGKILL)


def kill_and_start(stage: Stage) -> None:
    stage.end(signal.SIGKILL)
    stage.start()


def kill_in_scrape(stage: Stage) -> None:
    """Kill at a random moment of a scrape, most of which take 5 ms."""
    _end_in_scrape(stage, signal.SIGKILL)


def _end_in_scrape(stage: Stage, number: signal.Signals, before: int = 0) -> None:
    scraping = stage.begin_scraping()
    time.sleep(stage.rng.uniform(0, stage.rng.choice((0.008, 0.05))))
    for _ in range(before):
        stage.victim.process.send_signal(number)
    stage.end(number)
    stage.end_scraping(scraping)


def kill_amid(stage: Stage) -> Ending:
    """Kill at a random moment while it is scraped and others write."""
    scraping = stage.begin_scraping(again=True)
    delay = stage.rng.uniform(0, 0.3)
    timer = threading.Timer(delay, stage.victim.end, [signal.SIGKILL])
    timer.start()

    def finish() -> None:
        timer.join()
        stage.note_end()
        stage.end_scraping(scraping)

    return finish


def terminate(stage: Stage) -> None:
    """SIGTERM, once or many times, perhaps in a scrape: it ends once, in order."""
    if stage.rng.random() < 0.5:
        stage.end(signal.SIGTERM)
    else:
        _end_in_scrape(stage, signal.SIGTERM, stage.rng.choice((0, 20)))


def pause(stage: Stage) -> Ending:
    """SIGSTOP in a scrape, and SIGCONT before a lock could be in the way."""
    scraping = stage.begin_scraping(again=True)
    time.sleep(stage.rng.uniform(0.0, 0.02))
    stage.victim.process.send_signal(signal.SIGSTOP)
    time.sleep(stage.rng.choice((0.05, 0.5, 1.0)))
    stage.victim.process.send_signal(signal.SIGCONT)
    return partial(stage.end_scraping, scraping)


def signal_needlessly(stage: Stage) -> None:
    """Signals that nobody need send: HUP, USR1, USR2, PIPE."""
    for number in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2, signal.SIGPIPE):
        stage.victim.process.send_signal(number)


# How likely each is.
ROW_CHANGES = {
    "write": 6,
    "roll back": 2,
    "prune": 10,
    "prune unread": 7,
    "delete all": 4,
    "import old": 4,
    "write untimed": 2,
    "recreate": 6,
}
FILE_CHANGES = {
    "VACUUM": 4,
    "VACUUM INTO": 6,
    "copy": 6,
    "copy in place": 3,
    "move away and back": 3,
    "switch mode": 3,
    "new file": 8,
    "restore": 20,
    "restore in place": 6,
}
MISHAPS: dict[Callable[[Stage], Ending | None], int] = {
    leave_running: 3,
    scrape_amid: 4,
    kill: 5,
    kill_and_start: 3,
    kill_in_scrape: 6,
    kill_amid: 5,
    terminate: 4,
    pause: 2,
    signal_needlessly: 1,
}
SWAPS = ("recreate", "new file", "restore", "restore in place")
# A file that is half overwritten in place cannot be told from a whole one, so that
# nobody may read meanwhile.
QUIET = ("copy in place", "switch mode", "restore in place")
AMID = (scrape_amid, kill_and_start, kill_amid, pause)


def live_for_an_hour(stage: Stage, number: int) -> int:
    """Hours of scrapes, with changes of files in between: nothing grows."""
    if number == 0:  # until caches are full, and the allocator has what it needs
        _live(stage)
    before = stage.victim.usage
    _live(stage)
    stage.check_growth(before, GROWTH_BYTES)
    if (size := stage.victim.state.stat().st_size) > STATE_BYTES:
        stage.victim.crashes.append(f"the state file has {size} bytes")
    return SCRAPES


def _live(stage: Stage) -> None:
    for number in range(SCRAPES):
        if number % 4 == 0:
            stage.settle()
            befall(stage, draw_change(stage.rng))
        stage.scrape(stage.rng.choice(TIMEOUTS))
    stage.settle()


def no_memory(stage: Stage, number: int) -> None:
    """Little or no room in its address space, at scrapes and catching up."""
    stage.victim.patience_seconds = 1.0
    room = ROOMS[number % len(ROOMS)]
    stage.write(most=stage.rng.choice((40, 3000, 20_000)))
    stage.tell(f"{room} MB of memory left")
    pid, infinite = stage.victim.process.pid, resource.RLIM_INFINITY
    most = psutil.Process(pid).memory_info().vms + int(room * MEBIBYTE)
    resource.prlimit(pid, resource.RLIMIT_AS, (most, infinite))
    for _ in range(stage.rng.randint(1, 4)):
        stage.scrape()
    resource.prlimit(pid, resource.RLIMIT_AS, (infinite, infinite))


SCENES = (
    Scene("history", history, 600),
    Scene("process", no_memory, 20, excused=MEMORY_ERRORS),
    Scene("process", live_for_an_hour, 6),
)
