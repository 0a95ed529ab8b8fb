"""What clients do to connections: slow, silent, half closed, reset, too many.

Everything is in the clear: who may speak at all is the matter of other modules.
"""

import gzip
import itertools
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from tests.clients import Client
from tests.torture.report import Effort, Fault, Found
from tests.torture.victim import SCRAPE_SECONDS, Refused, Scraper, attacked, complain

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: torture\r\n\r\n"
HEALTH = b"GET /-/healthy HTTP/1.1\r\nHost: torture\r\n\r\n"
LARGE_HEAD = b"GET / HTTP/1.1\r\nX: " + b"x" * 31_000
MOST_CONNECTIONS = 128  # as documented, not as the exporter has it
CROWD = 500  # so that whoever comes has to find room
READERS = 200  # each has some pages made until it is stuck
MOST_QUERY_TYPES = 100  # as many as are kept apart: pages are as large as they get
DRIPS = 80
SCRAPERS = 64
FEW_DESCRIPTORS = 64
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, say so by RST

Address = tuple[str, int]


def play_slowloris(effort: Effort) -> Found:
    """Heads byte by byte, and then nothing more."""
    found = Found()
    with attacked(effort, found) as victim:
        drip_by_many(found, victim.address, effort, (SCRAPE[:-2],))
    return found


def drip_by_many(
    found: Found, address: Address, effort: Effort, texts: tuple[bytes, ...]
) -> None:
    """Let many send texts, the ends of them byte by byte, and then say nothing."""
    scripts = [[t[:-DRIPS], *(bytes([b]) for b in t[-DRIPS:])] for t in texts]
    for _ in range(effort.times(20)):
        with crowded(address, CROWD) as crowd:
            alive = [*zip(crowd, itertools.cycle(scripts), strict=False)]
            for step in range(DRIPS + 1):
                now = slice(step, step + 1)
                alive = [(c, all_) for c, all_ in alive if drip(c, b"".join(all_[now]))]
                time.sleep(0.02)
            found.tried += len(crowd)
            if len(alive) > MOST_CONNECTIONS:
                found.note("crashed", f"{len(alive)} connections are held")


def drip(client: socket.socket, data: bytes) -> bool:
    """Send something and say whether the connection is still open."""
    try:
        client.setblocking(False)
        if data:
            client.send(data)
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def play_slow_readers(effort: Effort) -> Found:
    """Ask for page after page and read none: the others are answered all the same."""
    found = Found()
    with attacked(effort, found, query_types=MOST_QUERY_TYPES) as victim:
        before = victim.resources()["file descriptors"]
        for _ in range(effort.times(5)):
            with crowded(victim.address, READERS, receive_buffer=2048) as crowd:
                for client in crowd:
                    client.setblocking(False)
                    with suppress(OSError):  # cut off to make room
                        client.send(SCRAPE * 5000)
                    # This is not about who gets the processor: let pages be made.
                    time.sleep(0.1)
                held = victim.resources()["file descriptors"] - before
                if not 9 < held <= MOST_CONNECTIONS + 9:
                    found.note("crashed", f"{held} connections are held")
                found.tried += len(crowd)
    return found


def play_idle(effort: Effort) -> Found:
    """Silent connections: from the start, after an answer, in the middle of a head."""
    found = Found()
    with attacked(effort, found) as victim:
        for said in (b"", HEALTH, LARGE_HEAD) * effort.times(5):
            with crowded(victim.address, CROWD) as crowd:
                for client in crowd:
                    with suppress(OSError):
                        client.sendall(said)
                time.sleep(2.0)
                found.tried += len(crowd)
    return found


def play_few_descriptors(effort: Effort) -> Found:
    """More silent connections than there may be open files."""
    found = Found()
    with attacked(effort, found, descriptors=FEW_DESCRIPTORS) as victim:
        for _ in range(effort.times(20)):
            with crowded(victim.address, 2 * FEW_DESCRIPTORS) as crowd:
                time.sleep(1.0)
                found.tried += len(crowd)
    return found


def play_half_closed(effort: Effort) -> Found:
    """Say that nothing more will come: nothing is waited for."""
    found = Found()
    wrong: list[object] = []
    with attacked(effort, found) as victim:
        for number in range(effort.times(600)):
            asked = (b"", SCRAPE[: number // 3 % len(SCRAPE)], SCRAPE)[number % 3]
            with socket.create_connection(victim.address, 5) as client:
                client.sendall(asked)
                client.shutdown(socket.SHUT_WR)
                answer = client.recv(1 << 16)
            # The library does not answer whoever has closed.
            if answer and not (asked == SCRAPE and answer.startswith(b"HTTP/1.1 200 ")):
                wrong.append((asked, answer[:80]))
            found.tried += 1
        complain(found, "crashed", "half-closed connection", wrong)
    return found


def play_resets(effort: Effort) -> Found:
    """Reset connections in the middle of requests and of answers."""
    found = Found()

    def reset(address: Address, number: int) -> None:
        with socket.create_connection(address, 5) as client:
            if number % 2:
                client.sendall(SCRAPE[: number % len(SCRAPE)])
            else:
                client.sendall(SCRAPE * (1 + number % 3))
                client.recv(1 + 97 * number % 5000)
            client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    with attacked(effort, found, "--web.max-requests=0") as victim:
        by_many(found, effort.times(2000), partial(reset, victim.address))
    return found


def play_flood(effort: Effort) -> Found:
    """Connect and go, as fast as it goes."""
    found = Found()

    def connect(address: Address, number: int) -> None:
        with suppress(OSError), socket.create_connection(address, 5) as client:
            if number % 2:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    with attacked(effort, found) as victim:
        by_many(found, effort.times(10_000), partial(connect, victim.address))
    return found


def by_many(
    found: Found, times: int, attack: Callable[[int], None], threads: int = 8
) -> None:
    """Let several threads attack, until it was tried so often."""

    def run(first: int) -> None:
        for number in range(first, times, threads):
            try:
                attack(number)
            except Exception as error:
                errors.append(f"{number}: {error!r}")

    errors: list[str] = []
    all_ = [threading.Thread(target=run, args=[first]) for first in range(threads)]
    for thread in all_:
        thread.start()
    for thread in all_:
        thread.join()
    found.tried += times
    complain(found, "crashed", "an attack met what it should not", errors)


def play_scrapers(effort: Effort) -> Found:
    """Many scrapers of a database that is written: each page is right."""
    found = Found()
    with attacked(effort, found, may_refuse=True) as victim, ExitStack() as stack:
        scrapers = []
        for number in range(SCRAPERS):
            fetch = victim.fetch
            if number % 2:  # one that keeps its connection, and wants less of it
                kept = stack.enter_context(
                    Client(victim.address, seconds=SCRAPE_SECONDS)
                )
                fetch = partial(_fetch_kept, kept)
            # More often, this process would be what is slow.
            scrapers.append(Scraper(fetch, pause_seconds=2.0))
        for scraper in scrapers:
            scraper.start()
        time.sleep(60 * effort.share)
        for scraper in scrapers:
            scraper.stop(waits=False)
        for scraper in scrapers:
            scraper.stop()
            complain(found, "crashed", "one of 64 scrapers", scraper.failures)
            complain(found, "lost", "a counter fell", scraper.fell)
            found.tried += scraper.pages
    return found


def _fetch_kept(client: Client) -> str:
    answer = client.get(accept_encoding="gzip")
    if answer.status == 503:
        raise Refused(answer.body)
    assert answer.status == 200, answer
    return gzip.decompress(answer.body).decode()


@contextmanager
def crowded(
    address: Address, number: int, receive_buffer: int = 0
) -> Iterator[list[socket.socket]]:
    """Connect so many clients, and close them at the end."""
    with ExitStack() as stack:
        crowd = []
        for _ in range(number):
            client = stack.enter_context(socket.socket())
            if receive_buffer:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            client.settimeout(SCRAPE_SECONDS)
            client.connect(address)
            crowd.append(client)
        yield crowd


GROUP = "network: connections"
FAULTS = (
    Fault(GROUP, f"{CROWD} clients that drip byte by byte", play_slowloris),
    Fault(
        GROUP, f"{READERS} clients that ask for pages and read none", play_slow_readers
    ),
    Fault(GROUP, f"{CROWD} idle connections, again and again", play_idle),
    Fault(GROUP, f"idle ones, and {FEW_DESCRIPTORS} descriptors", play_few_descriptors),
    Fault(GROUP, "connections that are half closed", play_half_closed),
    Fault(GROUP, "connections that are reset", play_resets),
    Fault(GROUP, "connections without a word, fast", play_flood),
    Fault(GROUP, f"pages to {SCRAPERS} scrapers at once", play_scrapers),
)
