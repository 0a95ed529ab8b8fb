"""What befalls the files: databases locked; the state file damaged, lost, another's."""

import json
import os
import signal
from functools import partial
from typing import NamedTuple
from zlib import crc32

from tests.databases import App
from tests.torture.scene import Scene
from tests.torture.stage import Stage


class Lock(NamedTuple):
    """How another process takes it, and whether nobody else may read then."""

    modes: tuple[str, ...]
    takes: tuple[str, ...]
    shuts_out: bool


ROLLBACK_MODES = ("delete", "truncate", "persist")
ALL_MODES = ("wal", *ROLLBACK_MODES)
EXCLUSIVE = "PRAGMA locking_mode = EXCLUSIVE"
WRITE = "INSERT INTO performance_metrics(metric_name, metric_value) VALUES ('a', 1)"
READ = "SELECT COUNT(*) FROM query_times"
TIDY = "PRAGMA journal_mode = delete"  # the others leave an empty journal
LOCKS = (
    Lock(ALL_MODES, ("BEGIN", READ), False),
    Lock(ALL_MODES, ("BEGIN IMMEDIATE", WRITE), False),
    Lock(("wal",), ("BEGIN EXCLUSIVE", WRITE), False),
    Lock(ROLLBACK_MODES, ("BEGIN EXCLUSIVE", WRITE), True),
    Lock(ALL_MODES, (EXCLUSIVE, WRITE), True),
    Lock(ROLLBACK_MODES, (EXCLUSIVE, READ), False),
)
KINDS = [(lock, mode) for lock in LOCKS for mode in lock.modes]
DAMAGES = ("removed", "cut", "another version", "foreign")


def lock(stage: Stage, number: int) -> None:
    """Every kind of lock is held by another process, in every journal mode."""
    kind, mode = KINDS[number % len(KINDS)]
    store = stage.stores[1]
    stage.write()
    store.close()
    with App(store.path, 30.0) as app, store.unharmed(f"{kind}"):
        for statement in (f"PRAGMA journal_mode = {mode}", *kind.takes):
            app.run(statement)
        stage.look(*(store.collectors if kind.shuts_out else ()))
        if kind.takes[0].startswith("BEGIN"):
            app.run(stage.rng.choice(("COMMIT", "ROLLBACK")))
        if stage.rng.random() < 0.5:
            stage.look(strict=False)
        for statement in ("PRAGMA locking_mode = NORMAL", READ, TIDY):
            app.run(statement)


def state_damaged_meanwhile(stage: Stage, number: int) -> None:
    """Damaged or lost under a running exporter: the next rows mend it."""
    stage.write()
    stage.settle()
    _damage(stage, DAMAGES[number % len(DAMAGES)])
    stage.write()
    stage.scrape()
    stage.end(stage.rng.choice((signal.SIGKILL, signal.SIGTERM)))
    stage.prune_all()


def state_damaged_between(stage: Stage, number: int) -> None:
    """Damaged or lost between runs, all rows are there: they come out the same."""
    stage.write()
    stage.settle()
    stage.end(signal.SIGKILL)
    _damage(stage, DAMAGES[number % len(DAMAGES)])
    stage.write()
    # Sums come out the same but for their last digit, and resets do not.
    stage.judge.forget_pages()


def state_lost(stage: Stage, number: int) -> None:
    """Damaged or lost, rows pruned: counting begins anew at 0, and says so."""
    damage = DAMAGES[number % len(DAMAGES)]
    stage.write(most=200)
    stage.settle()
    stage.prune_all()
    stage.settle()
    stage.end(signal.SIGKILL)
    _damage(stage, damage)
    stage.judge.begin_anew()
    page = stage.settle()
    for table in stage.judge.tables:
        found = page.resets(table.spec.name)
        # Without a file it is the first start, which is no reset.
        if found != (damage != "removed"):
            stage.found.note("misread", f"{table.spec.name}: {found} resets")
    stage.write()


def _damage(stage: Stage, damage: str) -> None:
    """Do to the file what most differs; tests/counting has it bit by bit."""
    stage.tell(f"state file {damage}")
    state = stage.victim.state
    content = state.read_bytes()
    match damage:
        case "removed":
            state.unlink()
        case "cut":
            os.truncate(state, stage.rng.randrange(len(content)))
        case "another version":
            document = json.loads(content.partition(b"\n")[0])
            document["version"] += stage.rng.choice((-1, 1))
            line = json.dumps(document).encode()
            state.write_bytes(line + b"\n%08x\n" % crc32(line))
        case "foreign":
            new = state.with_name("new")
            new.write_bytes(b"mine\n")
            os.replace(new, state)


_scene = partial(Scene, "state file")
SCENES = (
    Scene("databases", lock, 3 * len(KINDS)),
    _scene(state_damaged_meanwhile, 18),
    _scene(state_damaged_between, 18, excused=("state file",)),
    _scene(state_lost, 18),
)
