"""What befalls the state file: removed, cut, edited, of another version, contested."""

import json
import os
import signal
from functools import partial
from zlib import crc32

from tests.exporters import run
from tests.faults.rows import rows_in
from tests.torture.process_scene import Scene
from tests.torture.report import Effort, Fault, Found

DAMAGES = ("removed", "emptied", "cut", "a bit flipped", "another version", "replaced")
LOG_EXCUSE = ("state file",)


def befall_while_running(effort: Effort) -> Found:
    """The file is damaged under a running exporter: the next new rows mend it.

    So a kill -9 after a scrape that shows them loses nothing.
    """
    with Scene(effort) as scene:
        scene.settle()
        for damage in DAMAGES * effort.times(3):
            with scene.one_try(f"{damage} while running"):
                scene.write()
                scene.settle()
                _damage(scene, damage)
                scene.write()
                scene.scrape()
                scene.trial.end(scene.rng.choice((signal.SIGKILL, signal.SIGTERM)))
                scene.trial.note_end()
                scene.prune()
                scene.settle()
    return scene.found


def befall_between_runs(effort: Effort) -> Found:
    """The file is damaged while nobody runs, and all rows ever written are there.

    They are read again: the same counters, so that nothing has happened.
    """
    with Scene(effort) as scene:
        scene.settle()
        for damage in DAMAGES[:-1] * effort.times(3):
            with scene.one_try(f"{damage} between runs", excused=LOG_EXCUSE):
                scene.write()
                scene.settle()
                scene.trial.end(signal.SIGKILL)
                _damage(scene, damage)
                scene.write()
                # Sums come out the same but for their last digit, and resets do not.
                scene.trial.forget_pages()
                scene.settle()
    return scene.found


def befall_after_pruning(effort: Effort) -> Found:
    """The same, but rows are gone: counting starts at 0, and says so. No increase."""
    with Scene(effort) as scene:
        scene.settle()
        for damage in DAMAGES[:-1] * effort.times(3):
            with scene.one_try(f"{damage}, rows pruned"):
                scene.write(200)
                scene.settle()
                scene.prune()
                scene.settle()
                scene.trial.end(signal.SIGKILL)
                _damage(scene, damage)
                _begin_anew(scene, damage)
                scene.write()
                scene.settle()
    return scene.found


def contest(effort: Effort) -> Found:
    """A second exporter on the file is refused; after kill -9 it may have it."""
    with Scene(effort) as scene:
        scene.settle()
        for _ in range(effort.times(8)):
            with scene.one_try("two exporters"):
                scene.write()
                second = run(*scene.target.flags, "--web.listen-address=127.0.0.1:0")
                if second.returncode != 1 or "another exporter" not in second.stderr:
                    scene.target.crashes.append(f"second one: {second}")
                scene.scrape()
                scene.trial.end(signal.SIGKILL)
                scene.settle()
    return scene.found


def _damage(scene: Scene, damage: str) -> None:
    state = scene.target.state
    content = state.read_bytes()
    match damage:
        case "removed":
            state.unlink()
        case "emptied":
            os.truncate(state, 0)
        case "cut":
            os.truncate(state, scene.rng.randrange(len(content)))
        case "a bit flipped":
            place = scene.rng.randrange(len(content) - 1)  # not the last line's end
            flipped = content[place] ^ (1 << scene.rng.randrange(8))
            state.write_bytes(content[:place] + bytes([flipped]) + content[place + 1 :])
        case "another version":
            document = json.loads(content.partition(b"\n")[0])
            document["version"] += scene.rng.choice((-1, 1))
            line = json.dumps(document).encode()
            state.write_bytes(line + b"\n%08x\n" % crc32(line))
        case "replaced":
            new = state.with_name("new")
            new.write_bytes(b"mine\n")
            os.replace(new, state)


def _begin_anew(scene: Scene, damage: str) -> None:
    """Take the counters as they are if they are 0 and the page says why."""
    page = scene.trial.begin_anew()
    resets = page.samples["hakgal_exporter_resets_total"]
    for table in scene.trial.tables():
        if rows := rows_in(table.ledger.confirmed):
            scene.found.note("doubled", f"{table.spec.name} begins with {rows}", rows)
        # Without a file it is the first start, which is no reset.
        if resets["state_lost", table.spec.name] != (damage != "removed"):
            scene.found.note("lost", f"{table.spec.name}: wrong resets {resets}")


_fault = partial(Fault, "process")
FAULTS = (
    _fault("state file damaged under a running exporter", befall_while_running),
    _fault("state file damaged between runs", befall_between_runs),
    _fault("state file lost, rows pruned: begins anew at 0", befall_after_pruning),
    _fault("two exporters on one state file", contest),
)
