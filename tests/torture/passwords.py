"""What clients do to log-ins: guess, flood, and write headers that nobody means."""

import base64
import statistics
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import count

from tests.clients import Client
from tests.torture.connections import by_many
from tests.torture.report import Effort, Fault, Found
from tests.torture.talk import CANARY, exchange, objection, parse_replies
from tests.torture.victim import SCRAPE_SECONDS, Victim, attacked, complain
from tests.webs import basic, hash_of

COST = 10  # what the documentation advises
NEWCOMERS = 8
ATTACKERS = 10  # addresses; each has its turn, so that they must not be too many
# Of what a known and an unknown user take; twice the work, or none, is far outside.
WIDEST_RATIO = 1.5


@contextmanager
def _protected(effort: Effort, found: Found) -> Iterator[Victim]:
    """Attack an exporter that knows some users; the scraper is one of them."""
    web = effort.folder / "web.yml"
    hashed = hash_of("right", COST)
    users = ["alice", *(f"newcomer-{number}" for number in range(NEWCOMERS))]
    lines = [f"  {user}: {hashed}\n" for user in users]
    web.write_text("".join(["basic_auth_users:\n", *lines]))
    flag = f"--web.config.file={web}"
    with attacked(effort, found, flag, login=basic("alice", "right")) as victim:
        yield victim


def play_flood(effort: Effort) -> Found:
    """Guess from many threads and addresses; who has a password gets in all the same.

    The scraper, whose log-in is known, comes from one of the attackers' addresses.
    """
    found, statuses = Found(), list[int]()
    stopping = threading.Event()
    with _protected(effort, found) as victim:
        threads = [
            threading.Thread(target=_guess, args=[victim, number, stopping, statuses])
            for number in range(3 * ATTACKERS)
        ]
        for thread in threads:
            thread.start()
        # However few tries are wanted: before 5 s, nobody is sent away.
        for number in range(NEWCOMERS):
            time.sleep(1.0)
            login = basic(f"newcomer-{number}", "right")
            begin = time.monotonic()
            status = victim.get(source="127.0.1.1", authorization=login).status
            seconds = time.monotonic() - begin
            if status != 200 or seconds > SCRAPE_SECONDS:
                found.note("crashed", f"newcomer: {status} after {seconds:.1f} s")
        stopping.set()
        for thread in threads:
            thread.join()
    found.tried = len(statuses)
    wrong = [status for status in statuses if status not in (401, 503)]
    complain(found, "crashed", "a guess was answered", wrong)
    if not {401, 503} <= {*statuses}:
        found.note("crashed", f"that was no flood: only {set(statuses)}")
    return found


def _guess(
    victim: Victim, number: int, stopping: threading.Event, statuses: list[int]
) -> None:
    # Half of them from one address, more than may wait there.
    source = f"127.0.0.{1 + max(0, number % (2 * ATTACKERS) - ATTACKERS)}"
    for guess in count():
        if stopping.is_set():
            return
        login = basic(("alice", "nobody")[guess % 2], f"{number} {guess}")
        try:
            with Client(
                victim.address, seconds=SCRAPE_SECONDS, source=source
            ) as client:
                status = client.get(authorization=login).status
        except Exception:
            status = 0  # not answered in time, or cut off
        statuses.append(status)
        if status == 503:
            time.sleep(0.02)  # two cores are for the exporter, too


def play_timing(effort: Effort) -> Found:
    """Ask for users that exist and others; the work done for them is the same.

    Processor time is judged; the times of answers, which other programs disturb, are
    only said.
    """
    found = Found()
    work: dict[str, list[float]] = {"alice": [], "nobody": []}
    waits: dict[str, list[float]] = {"alice": [], "nobody": []}
    with _protected(effort, found) as victim:
        for number in range(max(10, effort.times(30))):
            for user in effort.rng.sample([*work], 2):
                before, begin = victim.work_seconds, time.perf_counter()
                status = victim.get(authorization=basic(user, f"{number}")).status
                waits[user].append(time.perf_counter() - begin)
                work[user].append(victim.work_seconds - before)
                if status != 401:
                    found.note("crashed", f"{user} was answered {status}")
                found.tried += 1
    known, unknown = (statistics.fmean(seconds) for seconds in work.values())
    if not 1 / WIDEST_RATIO < known / max(unknown, 1e-9) < WIDEST_RATIO:
        found.note("crashed", f"{known:.4f} s for a user, {unknown:.4f} s for none")
    fast, slow = (1000 * statistics.median(seconds) for seconds in waits.values())
    print(f"  median of log-ins: {fast:.1f} ms for a user, {slow:.1f} ms for none")
    return found


def play_headers(effort: Effort) -> Found:
    """Write log-ins in every way but the right one."""
    found = Found()
    right = basic("alice", "right").encode()
    code = right.removeprefix(b"Basic ")
    wrong = (
        *(b"", b"Basic", b"Basic ", b"Basic  " + code, b"Basic\t" + code, code),
        *(b"Bearer " + code, b"Digest username=alice", b"Negotiate " + code, b"Basic:"),
        *(b"Basic " + code + b"=", b"Basic =" + code, b"Basic " + code[:-1]),
        *(b"Basic " + code + b", " + right, right + b", Basic x", b"Basic, " + code),
        *(b"Basic " + b"A" * 32_000, b"Basic " + b"=" * 900, b"Basic \xff\xfe\xfd"),
        *(b"Basic " + code + b" x", b'Basic "' + code + b'"', b"Basic " + CANARY),
        *(b"Basic " + code.swapcase(), b"Basic-" + code, b"Basic;" + code, b"B" * 9000),
    )
    passwords = ["", "righ", "right ", " right", "Right", "right\0", "\0", "right\0x"]
    passwords += ["x" * 72, "x" * 73, "right" + "x" * 68, "x" * 20_000, "rïght"]
    passwords += ["right\n", ":", ":right"]
    users = [
        "",
        "alic",
        "alice ",
        "ALICE",
        "alice\0",
        "a" * 9000,
        "alice:alice",
        "älice",
    ]
    logins = [basic("alice", password).encode() for password in passwords]
    logins += [basic(user, "right").encode() for user in users]
    logins += [b"Basic " + base64.b64encode(text) for text in (b"alice", b"")]
    login, other = b"Authorization: " + right, b"Authorization: Basic x"
    heads = [
        *(b"Authorization: " + value for value in (*wrong, *logins)),
        *(login + b"\r\n" + login, other + b"\r\n" + login, login + b"\r\n" + other),
        *(b"Proxy-" + login, b"X: a\r\n " + login, b"\0" + login, login + b"\0"),
        *(login.replace(b":", b" :"), b"Cookie: " + right),
    ]
    with _protected(effort, found) as victim:

        def attack(number: int) -> None:
            head = heads[number % len(heads)]
            method = (b"GET", b"HEAD", b"POST", b"OPTIONS")[number // len(heads) % 4]
            message = method + b" /metrics HTTP/1.0\r\n" + head + b"\r\n\r\n"
            (reply,) = parse_replies(exchange(victim.address, message))
            assert reply.status in (400, 401), f"{message[:200]!r}: {reply}"
            assert objection(reply) is None, objection(reply)

        # Few at a time: what nobody knows yet is compared, and from one address only.
        by_many(found, effort.times(8 * len(heads)), attack, threads=4)
        url = b"GET http://alice:right@127.0.0.1/metrics?alice:right HTTP/1.0\r\n\r\n"
        (reply,) = parse_replies(exchange(victim.address, url))
        if reply.status != 401:
            found.note("crashed", f"let in by the address: {reply}")
    return found


GROUP = "network: log-ins"
FAULTS = (
    Fault(GROUP, f"guesses from {3 * ATTACKERS} threads at once", play_flood),
    Fault(GROUP, "users that exist and others, side by side", play_timing),
    Fault(GROUP, "log-ins in every way but the right one", play_headers),
)
