"""What clients say: malformed, oversized, ambiguous, in other protocols, strange."""

import gzip
import itertools
from collections.abc import Callable, Sequence
from functools import partial
from random import Random

from tests.exporters import Page, parse_openmetrics
from tests.torture.connections import by_many
from tests.torture.report import Effort, Fault, Found
from tests.torture.talk import CANARY, exchange, is_request, objection, parse_replies
from tests.torture.victim import attacked

END = b"\r\n\r\n"
HEAD_LIMIT_BYTES = 32 * 1024  # as documented
# Comes behind what may be a request, and is the last one.
LAST = b"GET /-/healthy HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"
VALID = (
    b"GET /-/healthy HTTP/1.1\r\nHost: torture\r\nAccept: */*\r\n\r\n",
    b"GET /metrics?name[]=hakgal_up HTTP/1.1\r\nHost: torture\r\n"
    b"Accept: application/openmetrics-text;version=1.0.0;q=0.6,*/*;q=0.1\r\n"
    b"Accept-Encoding: gzip\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n",
    b"HEAD /-/ready HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: torture\r\nContent-Length: 4\r\n\r\nbody",
)
NASTY = (
    *(b"\0", b"\r", b"\n", b"\r\n", b"\r\r\n", b"\n\n", b" ", b"\t", b"\x0b", b"\x7f"),
    *(b"\xff", b"\xc3\x28", b":", b"::", b"%", b"%00", b"%n%s", b"/../", b"?", b"&"),
    *(b";", b"=", b"[", b"{", b"\\", b"#", b"http://", b"HTTP/1.1", b" HTTP/9.9"),
    *(b"A" * 5000, b"Content-Length: 7\r\n", b"Transfer-Encoding: chunked\r\n"),
    *(b" folded\r\n", b"Host: a\r\n", b"-1", b"1e999", b"NaN", b"9" * 400, CANARY),
)
METHODS = (
    *(b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"OPTIONS", b"TRACE", b"CONNECT"),
    *(b"get", b"", b"G\0T", b"GET\t", b"\xff", b"PRI", b"M" * 300, CANARY),
)
TARGETS = (
    *(b"/", b"/metrics", b"/-/healthy", b"/-/ready", b"*", b"", b"/" + CANARY, b"//"),
    *(b"http://a/metrics", b"http://", b"a:80", b"/?" + CANARY, b"/metrics?name[]="),
    *(b"/metrics?collect[]=" + CANARY, b"/metrics?%ff", b"/metrics?a=1;b=2", b"/\xe4"),
    *(b"/metrics?name[]=%ff", b"/metrics?&&&", b"/" + b"a" * 3000, b"/metrics?name[]"),
)
VERSIONS = (
    *(b"HTTP/1.1", b"HTTP/1.0", b"HTTP/1.9", b"HTTP/2.0", b"HTTP/0.9", b"HTTP/11", b""),
    *(b"http/1.1", b"HTTP/1.1 x", b"HTTP/-1.1", b"HTTP/1.", b"ICY", b"HTTP/1,1"),
)
NAMES = (
    *(b"Host", b"Accept", b"Accept-Encoding", b"Connection", b"Content-Length"),
    *(b"Transfer-Encoding", b"Authorization", b"X-Prometheus-Scrape-Timeout-Seconds"),
    *(b"Upgrade", b"Expect", b"Range", b"X\0", b"", b"X Y", b"\xc4", CANARY, b" X"),
)
VALUES = (
    *(b"", b"gzip", b"*/*", b"close", b"0", b"-0", b"5, 6", b"chunked", b"gzip;q=1e9"),
    *(b"text/plain;q=" + b"0" * 900, b"," * 3000, b";" * 3000, b"a/b;q=.;q=..", b"NaN"),
    *(b"100-continue", b"bytes=0-", b"h2c", b"\xff\xfe", b"\0", b"\r", CANARY, b"1e-9"),
)


def play_mutations(effort: Effort) -> Found:
    """Requests that were right before some bytes of theirs were changed."""
    return _play_fuzz(effort, 5000, _mutated)


def play_grammar(effort: Effort) -> Found:
    """Requests put together from parts, few of which belong there."""
    return _play_fuzz(effort, 5000, _composed)


def _play_fuzz(effort: Effort, times: int, make: Callable[[Random], bytes]) -> Found:
    found = Found()
    messages = [make(effort.rng) for _ in range(effort.times(times))]
    with attacked(effort, found) as victim:

        def attack(number: int) -> None:
            _converse(
                victim.address, messages[number] + LAST, half_closes=number % 9 == 0
            )

        by_many(found, len(messages), attack)
    return found


def _converse(
    address: tuple[str, int], message: bytes, *, half_closes: bool = False
) -> list[int]:
    """Return the statuses of the answers to bytes; any that is wrong is an error."""
    replies = parse_replies(exchange(address, message, half_closes=half_closes))
    for reply in replies:
        wrong = objection(reply)
        assert wrong is None, f"{message[:300]!r}: {wrong}"
    statuses = [reply.status for reply in replies]
    is_wrong = statuses[:1] == [200] and not is_request(message)
    assert not is_wrong, f"{message[:300]!r} was taken for a request"
    return statuses


def _mutated(rng: Random) -> bytes:
    message = bytearray(rng.choice(VALID))
    for _ in range(rng.randint(1, 4)):
        here, there = sorted(rng.randrange(len(message) + 1) for _ in range(2))
        match rng.randrange(5):
            case 0:
                message[here:here] = rng.choice(NASTY)
            case 1:
                message[here : here + 1] = bytes([rng.randrange(256)])
            case 2:
                del message[here : here + rng.randrange(1, 9)]
            case 3:
                message[here:here] = message[here:there]
            case 4:
                message[here:there] = message[here:there].swapcase()
    return bytes(message) + END


def _composed(rng: Random) -> bytes:
    words = rng.choice(METHODS), rng.choice(TARGETS), rng.choice(VERSIONS)
    if rng.random() < 0.7:  # so that the headers matter
        words = b"GET", rng.choice(TARGETS), b"HTTP/1.0"
    gap = rng.choice((b" ", b" ", b" ", b" ", b"  ", b"\t", b""))
    lines = [gap.join(words)]
    for _ in range(rng.choice((0, 1, 2, 5, 400))):
        colon = rng.choice((b": ", b": ", b":", b" : ", b"", b":\t"))
        lines.append(rng.choice(NAMES) + colon + rng.choice(VALUES)[:900])
    end = rng.choice((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\n\r"))
    return end.join(lines) + END


# What follows these heads is the next request.
CLEAR = (
    *(b"X: y", b"Content-Length: 0", b"Content-Length: 0, 0", b"Content_Length: 60"),
    *(b"Content-Length: 0\r\nContent-Length: 0", b"Content-Length: 00"),
)
# And these are refused, whatever follows.
UNCLEAR = (
    *(b"Content-Length: 5", b"Content-Length: 0\r\nContent-Length: 6"),
    *(b"Content-Length: 60\r\nTransfer-Encoding: chunked", b"Content-Length: -1"),
    *(b"Content-Length: 0\r\nTransfer-Encoding: chunked", b"Content-Length: 0, 6"),
    *(b"Transfer-Encoding: identity, chunked", b"Transfer-Encoding: xchunked"),
    *(b"Transfer-Encoding : chunked", b"Transfer-Encoding:\x0bchunked"),
    *(b"X: y\r\n Transfer-Encoding: chunked", b"Transfer-Encoding: "),
    *(b"Content-Length: 6\0", b"Content-Length: 0x0", b"Content-Length: 0 0"),
    *(b"Content-Length: +0", b"Content-Length:\r\n 60", b"Content_Length: 6\0"),
    *(b"Content-Length : 60", b"Content-Length: 0e1", b"\0Content-Length: 60"),
    *(b"X: y\r\rZ: z", b"X: y\rTransfer-Encoding: chunked", b"X\0: y", b"X"),
    *(b"X: y\r\n\r", b"X: y\r\n \r", b"X: y\n\r\r", b"Content-Length: 0_0"),
)
CHUNKS = (
    *(b"5\r\nhello\r\n0\r\n\r\n", b"5;a=b\r\nhello\r\n", b"+0\r\n\r\n", b"0x0\r\n\r\n"),
    *(
        b"0\n\n",
        b" 0\r\n\r\n",
        b"-1\r\n",
        b"\r\n",
        b"0\r\nX: y\r\n\r\n",
        b"f" * 20 + b"\r\n",
    ),
    b"0" * 90 + b"\r\n\r\n",
)
ANSWERS = [[200], [400], [404], [405]]


def play_smuggling(effort: Effort) -> Found:
    """Hide a request where others may see a body, or see where the head ends."""
    found = Found()
    chunked = b"Transfer-Encoding: chunked"
    parts = [(framing, b"", False) for framing in CLEAR]
    parts += [(chunked, b"0\r\n\r\n", False), *((chunked, c, True) for c in CHUNKS)]
    bodies = (b"", b"0\r\n\r\n", b"hello")
    parts += [(f, body, True) for f, body in itertools.product(UNCLEAR, bodies)]
    shapes = [*itertools.product((b"GET", b"POST"), parts)]
    effort.rng.shuffle(shapes)

    with attacked(effort, found) as victim:

        def attack(number: int) -> None:
            method, (framing, body, is_wrong) = shapes[number % len(shapes)]
            head = method + b" /none HTTP/1.1\r\nHost: a\r\n" + framing + END
            statuses = _converse(victim.address, head + body + LAST)
            allowed = [[400], []] if is_wrong else [[404, 200], [405, 200]]
            assert statuses in allowed, f"{framing!r}, {body!r}: {statuses}"

        by_many(found, effort.times(4 * len(shapes)), attack)
    return found


def play_sizes(effort: Effort) -> Found:
    """Heads around the limit, far beyond it, of thousands of parts, and bodies."""
    found = Found()
    shapes: tuple[tuple[bytes, bytes, bytes], ...] = (
        (b"GET /", b"a", b" HTTP/1.0\r\n\r\n"),
        (b"GET /?", b"a=b&", b" HTTP/1.0\r\n\r\n"),
        (b"GET /metrics?", b"name[]=a&", b"name[]=b HTTP/1.0\r\n\r\n"),
        (b"GET /metrics?", b"name[]=hakgal_up&", b"name[]=up HTTP/1.0\r\n\r\n"),
        (b"GET /metrics?collect[]=facts", b"&collect[]=x", b" HTTP/1.0\r\n\r\n"),
        (b"GET / HTTP/1.0\r\n", b"a: b\r\n", b"\r\n"),
        (b"GET / HTTP/1.0\r\n", b"a:\n", b"\n"),
        (b"GET / HTTP/1.0\r\nX: ", b"a", b"\r\n\r\n"),
        (b"GET / HTTP/1.0\r\n", b"a", b": b\r\n\r\n"),
        (b"GET /metrics HTTP/1.0\r\nAccept: ", b"a/b;q=0.1,", b"\r\n\r\n"),
        (b"GET / HTTP/1.0\r\nContent-Length: ", b"0,", b"0\r\n\r\n"),
        (b"GET / HTTP/1.0\r\nContent-Length: ", b"9", b"\r\n\r\n"),
        (b"G", b"E", b"T / HTTP/1.0\r\n\r\n"),
        (b"POST / HTTP/1.0\r\nContent-Length: 1000\r\n\r\n", b"a", b""),
    )
    sizes = [HEAD_LIMIT_BYTES + n for n in range(-2, 3)]
    sizes += [effort.rng.randrange(100, 1 << 18) for _ in range(21)]
    tries = [*itertools.product(shapes, sizes)]
    effort.rng.shuffle(tries)
    with attacked(effort, found) as victim:

        def attack(number: int) -> None:
            (start, part, end), size = tries[number % len(tries)]
            count = (size - len(start) - len(end)) // len(part)
            message = start + part * count + end
            allowed = [[]] if len(message) > HEAD_LIMIT_BYTES else ANSWERS
            if not end:
                allowed = [[400], []]
            statuses = _converse(victim.address, message)
            what = f"{len(message)}, {message[:40]!r}"
            assert statuses in allowed, f"{what}: {statuses}"

        by_many(found, effort.times(2 * len(tries)), attack)
    return found


def play_strangers(effort: Effort) -> Found:
    """Other protocols, and other versions of this one."""
    found = Found()
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
    greetings = (
        *(b"GET /metrics\r\n", b"GET /\n", b"EHLO a\r\n", b"stats\r\n"),
        *(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(40), b"*1\r\n$4\r\nPING\r\n"),
        *(hello, b"\x80\x2e\x01\x00\x02" + bytes(40), b"SSH-2.0-OpenSSH_9.9\r\n"),
        *(b"\x05\x01\x00", b"\x04\x01\x00\x50" + bytes(5), b"\x03\x00\x00\x13\x0e" * 9),
        *(b"\r\n\r\n\0\r\nQUIT\n" + bytes(20), b"CONNECT a:443 HTTP/1.1\r\n\r\n"),
        *(b"TRACE / HTTP/1.0\r\nX: " + CANARY + END, b"OPTIONS * HTTP/1.0\r\n\r\n"),
        *(bytes(range(256)), bytes(4096), b"\xff" * 4096),
        b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + VALID[0],
        b"GET / HTTP/1.1\r\nHost: a\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n"
        b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
    )
    with attacked(effort, found) as victim:

        def attack(number: int) -> None:
            greeting = greetings[number % len(greetings)]
            _converse(victim.address, greeting + END, half_closes=number % 3 == 0)

        by_many(found, effort.times(20 * len(greetings)), attack)
    return found


def play_paths(effort: Effort) -> Found:
    """Ways around the names of the pages; only the documented ones are there."""
    found = Found()
    pages = ("/", "/metrics", "/-/healthy", "/-/ready")
    files = "etc/passwd proc/self/environ web.yml hexagonal_kb.db exporter-state.json"
    all_files = [str(effort.folder)[1:], "exporter/web/server.py", *files.split()]
    ways = r"/ // /../ /./ /%2e%2e/ /..%2f /%2f \ /..\ /%5c /metrics/../ /-/../ /%00"
    ways += " /;/ /~/ file:/// /%252e%252e/ /metrics/../../../ /-/healthy/../ /.%00./"
    # The library takes no address of a proxy for a path.
    ways += " http://a// http://a/ HTTPS://[::1]:1/"
    wrong = [way + file for way in [*ways.split(), ""] for file in all_files]
    tails = r"/ // %00 %20 ;a . .. /. %2f \ #a .html"
    wrong += [page + tail for page in pages[1:] for tail in tails.split()]
    wrong += [way + page[1:] for way in ways.split()[1:] for page in pages[1:]]
    wrong += [page.upper() for page in pages[1:]]
    wrong += ["/%6detrics", "/-", "/-/", "/favicon.ico"]
    right = [*pages, *(f"{page}?{file}" for page in pages for file in all_files)]
    targets = [(t, False) for t in wrong] + [(t, True) for t in right]

    with attacked(effort, found) as victim:

        def attack(number: int) -> None:
            target, is_page = targets[number % len(targets)]
            message = f"GET {target} HTTP/1.0\r\n\r\n".encode()
            (reply,) = parse_replies(exchange(victim.address, message))
            assert (reply.status == 200) is is_page, f"{target}: {reply.status}"
            assert objection(reply) is None, f"{target}: {objection(reply)}"
            assert str(effort.folder).encode() not in reply.body, target

        by_many(found, max(len(targets), effort.times(4 * len(targets))), attack)
    return found


def play_wishes(effort: Effort) -> Found:
    """Formats, codings and times that nobody means; each gets a page that is right."""
    found = Found()
    kind = "application/openmetrics-text"
    accepts = f"*/* {kind} text/html ;;; q=1 , {kind};version=9.9.9 \xff {kind};q=nan"
    accepts += f" text/plain;q=1.0001 */*;q=0 application/*;q=1e9 {kind};version=x.y"
    accepts += f" {kind};version=1.0.0;escaping=values {kind};escaping=nothing"
    codings = "gzip gzip;q=0 * br gzip;q=0.0001,identity;q=1 GZIP ,, gzip;q=x"
    times = "nan -1 1e999 0 -0.0 inf 1e-9 0.001 0.04 3601 1_0 0x10 \xb2 1e-400 0.1"
    wishes = [
        *itertools.product(
            *([*words.split(" "), ""] for words in (accepts, codings)),
            [*times.split(" "), "", " 5 ", "9" * 4000, "10, 10"],
        )
    ]
    effort.rng.shuffle(wishes)

    with attacked(effort, found, "--web.max-requests=0") as victim:

        def attack(number: int) -> None:
            wish = accept, coding, seconds = wishes[number % len(wishes)]
            answer = victim.get(
                accept=accept,
                accept_encoding=coding,
                x_prometheus_scrape_timeout_seconds=seconds,
            )
            assert answer.status == 200, f"{wish}: {answer}"
            body = answer.body
            if answer.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            is_rich = answer.headers["content-type"].startswith("application/")
            try:
                (parse_openmetrics if is_rich else Page)(body.decode())
            except Exception as error:
                raise AssertionError(f"{wish}: {answer.headers}") from error

        by_many(found, effort.times(600), attack)
    return found


GROUP = "network: messages"
_PLAYS: Sequence[tuple[str, Callable[[Effort], Found]]] = (
    ("requests with some bytes changed", play_mutations),
    ("requests of parts that do not belong together", play_grammar),
    ("requests that hide another", play_smuggling),
    ("heads around 32 KiB and far above, and bodies", play_sizes),
    ("other protocols and versions", play_strangers),
    ("ways around the names of the pages", play_paths),
    ("formats, codings and times that nobody means", play_wishes),
)
FAULTS = tuple(Fault(GROUP, name, partial(play)) for name, play in _PLAYS)
