"""What befalls the state file: no room, damaged, lost, of another version."""

import json
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from zlib import crc32

from tests.torture.scene import Scene
from tests.torture.stage import Stage

DAMAGES = ("removed", "emptied", "cut", "a bit flipped", "another version", "foreign")


def fill_state_disk(stage: Stage, number: int) -> None:
    """No room to save: pages come, counters stand still until there is."""
    ballast = stage.victim.disk / "ballast"
    before = stage.look()
    fill(ballast)
    stage.write()
    for _ in range(2):
        after = stage.look()
        if before and after and before.counters != after.counters:
            stage.victim.crashes.append("counters moved that are not durable")
    ballast.unlink()
    if stage.rng.random() < 0.5:
        stage.settle()
        stage.end(stage.rng.choice((signal.SIGKILL, signal.SIGTERM)))


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
    stage.tell(f"state file {damage}")
    state = stage.victim.state
    content = state.read_bytes()
    match damage:
        case "removed":
            state.unlink()
        case "emptied":
            os.truncate(state, 0)
        case "cut":
            os.truncate(state, stage.rng.randrange(len(content)))
        case "a bit flipped":
            place = stage.rng.randrange(len(content) - 1)  # not the last line's end
            flipped = content[place] ^ (1 << stage.rng.randrange(8))
            state.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
        case "another version":
            document = json.loads(content.partition(b"\n")[0])
            document["version"] += stage.rng.choice((-1, 1))
            line = json.dumps(document).encode()
            state.write_bytes(line + b"\n%08x\n" % crc32(line))
        case "foreign":
            new = state.with_name("new")
            new.write_bytes(b"mine\n")
            os.replace(new, state)


@contextmanager
def mounted(place: Path, size: str) -> Iterator[None]:
    """Mount a small disk; raises where that is forbidden, lest it seem to be tried."""
    place.mkdir()
    command = ("mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(place))
    subprocess.run(command, check=True)
    try:
        yield
    finally:
        subprocess.run(("umount", "--lazy", str(place)), check=True)


def fill(ballast: Path) -> None:
    """Leave no byte free on a disk."""
    with ballast.open("wb", buffering=0) as file:
        for size in (65536, 4096, 1):
            try:
                while True:
                    file.write(bytes(size))
            except OSError:
                continue


_scene = partial(Scene, "state file")
SCENES = (
    _scene(fill_state_disk, 60, lambda stage: mounted(stage.victim.disk, "256k")),
    _scene(state_damaged_meanwhile, 18),
    _scene(state_damaged_between, 18, excused=("state file",)),
    _scene(state_lost, 18),
)
