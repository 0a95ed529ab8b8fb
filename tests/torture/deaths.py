"""Killed, or refused something, at each of its calls to the system in turn.

A scrape makes some 130: connection taken, files looked at and read, state file written,
made durable and renamed, page sent. What a scraper has seen may never count again, and
nothing may be lost, whichever of them was the last one.
"""

import errno
import signal
import time
from collections.abc import Iterable, Iterator
from itertools import islice, product

from tests.faults.target import Page
from tests.torture.calls import ALL_KINDS, Action, Call, Kind
from tests.torture.process_scene import Scene
from tests.torture.report import Effort, Fault, Found

OWN = Kind.STATE | Kind.SOCKET
SURVIVORS = 3
DEATH_SECONDS = 5.0
START_CALLS = 10  # claiming and loading makes as many
STATE_ERRORS = (
    errno.ENOSPC,
    errno.EIO,
    errno.EROFS,
    errno.EACCES,
    errno.EMFILE,
    errno.EINTR,
)
OTHER_ERRORS = (errno.EIO, errno.ENOMEM, errno.EMFILE, errno.EACCES, errno.EINTR)
MORE_TRIES = 200
# They tell of each socket that fails in a way that they do not know.
LIBRARIES = ("logger=asyncio ", "logger=tornado.")
PATIENCE_SECONDS = 1.0  # a connection that is not accepted would be waited for


def die_at_each_call(effort: Effort) -> Found:
    """Kill -9 before every call of a scrape that has rows to save.

    How many read the databases depends on the rows, so that a number is not the same
    call each time; ``die_halfway`` makes sure of those that save and send.
    """
    with Scene(effort, watched=True) as scene:
        scene.settle()
        made = _watch_a_scrape(scene, ALL_KINDS)
        places: set[Call] = set()
        survived, number = 0, 1.0
        while survived < SURVIVORS:  # then no scrape makes as many calls
            with scene.one_try(f"killed at call {number:.0f}"):
                if _die(scene, ALL_KINDS, int(number), Action.KILL):
                    places.update(scene.calls.made[-1:])
                else:
                    survived += 1
                _go_on(scene)
            number += 1 / effort.share
        _check_places(effort, {c for c in made if c.kind == Kind.DATABASE}, places)
    return scene.found


def die_halfway(effort: Effort) -> Found:
    """Kill -9 at each call that concerns state file or client, its output half made."""
    with Scene(effort, watched=True) as scene:
        scene.settle()
        made = _watch_a_scrape(scene, OWN)
        length = len(made) + 1
        places: set[Call] = set()
        for number in _turns(effort, 2 * length, length):
            with scene.one_try(f"killed halfway, call {number}"):
                if _die(scene, OWN, number, Action.KILL_HALFWAY):
                    places.update(scene.calls.made[-1:])
                _go_on(scene)
        _check_places(effort, set(made), places)
    return scene.found


def lose_power(effort: Effort) -> Found:
    """Kill at each of these calls, and undo what was not durable by then."""
    with Scene(effort, watched=True) as scene:
        scene.settle()
        length = len(_watch_a_scrape(scene, OWN)) + 1
        for number in _turns(effort, 2 * length, length):
            with scene.one_try(f"power lost at call {number}"):
                before = scene.target.state.read_bytes()
                _die(scene, OWN, number, Action.KILL)
                _forget_what_was_not_durable(scene, before)
                scene.prune()  # or what was forgotten could just be read again
                scene.settle()
    return scene.found


def refuse_state(effort: Effort) -> Found:
    """Let each call for the state file fail, once or from there on, for many reasons.

    The page comes all the same, and shows no row that is not durable.
    """
    with Scene(effort, watched=True) as scene:
        scene.settle()
        length = len(_watch_a_scrape(scene, Kind.STATE))
        actions = (Action.FAIL, Action.FAIL_FROM_THERE_ON)
        tries = list(product(STATE_ERRORS, actions, range(1, length + 1)))
        for error, action, number in _some(effort, tries):
            if error == errno.EINTR:
                action = Action.FAIL  # who is always interrupted goes on for ever
            name = errno.errorcode[error]
            with scene.one_try(f"{name} at call {number} for the state, {action.name}"):
                page = _refuse(scene, Kind.STATE, number, action, error)
                if not page:
                    scene.target.crashes.append("no page")
                _perhaps_die(scene)
    return scene.found


def refuse_start(effort: Effort) -> Found:
    """Let a call for the state file fail while it starts, with rows gone since.

    It refuses to start, in one line; or starts, and has lost nothing.
    """
    with Scene(effort, watched=True) as scene:
        scene.settle()
        errors = (errno.EIO, errno.EACCES, errno.EROFS, errno.EMFILE)
        for number in _turns(effort, 2 * START_CALLS, START_CALLS):
            error = scene.rng.choice(errors)
            name = errno.errorcode[error]
            with scene.one_try(f"{name} at call {number} for the state, at start"):
                scene.write()
                scene.settle()
                scene.prune()
                scene.trial.end(signal.SIGKILL)
                scene.calls.watch(
                    Kind.STATE, at=number, action=Action.FAIL, error=error
                )
                _start_or_refuse(scene)
                scene.settle()
    return scene.found


def _start_or_refuse(scene: Scene) -> None:
    """Start it, and note if it neither answers nor says why not."""
    scene.trial.start()
    until = time.monotonic() + DEATH_SECONDS
    while not scene.target.answers() and time.monotonic() < until:
        if (code := scene.target.wait(0.01)) is not None:
            line = scene.target.log.read_text().splitlines()[-1]
            if code != 1 or "cannot use the state file" not in line:
                scene.target.crashes.append(f"exit code {code}: {line}")
            scene.trial.note_end()
            return


def refuse_anything(effort: Effort) -> Found:
    """Let any call of a scrape fail: it may cost the page, or families, but no row."""
    with Scene(effort, watched=True) as scene:
        scene.settle()
        length = len(_watch_a_scrape(scene, ALL_KINDS))
        scene.target.patience_seconds = PATIENCE_SECONDS
        for _ in range(effort.times(MORE_TRIES)):
            number, error = scene.rng.randint(1, length), scene.rng.choice(OTHER_ERRORS)
            name = errno.errorcode[error]
            action = scene.rng.choice((Action.FAIL, Action.FAIL_FROM_THERE_ON))
            if error == errno.EINTR:
                action = Action.FAIL
            what = f"{name} at call {number}, {action.name}"
            with scene.one_try(what, excused=LIBRARIES):
                _refuse(scene, ALL_KINDS, number, action, error)
                last = scene.calls.made[-1:]
                scene.trial.tell(f"last call {last}")
                _perhaps_die(scene)
    return scene.found


def _watch_a_scrape(scene: Scene, kinds: Kind) -> list[Call]:
    """Return the calls of a scrape that reads and saves rows of every table."""
    scene.write()
    scene.calls.watch(kinds)
    scene.scrape()
    made = scene.calls.made
    scene.settle()
    return made


def _die(scene: Scene, kinds: Kind, number: int, action: Action) -> bool:
    """Write rows, and scrape: the exporter dies, and whether it did at that call."""
    scene.write()
    if scene.rng.random() < 0.1:
        scene.write(6000)  # more than one slice
    scene.calls.watch(kinds, at=number, action=action)
    scene.scrape()
    has_come = scene.calls.rest()
    if not has_come:
        scene.target.process.send_signal(signal.SIGKILL)
    if scene.target.wait(DEATH_SECONDS) is None:
        scene.target.crashes.append("does not die")
    scene.trial.note_end()
    return has_come


def _go_on(scene: Scene) -> None:
    """Start again, perhaps with rows gone that had been read, and new ones."""
    if scene.rng.random() < 0.5:
        scene.prune()
    if scene.rng.random() < 0.3:
        scene.write()
    scene.settle()


def _refuse(
    scene: Scene, kinds: Kind, number: int, action: Action, error: int
) -> Page | None:
    scene.write()
    scene.calls.watch(kinds, at=number, action=action, error=error)
    page = scene.scrape()
    scene.calls.rest()
    return page


def _perhaps_die(scene: Scene) -> None:
    """Recover: the same process, or one in three times another one."""
    if scene.rng.random() < 1 / 3:
        if scene.rng.random() < 0.5:
            scene.scrape()
        scene.trial.end(signal.SIGKILL)
        _go_on(scene)
    else:
        scene.settle()


def _forget_what_was_not_durable(scene: Scene, before: bytes) -> None:
    """Leave of the state file what the worst of disks would, for what was asked of it.

    Bytes that were not synced are cut somewhere; a rename has not happened unless the
    folder's fsync made it durable.
    """
    done = [name for kind, name in scene.calls.made[:-1] if kind == Kind.STATE]
    renamed = done.index("rename") if "rename" in done else len(done)
    state = scene.target.state
    temporary = state.with_name(state.name + ".tmp")
    written = state if "rename" in done else temporary
    if "write" in done and "fsync" not in done[:renamed]:
        content = written.read_bytes()
        written.write_bytes(content[: scene.rng.randrange(len(content))])
    if "rename" in done and "fsync" not in done[renamed:]:
        state.write_bytes(before)


def _check_places(effort: Effort, made: set[Call], places: set[Call]) -> None:
    """A kind of call at which nobody died has not been tried."""
    if effort.share >= 1.0 and (missing := made - places):
        raise AssertionError(f"never died at {missing}")


def _turns(effort: Effort, whole: int, length: int) -> Iterator[int]:
    """Yield call after call, from 1 to the last and again, or some of them, evenly."""
    tries = effort.times(whole)
    for n in range(tries):
        yield 1 + n * whole // tries % length


def _some(
    effort: Effort, tries: list[tuple[int, Action, int]]
) -> Iterable[tuple[int, Action, int]]:
    effort.rng.shuffle(tries)
    return islice(tries, effort.times(len(tries)))


FAULTS = (
    Fault("process", "kill -9 at each call of a scrape in turn", die_at_each_call),
    Fault("process", "kill -9 halfway through each output", die_halfway),
    Fault("process", "power cut at each step of a save", lose_power),
    Fault("process", "each call for the state file refused", refuse_state),
    Fault("process", "the same while it starts, pruned before", refuse_start),
    Fault("process", "any call of a scrape refused", refuse_anything),
)
