"""What befalls the exporter's process: signals, limits, a log nobody reads, its state.

Limits are set and lifted while it runs, as root may.
"""

import os
import resource
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from tests.torture import deaths, own_state
from tests.torture.calls import Action, Kind
from tests.torture.process_scene import Scene
from tests.torture.report import Effort, Fault, Found

STRAY_SIGNALS = (
    signal.SIGHUP,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGPIPE,
    signal.SIGWINCH,
    signal.SIGCHLD,
    signal.SIGCONT,
    signal.SIGURG,
)
STORM = 50
MEBIBYTE = 1 << 20
PIPE_BYTES = 1 << 16
# A scrape that does not wait for anything takes some hundredths of this.
PROMPT_SECONDS = 5.0


def kill_anytime(effort: Effort) -> Found:
    """Kill -9 at random instants of being scraped and written to, pruned meanwhile."""
    with Scene(effort) as scene:
        scene.settle()
        for _ in range(effort.times(25)):
            with scene.one_try("killed"):
                scene.write(3000)
                scraping = scene.trial.begin_scraping(again=True)
                time.sleep(scene.rng.uniform(0.0, 0.1))
                scene.trial.end(signal.SIGKILL)
                scene.trial.end_scraping(scraping)
                scene.trial.note_end()
                scene.prune()
                scene.settle()
    return scene.found


def stop_and_continue(effort: Effort) -> Found:
    """SIGSTOP for up to seconds, while it is scraped and others write and prune."""
    with Scene(effort) as scene:
        scene.settle()
        for _ in range(effort.times(15)):
            with scene.one_try("stopped, continued"):
                scene.write(3000)
                scraping = scene.trial.begin_scraping(again=True)
                time.sleep(scene.rng.uniform(0.0, 0.02))
                scene.target.process.send_signal(signal.SIGSTOP)
                scene.write()
                scene.prune()
                time.sleep(scene.rng.choice((0.05, 0.5, 3.0)))
                scene.target.process.send_signal(signal.SIGCONT)
                scene.trial.end_scraping(scraping)
                if not scraping.pages:
                    scene.target.crashes.append("no page")
                scene.settle()
    return scene.found


def storm_of_terms(effort: Effort) -> Found:
    """SIGTERM many times over, in the middle of scrapes: it ends once, in order."""
    with Scene(effort) as scene:
        scene.settle()
        for _ in range(effort.times(15)):
            with scene.one_try("SIGTERM again and again"):
                scene.write(3000)
                scraping = scene.trial.begin_scraping(again=True)
                time.sleep(scene.rng.uniform(0.0, 0.05))
                _storm(scene, signal.SIGTERM)
                if (code := scene.target.wait(10.0)) != 0:
                    scene.target.crashes.append(f"exit code {code}")
                scene.trial.end_scraping(scraping)
                scene.trial.note_end()
                scene.settle()
    return scene.found


def stray_signals(effort: Effort) -> Found:
    """Signals that nobody need send: HUP, USR1, USR2, PIPE and so on."""
    with Scene(effort) as scene:
        scene.settle()
        for number in STRAY_SIGNALS * effort.times(4):
            with scene.one_try(number.name):
                scene.write()
                scraping = scene.trial.begin_scraping(again=True)
                _storm(scene, number)
                scene.trial.end_scraping(scraping)
                scene.settle()
    return scene.found


def no_threads(effort: Effort) -> Found:
    """No thread can be started: that costs pages, and nothing else."""
    with Scene(effort, watched=True) as scene:
        scene.settle()
        scene.target.patience_seconds = 1.0
        for _ in range(effort.times(30)):
            with scene.one_try("no thread"):
                scene.write(scene.rng.choice((40, 40, 40, 80_000)))
                lasting = scene.rng.choice((Action.FAIL, Action.FAIL_FROM_THERE_ON))
                at = scene.rng.randint(1, 3)
                scene.calls.watch(Kind.THREAD, at=at, action=lasting)
                for _ in range(3):
                    scene.scrape()
                scene.calls.rest()
                crashes = scene.target.crashes
                crashes[:] = [text for text in crashes if "status 500" not in text]
                scene.settle()
    return scene.found


def no_memory(effort: Effort) -> Found:
    """An address space with little or no room, at scrapes and catching up."""
    with Scene(effort) as scene:
        scene.settle()
        scene.target.patience_seconds = 2.0
        for _ in range(effort.times(30)):
            room = scene.rng.choice((0, 0, 0.1, 0.5, 1, 2, 5, 9, 20))
            what = f"{room} MB of memory left"
            with scene.one_try(what, excused=MEMORY_ERRORS):
                scene.write(scene.rng.choice((40, 3000, 20_000)))
                scene.trial.tell(what)
                with _memory_limit(scene, int(room * MEBIBYTE)):
                    for _ in range(scene.rng.randint(1, 4)):
                        scene.scrape()
                scene.settle()
    return scene.found


MEMORY_ERRORS = ("MemoryError", "out of memory", "Traceback", "can't start new thread")


def full_log(effort: Effort) -> Found:
    """Nobody reads the log's pipe any more; news come, and scrapes all the same."""
    with Scene(effort) as scene, _full_pipe() as end:
        scene.target.output = end
        scene.settle()
        for _ in range(effort.times(10)):
            with scene.one_try("log's pipe full"):
                _news(scene)
    return scene.found


def closed_output(effort: Effort) -> Found:
    """Neither stdout nor stderr are open."""
    with Scene(effort) as scene:
        scene.target.prefix = ("sh", "-c", 'exec "$@" <&- >&- 2>&-', "sh")
        scene.settle()
        for _ in range(effort.times(10)):
            with scene.one_try("no stdout, no stderr"):
                _news(scene)
                scene.trial.end(scene.rng.choice((signal.SIGTERM, signal.SIGKILL)))
                scene.settle()
    return scene.found


def _news(scene: Scene) -> None:
    """Let something be logged: a database that goes and comes back."""
    scene.write()
    store = scene.rng.choice(scene.trial.stores)
    store.close()
    aside = store.path.with_name("aside.db")
    os.replace(store.path, aside)
    for _ in range(3):
        started = time.monotonic()
        if not scene.scrape() or time.monotonic() - started > PROMPT_SECONDS:
            scene.target.crashes.append("no page while there is something to log")
    os.replace(aside, store.path)
    scene.settle()


def _storm(scene: Scene, number: signal.Signals) -> None:
    for _ in range(STORM):
        if scene.target.process.poll() is None:
            scene.target.process.send_signal(number)
        time.sleep(scene.rng.choice((0.0, 0.001)))


@contextmanager
def _memory_limit(scene: Scene, room: int) -> Iterator[None]:
    """Let the process have no more address space than now, and some bytes."""
    pid = scene.target.process.pid
    with open(f"/proc/{pid}/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    infinite = resource.RLIM_INFINITY
    resource.prlimit(pid, resource.RLIMIT_AS, (now + room, infinite))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, (infinite, infinite))


@contextmanager
def _full_pipe() -> Iterator[int]:
    """Yield the end of a pipe into which nothing can be written."""
    read, write = os.pipe()
    os.set_blocking(write, False)
    try:
        while True:
            os.write(write, bytes(PIPE_BYTES))
    except BlockingIOError:
        os.set_blocking(write, True)
    try:
        yield write
    finally:
        os.close(read)
        os.close(write)


_fault = partial(Fault, "process")
FAULTS = (
    *deaths.FAULTS,
    _fault("kill -9 at any instant, pruned before the start", kill_anytime),
    _fault("SIGSTOP, SIGCONT", stop_and_continue),
    _fault("SIGTERM, a storm of it", storm_of_terms),
    _fault("SIGHUP, SIGUSR1, SIGPIPE and others", stray_signals),
    _fault("no thread can be started", no_threads),
    _fault("no memory", no_memory),
    _fault("log's pipe full, nobody reads it", full_log),
    _fault("stdout and stderr closed", closed_output),
    *own_state.FAULTS,
)
