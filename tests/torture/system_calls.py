"""Killed, refused or kept waiting at calls to the system, one after the other.

A scrape makes some 130: connection taken, files looked at and read, state file written,
made durable and renamed, page sent. What a scraper has seen may never count again, and
nothing may be lost, whichever of them was the last one.
"""

import errno
import signal
import time
from functools import partial

from tests.torture.calls import Action, Calls, Kind
from tests.torture.scene import Scene
from tests.torture.stage import Stage
from tests.torture.victim import Page

ALL = Kind.STATE | Kind.SOCKET | Kind.DATABASE
OWN = Kind.STATE | Kind.SOCKET
STRIDE = 37  # from try to try, so that few tries are spread over all calls
DEATH_SECONDS = 5.0
START_CALLS = 10  # claiming and loading makes as many
STATE_ERRORS = ("ENOSPC", "EIO", "EROFS", "EACCES", "EMFILE", "EINTR")
OTHER_ERRORS = ("EIO", "ENOMEM", "EMFILE", "EACCES", "EINTR")
# They tell of each socket that fails in a way that they do not know.
LIBRARIES = ("logger=asyncio ", "logger=tornado.")


def kill_at_a_call(stage: Stage, number: int) -> None:
    """kill -9 before each system call of a scrape in turn."""
    _die(stage, ALL, _place(stage, number, ALL), Action.KILL)
    _go_on(stage)


def kill_halfway(stage: Stage, number: int) -> None:
    """kill -9 halfway through each output to state file and client."""
    _die(stage, OWN, _place(stage, number, OWN), Action.KILL_HALFWAY)
    _go_on(stage)


def cut_power(stage: Stage, number: int) -> None:
    """Power cut at each step of a save: what is not durable is undone."""
    place = _place(stage, number, OWN)
    before = stage.victim.state.read_bytes()
    _die(stage, OWN, place, Action.KILL)
    _forget_what_was_not_durable(stage, _calls(stage).made(Kind.STATE)[:-1], before)
    stage.prune_all()  # or what was forgotten could just be read again


def _die(stage: Stage, kinds: Kind, number: int, action: Action) -> None:
    """Write rows, and scrape: the exporter dies at that call, or soon after."""
    stage.write(most=6000 if stage.rng.random() < 0.1 else 40)  # more than one slice
    calls = _calls(stage)
    calls.watch(kinds, number, action)
    page = stage.scrape()
    if not calls.rest():
        stage.victim.process.send_signal(signal.SIGKILL)
    elif page:
        stage.check_durable(page)
    if stage.victim.wait(DEATH_SECONDS) is None:
        stage.victim.crashes.append("does not die")
    stage.note_end()


def _go_on(stage: Stage) -> None:
    """Start again, perhaps with rows gone that had been read, and new ones."""
    if stage.rng.random() < 0.5:
        stage.prune_all()
    if stage.rng.random() < 0.3:
        stage.write()


def _forget_what_was_not_durable(stage: Stage, done: list[str], before: bytes) -> None:
    """Leave of the state file what the worst of disks would, for what was asked of it.

    Bytes that were not synced are cut somewhere; a rename has not happened unless the
    folder's fsync made it durable.
    """
    renamed = done.index("rename") if "rename" in done else len(done)
    state = stage.victim.state
    written = state if "rename" in done else state.with_name(state.name + ".tmp")
    if "write" in done and "fsync" not in done[:renamed]:
        content = written.read_bytes()
        written.write_bytes(content[: stage.rng.randrange(len(content))])
    if "rename" in done and "fsync" not in done[renamed:]:
        state.write_bytes(before)


def refuse_state(stage: Stage, number: int) -> None:
    """Each call for the state file fails, once or from there on."""
    page = _refuse(stage, number, Kind.STATE, STATE_ERRORS)
    if page:
        stage.check_durable(page)
    else:
        stage.victim.crashes.append("no page")
    _perhaps_die(stage)


def refuse_anything(stage: Stage, number: int) -> None:
    """Any call of a scrape fails: that may cost the page, but no row."""
    stage.victim.patience_seconds = 1.0  # a connection may not be accepted
    _refuse(stage, number, ALL, OTHER_ERRORS)
    _perhaps_die(stage)


def _refuse(
    stage: Stage, number: int, kinds: Kind, errors: tuple[str, ...]
) -> Page | None:
    place, error = _place(stage, number, kinds), stage.rng.choice(errors)
    action = stage.rng.choice((Action.FAIL, Action.FAIL_FROM_THERE_ON))
    if error == "EINTR":
        action = Action.FAIL  # who is always interrupted goes on for ever
    stage.write()
    stage.tell(f"{error} at call {place}, {action.name}")
    calls = _calls(stage)
    calls.watch(kinds, place, action, getattr(errno, error))
    page = stage.scrape()
    calls.rest()
    stage.tell(f"last call {calls.made(kinds)[-1:]}")
    return page


def _perhaps_die(stage: Stage) -> None:
    """Recover: the same process, or one in three times another one."""
    if stage.rng.random() < 1 / 3:
        if stage.rng.random() < 0.5:
            stage.scrape()
        stage.end(signal.SIGKILL)
        _go_on(stage)


def refuse_start(stage: Stage, number: int) -> None:
    """A call for the state file fails at start: one line, or nothing lost."""
    stage.write()
    stage.settle()
    stage.prune_all()
    stage.end(signal.SIGKILL)
    calls, error = _calls(stage), stage.rng.choice(STATE_ERRORS[1:5])
    place = 1 + number % START_CALLS
    stage.tell(f"{error} at call {place} for the state")
    calls.watch(Kind.STATE, place, Action.FAIL, getattr(errno, error))
    stage.start()
    until = time.monotonic() + DEATH_SECONDS
    while not stage.victim.answers() and time.monotonic() < until:
        if (code := stage.victim.wait(0.01)) is not None:
            line = stage.victim.lines[-1]
            if code != 1 or "cannot use the state file" not in line:
                stage.victim.crashes.append(f"exit code {code}: {line}")
            stage.note_end()
            break
    calls.rest()


def slow_down(stage: Stage, number: int) -> None:
    """A slow or hanging disk: pages come in time, and say what failed."""
    calls = _calls(stage)
    milliseconds = (20, 200, 3000)[number % 3]
    calls.watch(Kind.DATABASE, 1, Action.SLOW, milliseconds)
    for _ in range(3):
        store, name = stage.pick()
        stage.insert(store, name, 1)
        stage.look(strict=False, timeout=stage.rng.choice((0.3, 1.0)))
    if not calls.rest():
        stage.victim.crashes.append("nothing was slow")


def _place(stage: Stage, number: int, kinds: Kind) -> int:
    """Return the number of a call of a scrape, another one for each try."""
    calls = _calls(stage)
    if kinds not in calls.numbers:
        stage.write()
        calls.watch(kinds)
        stage.scrape()
        calls.rest()
        calls.numbers[kinds] = len(calls.made(kinds)) + 1
        stage.settle()
    return 1 + number * STRIDE % calls.numbers[kinds]


def _calls(stage: Stage) -> Calls:
    assert stage.calls
    return stage.calls


def watched(stage: Stage) -> None:
    """Let calls be watched from the start."""
    stage.calls = Calls(stage.folder)
    stage.victim.environment |= stage.calls.environment


_scene = partial(Scene, "system calls", setting=watched, excused=LIBRARIES)
SCENES = (
    _scene(kill_at_a_call, 150),
    _scene(kill_halfway, 60),
    _scene(cut_power, 60),
    _scene(refuse_state, 150),
    _scene(refuse_start, 20),
    _scene(refuse_anything, 200),
    _scene(slow_down, 20),
)
