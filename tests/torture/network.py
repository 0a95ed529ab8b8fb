"""What clients do: slow, silent, greedy, rude, malformed, too many of them.

Meanwhile HAK/GAL writes and Prometheus scrapes: they are served, whatever others do.
"""

import re
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from functools import partial
from random import Random

from tests.clients import Client
from tests.torture.scene import Scene
from tests.torture.stage import Stage
from tests.webs import CLIENTS, Web, basic, users

SCRAPE = b"GET /metrics HTTP/1.1\r\nHost: torture\r\n\r\n"
HEALTH = b"GET /-/healthy HTTP/1.1\r\nHost: torture\r\n\r\n"
LARGE_HEAD = b"GET / HTTP/1.1\r\nX: " + b"x" * 31_000
MOST_CONNECTIONS = 128  # as documented, not as the exporter has it
CROWD = 300  # so that whoever comes has to find room
SCRAPERS = 32
OWN_DESCRIPTORS = 40  # beside connections, as documented
FEW_DESCRIPTORS = 64
MESSAGES = 250
WAIT_SECONDS = 10.0
SILENT_SECONDS = 1.0  # then no answer comes, or the rest of a request is waited for
HANGS_SECONDS = 5.0  # of a server that still does not close, once we have
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: close at once, say so by RST
# It is in everything hostile that is sent, and so must be in nothing that comes back.
LOGIN = basic("alice", "right")
CANARY = b"zq7<'\"zq8"


def crowd(stage: Stage, number: int) -> int:
    """Hundreds of clients: silent, dripping byte by byte, reading no page."""
    said = (b"", HEALTH, LARGE_HEAD, SCRAPE * 5000, None)[number % 5]
    with stage.beset(), crowded(stage, CROWD) as clients:
        for client in clients:
            client.setblocking(False)
            with suppress(OSError):  # cut off to make room
                client.sendall(said or b"")
            if said and len(said) > 100_000:
                time.sleep(0.02)  # let pages be made
        for byte in SCRAPE[:-2] if said is None else b"":
            for client in clients:
                with suppress(OSError):
                    client.send(bytes([byte]))
            time.sleep(0.02)
        time.sleep(1.0)
        held = stage.victim.usage.descriptors
    if held > MOST_CONNECTIONS + OWN_DESCRIPTORS:
        stage.victim.crashes.append(f"{held} descriptors are held")
    return CROWD


def exhaust_descriptors(stage: Stage, number: int) -> int:
    """More silent connections than it may have open files."""
    with stage.beset(), crowded(stage, 2 * FEW_DESCRIPTORS):
        time.sleep(1.0)
    return 2 * FEW_DESCRIPTORS


def hang_up(stage: Stage, number: int) -> int:
    """Connections closed or reset, in requests and in answers, fast."""

    def attack(rng: Random) -> None:
        sent = rng.choice((b"", SCRAPE[: rng.randrange(len(SCRAPE))], SCRAPE * 3))
        with connect(stage) as client, suppress(ConnectionError):
            client.sendall(sent)
            if rng.random() < 0.3:
                client.recv(rng.randrange(1, 5000) if sent == SCRAPE * 3 else 0)
            if rng.random() < 0.5:
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)

    return by_many(stage, 4 * MESSAGES, attack)


def scrape_by_many(stage: Stage, number: int) -> int:
    """32 scrapers at once of databases that are written: each page is right."""
    scrapings = [stage.begin_scraping(again=True) for _ in range(SCRAPERS)]
    for _ in range(10):
        stage.write()
        time.sleep(0.1)
    return stage.end_scraping(*scrapings)


VALID = (
    HEALTH,
    b"GET /metrics?name[]=hakgal_up HTTP/1.1\r\nHost: torture\r\n"
    b"Accept: application/openmetrics-text;version=1.0.0;q=0.6,*/*;q=0.1\r\n"
    b"Accept-Encoding: gzip\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n",
    b"HEAD /-/ready HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: torture\r\nContent-Length: 4\r\n\r\nbody",
    b"GET /" + CANARY + b"?collect[]=" + CANARY + b" HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(40),
    *(b"SSH-2.0-OpenSSH_9.9\r\n", bytes(range(256)), b"CONNECT a:443 HTTP/1.1\r\n\r\n"),
)
NASTY = (
    *(b"\0", b"\r", b"\n", b"\r\n", b"\r\r\n", b"\n\n", b" ", b"\t", b"\x0b", b"\x7f"),
    *(b"\xff", b"\xc3\x28", b":", b"::", b"%", b"%00", b"%n%s", b"/../", b"?", b"&"),
    *(b";", b"=", b"[", b"{", b"\\", b"#", b"http://", b"HTTP/1.1", b" HTTP/9.9"),
    *(b"A" * 5000, b"B" * 40_000, b"Content-Length: 7\r\n", b"Content-Length: 7, 8"),
    *(
        b"Transfer-Encoding: chunked\r\n",
        b"\r\n0\r\n\r\n",
        b" folded\r\n",
        b"Host: a\r\n",
    ),
    *(b"-1", b"1e999", b"NaN", b"9" * 400, b"," * 3000, b"gzip;q=1e9", CANARY),
)


def talk_nonsense(stage: Stage, number: int) -> int:
    """Malformed, oversized, ambiguous requests and other protocols."""

    def attack(rng: Random) -> None:
        message = _spoil(rng, rng.choice(VALID)) + b"\r\n\r\n"
        got = exchange(stage, message, half_closes=rng.random() < 0.2)
        what = f"{message[:300]!r}: {got[:300]!r}"
        assert CANARY not in got, what
        assert not got or re.match(rb"HTTP/1\.1 (100|200|40[045]) ", got), what

    return by_many(stage, 4 * MESSAGES, attack)


def garble_handshakes(stage: Stage, number: int) -> int:
    """What is no TLS, or not all of it, or changed, is not answered."""
    context = _tls(stage)
    starts = _client_hello(context), SCRAPE[:-2] + f"Authorization: {LOGIN}".encode()

    def attack(rng: Random) -> None:
        if rng.random() < 0.2:  # a handshake in order, and no goodbye
            return Client(stage.victim.address, context).__exit__()
        sent = _spoil(rng, rng.choice(starts)) + b"\r\n\r\n"
        got = exchange(stage, sent, half_closes=True)
        assert b"HTTP/" not in got, f"{sent[:80]!r}: {got!r}"

    return by_many(stage, 2 * MESSAGES, attack)


def _spoil(rng: Random, request: bytes) -> bytes:
    """Return a request some parts of which are changed, doubled, left out or put in."""
    message = bytearray(request)
    for _ in range(rng.randint(1, 5)):
        here, there = sorted(rng.randrange(len(message) + 1) for _ in range(2))
        match rng.randrange(6):
            case 0 | 1:
                message[here:here] = rng.choice(NASTY)
            case 2:
                message[here : here + 1] = bytes([rng.randrange(256)])
            case 3:
                del message[here : here + rng.randrange(1, 9)]
            case 4:
                message[here:here] = message[here:there]
            case 5:
                message[here:there] = message[here:there].swapcase()
    return bytes(message)


def exchange(stage: Stage, data: bytes, *, half_closes: bool = False) -> bytes:
    """Send bytes and return all that comes back until the server closes.

    We say that nothing more comes at once, or when nothing has come for a while.

    Raises:
        TimeoutError: the server does not close.
    """
    received = bytearray()
    with connect(stage) as client, suppress(ConnectionError):
        client.sendall(data)
        if not half_closes:
            client.settimeout(SILENT_SECONDS)
            with suppress(TimeoutError):
                while more := client.recv(1 << 16):
                    received += more
                return bytes(received)
        client.settimeout(HANGS_SECONDS)
        with suppress(OSError):  # it may be closed already
            client.shutdown(socket.SHUT_WR)
        while more := client.recv(1 << 16):
            received += more
    return bytes(received)


def by_many(
    stage: Stage, times: int, attack: Callable[[Random], object], threads: int = 8
) -> int:
    """Let several threads attack so many times in all; return how many times."""
    seed = stage.rng.random()

    def run(first: int) -> None:
        for number in range(first, times, threads):
            try:
                attack(Random(f"{seed} {number}"))
            except Exception as error:
                stage.victim.crashes.append(f"attack {number}: {error!r}")

    with stage.beset():
        all_ = [threading.Thread(target=run, args=[n]) for n in range(threads)]
        for thread in all_:
            thread.start()
        for thread in all_:
            thread.join()
    return times


def connect(stage: Stage) -> socket.socket:
    return socket.create_connection(stage.victim.address, WAIT_SECONDS)


@contextmanager
def crowded(stage: Stage, number: int) -> Iterator[list[socket.socket]]:
    """Connect so many clients, and close them at the end."""
    with ExitStack() as stack:
        clients = []
        for _ in range(number):
            client = stack.enter_context(socket.socket())
            client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
            client.settimeout(WAIT_SECONDS)
            client.connect(stage.victim.address)
            clients.append(client)
        yield clients


def few_descriptors(stage: Stage) -> None:
    limit = f'ulimit -n {FEW_DESCRIPTORS}; exec "$@"'
    stage.victim.prefix = ("sh", "-c", limit, "sh")


def protected(stage: Stage) -> None:
    """Want a client's certificate and a password."""
    folder = stage.folder / "web"
    folder.mkdir()
    web = Web(folder)
    pair = web.clients.issue("scraper")
    file = web.write(CLIENTS, users(alice="right"))
    stage.victim.flags.append(f"--web.config.file={file}")
    stage.victim.tls, stage.victim.login = partial(web.trusting, pair), LOGIN


def _tls(stage: Stage) -> ssl.SSLContext:
    assert stage.victim.tls
    return stage.victim.tls()


def _client_hello(context: ssl.SSLContext) -> bytes:
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


_scene = partial(Scene, "network")
SCENES = (
    _scene(crowd, 20),
    _scene(exhaust_descriptors, 8, few_descriptors),
    _scene(hang_up, 8),
    _scene(talk_nonsense, 12),
    _scene(scrape_by_many, 6),
    Scene("doors", garble_handshakes, 8, protected),
)
