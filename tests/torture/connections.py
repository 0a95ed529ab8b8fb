"""What clients do to connections: slow, silent, half closed, reset, too many.

Everything is in the clear: who may speak at all is the matter of other modules.
"""

import gzip
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial

from tests.clients import Client
from tests.torture.report import Effort, Fault, Found
from tests.torture.victim import (
    SCRAPE_SECONDS,
    Refused,
    Scraper,
    Victim,
    attacked,
    complain,
)

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: torture\r\n\r\n"
# As documented, not as the exporter has them: it may be wrong.
LIMIT_SECONDS = 10.0  # for a request, and for an answer
MOST_CONNECTIONS = 512
CROWD = 600  # so that whoever comes has to find room
SCRAPERS = 64
GRACE_SECONDS = 4.0  # on a machine that is busy with 600 connections
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, say so by RST

Address = tuple[str, int]


def play_slowloris(effort: Effort) -> Found:
    """Many heads, byte by byte; each ends within the time for a request."""
    found = Found()
    with attacked(effort, found) as victim, _crowd(victim, effort.times(CROWD)) as all_:
        begin = time.monotonic()
        limit = LIMIT_SECONDS + GRACE_SECONDS
        alive = list(all_)
        drips = iter(SCRAPE[:20] + b"x" * 10_000)
        while alive and time.monotonic() - begin < limit:
            byte = bytes([next(drips)])
            alive = [client for client in alive if drip(client, byte)]
            time.sleep(0.2)
        found.tried += len(all_)
        complain(found, "crashed", "a dripping head was waited for", alive)
    return found


def drip(client: socket.socket, byte: bytes) -> bool:
    """Send a byte and say whether the connection is still open."""
    try:
        client.setblocking(False)
        client.send(byte)
        return client.recv(1) != b""
    except BlockingIOError:
        return True
    except OSError:
        return False


def play_slow_readers(effort: Effort) -> Found:
    """Ask for page after page and read none: the others are answered all the same."""
    found = Found()
    # Without the limit, which would refuse what fills the buffers.
    number, flag = effort.times(CROWD), "--web.max-requests=0"
    with (
        attacked(effort, found, flag) as victim,
        _crowd(victim, number, receive_buffer=2048) as crowd,
    ):
        for client in crowd:
            with suppress(OSError):  # it is cut off to make room
                client.sendall(SCRAPE * 8)
            # This is not about who gets the processor: let each page be made.
            time.sleep(0.005)
        _last(victim, found, LIMIT_SECONDS / 2)
        stuck = victim.resources()["threads"]
        if stuck < min(number, MOST_CONNECTIONS) * 0.9:
            found.note("crashed", f"nothing was tried: {stuck} threads")
        found.tried += number
    return found


def _last(victim: Victim, found: Found, seconds: float) -> None:
    """Let the attack last; whoever comes now has to be answered."""
    end = time.monotonic() + seconds
    newcomer = Scraper(victim.fetch)
    while time.monotonic() < end:
        newcomer.ask()
    complain(found, "crashed", "a newcomer was not served", newcomer.failures)


def play_idle(effort: Effort) -> Found:
    """A thousand silent connections, and again as soon as they are cut off."""
    found = Found()
    with attacked(effort, found) as victim:
        for wave in range(3):
            with _crowd(victim, effort.times(1000)) as crowd:
                if wave == 1:  # silent after an answer instead of from the start
                    for client in crowd:
                        with suppress(OSError):
                            client.sendall(b"GET /-/healthy HTTP/1.1\r\n\r\n")
                _last(victim, found, 2.0)
                found.tried += len(crowd)
    return found


def play_half_closed(effort: Effort) -> Found:
    """Say that nothing more will come: nothing is waited for, an answer arrives."""
    found = Found()
    wrong: list[object] = []
    with attacked(effort, found) as victim:
        for number in range(effort.times(600)):
            asked = (b"", SCRAPE[: number // 3 % len(SCRAPE)], SCRAPE)[number % 3]
            with socket.create_connection(victim.address, 5) as client:
                client.sendall(asked)
                client.shutdown(socket.SHUT_WR)
                answer = _read_all(client)
            if answer.startswith(b"HTTP/1.1 200 ") is not (asked == SCRAPE):
                wrong.append((asked, answer[:80]))
            found.tried += 1
        complain(found, "crashed", "half-closed connection", wrong)
    return found


def _read_all(client: socket.socket) -> bytes:
    received = bytearray()
    while data := client.recv(1 << 16):
        received += data
    return bytes(received)


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
def _crowd(
    victim: Victim, number: int, receive_buffer: int = 0
) -> Iterator[list[socket.socket]]:
    """Connect so many clients, and close them at the end."""
    with ExitStack() as stack:
        crowd = []
        for _ in range(number):
            client = stack.enter_context(socket.socket())
            if receive_buffer:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer)
            client.settimeout(SCRAPE_SECONDS)
            client.connect(victim.address)
            crowd.append(client)
        yield crowd


GROUP = "network: connections"
FAULTS = (
    Fault(GROUP, f"{CROWD} heads that drip byte by byte", play_slowloris),
    Fault(
        GROUP, f"{CROWD} clients that ask for pages and read none", play_slow_readers
    ),
    Fault(GROUP, "1,000 idle connections, three times", play_idle),
    Fault(GROUP, "connections that are half closed", play_half_closed),
    Fault(GROUP, "connections that are reset", play_resets),
    Fault(GROUP, "connections without a word, fast", play_flood),
    Fault(GROUP, f"pages to {SCRAPERS} scrapers at once", play_scrapers),
)
