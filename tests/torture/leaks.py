"""An hour and more of scrapes and mishaps: nothing may grow, nothing may stay open.

An hour of one Prometheus is 240 scrapes. Here come the hours of several, with all that
may go wrong in between; the process is measured after the first third, when caches are
full and the allocator has what it needs, and at the end.
"""

import os
import socket
import struct
import time
from collections.abc import Callable
from contextlib import ExitStack, closing, suppress
from functools import partial
from pathlib import Path
from typing import NamedTuple

from tests.faults.target import ANSWER_SECONDS, Asking
from tests.torture.process_scene import Scene
from tests.torture.report import Effort, Fault, Found

HOURS = 12  # of one Prometheus
SCRAPES = 240
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: closing sends a reset
# Allocators keep what was freed in pieces, for each of the threads that run at the same
# time: 0.4 MB were measured. One page leaked by each of some 1,300 scrapes between the
# measurements would be 40 MB, 3 KB of each 4.
GROWTH_BYTES = 3 << 20
# Connections that are just being closed, and the files of a read between scrapes.
SPARE = 3
STATE_BYTES = 32 << 10  # four tables: counts, and fingerprints of some dozen rows
IDLE = 100


class Usage(NamedTuple):
    """What a process has."""

    memory_bytes: int
    descriptors: int
    threads: int


def measure(pid: int) -> Usage:
    """Return what a process has, of its memory what is resident."""
    folder = Path(f"/proc/{pid}")
    pages = int((folder / "statm").read_text().split()[1])
    return Usage(
        pages * os.sysconf("SC_PAGE_SIZE"),
        len(os.listdir(folder / "fd")),
        len(os.listdir(folder / "task")),
    )


def judge(found: Found, first: Usage, last: Usage) -> None:
    """Note what has grown between two measurements."""
    text = f"{first} became {last}"
    if last.memory_bytes > first.memory_bytes + GROWTH_BYTES:
        found.note("crashed", f"memory: {text}")
    if last.descriptors > first.descriptors + SPARE:
        found.note("crashed", f"descriptors: {text}")
    if last.threads > first.threads + SPARE:
        found.note("crashed", f"threads: {text}")


def live_for_hours(effort: Effort) -> Found:
    """Scrape in all ways, with all mishaps in between, and measure."""
    with Scene(effort) as scene:
        scene.settle()
        mishaps: list[Callable[[Scene], None]] = [
            *[scrape] * 12,
            *[other_pages] * 3,
            *[hang_up] * 3,
            write_and_prune,
            database_locked,
            database_gone,
            database_replaced,
            table_gone,
            state_refused,
        ]
        turns = effort.times(HOURS * SCRAPES)
        first = None
        with scene.one_try("hours"):
            for number in range(turns):
                scene.rng.choice(mishaps)(scene)
                if number == turns // 3:
                    scene.settle()
                    first = measure_at_rest(scene)
            scene.settle()
            scene.found.tried += turns - 1
            assert first
            judge(scene.found, first, measure_at_rest(scene))
            if (size := scene.target.state.stat().st_size) > STATE_BYTES:
                scene.found.note("crashed", f"the state file has {size} bytes")
    return scene.found


def hold_connections(effort: Effort) -> Found:
    """Many connections that are opened and left: closed, reset, or never used."""
    with Scene(effort) as scene:
        scene.settle()
        for _ in range(effort.times(10)):
            with scene.one_try(f"{IDLE} connections"):
                before = measure_at_rest(scene)
                with ExitStack() as held:
                    for _ in range(IDLE):
                        client = held.enter_context(_connect(scene))
                        client.sendall(_request(scene)[: scene.rng.randint(0, 40)])
                    scene.scrape()
                judge(scene.found, before, measure_at_rest(scene))
                scene.settle()
    return scene.found


def scrape(scene: Scene) -> None:
    """Ask in any way, sometimes with next to no time."""
    timeout = scene.rng.choice((None, None, 10.0, 1.0, 0.05))
    asking = scene.asking()
    scene.scrape(Asking(asking.openmetrics, asking.compressed, timeout))


def other_pages(scene: Scene) -> None:
    """Ask for parts of the page, and for what is not there or not allowed."""
    with closing(_connect(scene)) as client:
        for _ in range(scene.rng.randint(1, 8)):
            client.sendall(_request(scene))
            if not client.recv(65536):
                break


def hang_up(scene: Scene) -> None:
    """Break off in the middle of a request or of an answer, with or without a reset."""
    with closing(_connect(scene)) as client:
        request = _request(scene)
        client.sendall(request[: scene.rng.randint(0, len(request))])
        if scene.rng.random() < 0.5:
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
        if scene.rng.random() < 0.5:
            time.sleep(scene.rng.uniform(0.0, 0.01))


def write_and_prune(scene: Scene) -> None:
    scene.write(300)
    if scene.rng.random() < 0.5:
        scene.settle()
        scene.prune()


def database_locked(scene: Scene) -> None:
    """Scrape while a writer has a database for itself."""
    store = scene.rng.choice(scene.trial.stores)
    store.close()
    with closing(store.connect()) as db:
        db.execute("PRAGMA locking_mode = EXCLUSIVE").fetchall()
        db.execute("BEGIN EXCLUSIVE")
        scene.scrape(Asking(timeout_seconds=0.3))
        db.execute("ROLLBACK")


def database_gone(scene: Scene) -> None:
    """Scrape while a database is not there."""
    store = scene.rng.choice(scene.trial.stores)
    store.close()
    aside = store.path.with_name("aside.db")
    os.replace(store.path, aside)
    scene.scrape()
    os.replace(aside, store.path)


def database_replaced(scene: Scene) -> None:
    """Replace a database by a copy of it."""
    store = scene.rng.choice(scene.trial.stores)
    store.put(store.copy())
    scene.scrape()


def table_gone(scene: Scene) -> None:
    """Let one collector fail."""
    store = scene.rng.choice(scene.trial.stores)
    name = scene.rng.choice(list(store.tables))
    store.run(f"ALTER TABLE {name} RENAME TO gone")
    scene.scrape()
    store.run(f"ALTER TABLE gone RENAME TO {name}")


def state_refused(scene: Scene) -> None:
    """Let the state file not be written."""
    temporary = scene.target.state.with_name(scene.target.state.name + ".tmp")
    with suppress(FileNotFoundError):
        temporary.unlink()
    temporary.mkdir()
    scene.write()
    scene.scrape()
    temporary.rmdir()


def measure_at_rest(scene: Scene) -> Usage:
    """Return what the process has once all connections should be gone."""
    least = measure(scene.target.process.pid)
    until = time.monotonic() + 1.0
    while time.monotonic() < until:
        time.sleep(0.05)
        now = measure(scene.target.process.pid)
        least = Usage(*map(min, least, now))
    return least


def _connect(scene: Scene) -> socket.socket:
    return socket.create_connection(("127.0.0.1", scene.target.port), ANSWER_SECONDS)


def _request(scene: Scene) -> bytes:
    target = scene.rng.choice(
        (
            "/metrics",
            "/metrics?name[]=hakgal_facts&name[]=nothing",
            "/metrics?collect[]=facts",
            "/metrics?collect[]=nothing",
            f"/metrics?name[]={'x' * scene.rng.randint(0, 9000)}",
            f"/{scene.rng.getrandbits(64)}",
            "/-/healthy",
            "/-/ready",
            "/",
            "/metrics?%zz",
        )
    )
    method = scene.rng.choice(("GET", "GET", "GET", "HEAD", "POST"))
    return f"{method} {target} HTTP/1.1\r\nHost: x\r\n\r\n".encode()


_fault = partial(Fault, "leaks")
FAULTS = (
    _fault("twelve hours of scrapes and mishaps", live_for_hours),
    _fault("connections by the hundred, left", hold_connections),
)
