"""What befalls the process over time: too little memory, hours of scrapes."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from tests.torture.history import befall, draw_change
from tests.torture.scene import Scene
from tests.torture.stage import TIMEOUTS, Stage

MEBIBYTE = 1 << 20
ROOMS = (0, 0, 0.1, 0.5, 1, 2, 5, 9, 20)
MEMORY_ERRORS = ("MemoryError", "out of memory", "Traceback", "can't start new thread")
SCRAPES = 240  # of one Prometheus in an hour
# Allocators keep what was freed in pieces, for each of the threads that run at the same
# time: 0.4 MB were measured. A page leaked by each scrape of an hour would be 7 MB.
GROWTH_BYTES = 3 * MEBIBYTE
STATE_BYTES = 32 << 10  # four tables: counts, and fingerprints of some dozen rows


def no_memory(stage: Stage, number: int) -> None:
    """Little or no room in its address space, at scrapes and catching up."""
    stage.victim.patience_seconds = 1.0
    room = ROOMS[number % len(ROOMS)]
    stage.write(most=stage.rng.choice((40, 3000, 20_000)))
    stage.tell(f"{room} MB of memory left")
    with _memory_limit(stage, int(room * MEBIBYTE)):
        for _ in range(stage.rng.randint(1, 4)):
            stage.scrape()


@contextmanager
def _memory_limit(stage: Stage, room: int) -> Iterator[None]:
    """Let the process have no more address space than now, and some bytes."""
    pid = stage.victim.process.pid
    with open(f"/proc/{pid}/statm") as file:
        now = int(file.read().split()[0]) * resource.getpagesize()
    infinite = resource.RLIM_INFINITY
    resource.prlimit(pid, resource.RLIMIT_AS, (now + room, infinite))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, (infinite, infinite))


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


_scene = partial(Scene, "process")
SCENES = (_scene(no_memory, 20, excused=MEMORY_ERRORS), _scene(live_for_an_hour, 6))
