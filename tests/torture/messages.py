"""What clients say: malformed, oversized, ambiguous, in other protocols, strange."""

import gzip
import itertools
import time
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
VALID = (
    b"GET /-/healthy HTTP/1.1\r\nHost: torture\r\nAccept: */*\r\n\r\n",
    b"GET /metrics?name[]=hakgal_up HTTP/1.1\r\nHost: torture\r\n"
    b"Accept: application/openmetrics-text;version=1.0.0;q=0.6,*/*;q=0.1\r\n"
    b"Accept-Encoding: gzip\r\nX-Prometheus-Scrape-Timeout-Seconds: 10\r\n\r\n",
    b"HEAD /-/ready HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
    b"POST / HTTP/1.1\r\nContent-Length: 4\r\n\r\nbody",
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
            message = messages[number]
            # What is nothing but empty lines is not answered, and may be waited for.
            half_closes = bool(number % 2) or not message.strip(b"\r\n")
            _converse(victim.address, message, half_closes=half_closes)

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
        words = b"GET", rng.choice(TARGETS[:8]), b"HTTP/1.1"
    gap = rng.choice((b" ", b" ", b" ", b" ", b"  ", b"\t", b""))
    lines = [gap.join(words)]
    for _ in range(rng.choice((0, 1, 2, 5, 400))):
        colon = rng.choice((b": ", b": ", b":", b" : ", b"", b":\t"))
        lines.append(rng.choice(NAMES) + colon + rng.choice(VALUES)[:900])
    end = rng.choice((b"\r\n", b"\r\n", b"\r\n", b"\n", b"\r", b"\n\r"))
    return end.join(lines) + END


def play_smuggling(effort: Effort) -> Found:
    """Hide a request where others may see a body, or see where the head ends."""
    found = Found()
    framings = (
        *(b"Content-Length: 5\r\nContent-Length: 6", b"Content-Length: 5, 6"),
        *(b"Content-Length: 60\r\nTransfer-Encoding: chunked", b"Content-Length: 60"),
        *(b"Transfer-Encoding: chunked", b"Transfer-Encoding: identity, chunked"),
        *(b"Transfer-Encoding : chunked", b"Transfer-Encoding:\x0bchunked"),
        *(b"Transfer-Encoding: xchunked", b"X: y\r\n Transfer-Encoding: chunked"),
        *(b"Content-Length: 6\0", b"Content-Length: 0x6", b"Content-Length: 6 6"),
        *(b"Content-Length: +6", b"Content-Length:\r\n 60", b"Content_Length: 6\0"),
        *(b"Content-Length : 60", b"Content-Length: 1e1", b"\0Content-Length: 60"),
        *(b"X: y\r\rZ: z", b"X: y\rTransfer-Encoding: chunked", b"X\0: y", b"X"),
        *(b"X: y\r", b"X: y\r\n\r", b"X: y\r\n \r", b"X: y\n\r\r"),
    )
    hidden = b"GET /-/healthy HTTP/1.1\r\nHost: a\r\n\r\n"
    bodies = (b"", b"0\r\n\r\n", b"5\r\nhello\r\n0\r\n\r\n", b"hello")
    shapes = [
        method + b" /none HTTP/1.1\r\nHost: a\r\n" + framing + b"\r\n\r\n" + body
        for method in (b"GET", b"POST")
        for framing, body in itertools.product(framings, bodies)
    ]

    with attacked(effort, found) as victim:

        def attack(number: int) -> None:
            shape = shapes[number % len(shapes)] + hidden
            statuses = _converse(victim.address, shape, half_closes=number % 4 > 1)
            assert len(statuses) == 1, f"{shape!r}: {statuses}"
            assert statuses[0] in (400, 404, 405), f"{shape!r}: {statuses}"

        by_many(found, effort.times(4 * len(shapes)), attack)
        statuses = _converse(victim.address, VALID[0] * 99)
        if statuses != [200] * 99:  # or the hidden ones would not have been seen
            found.note("crashed", f"99 requests in one go: {statuses}")
    return found


def play_sizes(effort: Effort) -> Found:
    """Heads around the limit, far beyond it, and with thousands of parts."""
    found = Found()
    shapes: tuple[tuple[bytes, bytes, bytes], ...] = (
        (b"GET /", b"a", b" HTTP/1.1\r\n\r\n"),
        (b"GET /?", b"a=b&", b" HTTP/1.1\r\n\r\n"),
        (b"GET /metrics?", b"name[]=a&", b"name[]=b HTTP/1.1\r\n\r\n"),
        (b"GET /metrics?", b"name[]=hakgal_up&", b"name[]=up HTTP/1.1\r\n\r\n"),
        (b"GET /metrics?collect[]=facts", b"&collect[]=x", b" HTTP/1.1\r\n\r\n"),
        (b"GET / HTTP/1.1\r\n", b"a: b\r\n", b"\r\n"),
        (b"GET / HTTP/1.1\r\n", b"a:\n", b"\n"),
        (b"GET / HTTP/1.1\r\nX: ", b"a", b"\r\n\r\n"),
        (b"GET / HTTP/1.1\r\n", b"a", b": b\r\n\r\n"),
        (b"GET /metrics HTTP/1.1\r\nAccept: ", b"a/b;q=0.1,", b"\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nConnection: ", b"x,", b"close\r\n\r\n"),
        (b"GET / HTTP/1.1\r\nContent-Length: ", b"0,", b"0\r\n\r\n"),
        (b"G", b"E", b"T / HTTP/1.1\r\n\r\n"),
        (b"", b"\r\n", b"GET / HTTP/1.1\r\n\r\n"),
    )
    sizes = [HEAD_LIMIT_BYTES + n for n in range(-2, 3)]
    sizes += [effort.rng.randrange(100, 1 << 18) for _ in range(20)]
    with attacked(effort, found) as victim:

        def attack(number: int) -> None:
            start, part, end = shapes[number % len(shapes)]
            size = sizes[number % len(sizes)]
            count = (size - len(start) - len(end)) // len(part)
            message = start + part * count + end
            statuses = _converse(victim.address, message)
            is_refused = statuses in ([414], [431], [])
            is_large = len(message) > HEAD_LIMIT_BYTES
            assert is_refused is is_large, (
                f"{len(message)}, {message[:40]!r}: {statuses}"
            )

        by_many(found, effort.times(2 * len(shapes) * len(sizes)), attack)
    return found


def play_strangers(effort: Effort) -> Found:
    """Other protocols, and other versions of this one."""
    found = Found()
    hello = b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500)
    greetings = (
        *(
            b"GET /metrics\r\n",
            b"GET /\n",
            b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes(40),
        ),
        *(hello, b"\x80\x2e\x01\x00\x02" + bytes(40), b"SSH-2.0-OpenSSH_9.9\r\n"),
        *(b"EHLO a\r\n", b"\x05\x01\x00", b"\x04\x01\x00\x50" + bytes(5), b"stats\r\n"),
        *(
            b"*1\r\n$4\r\nPING\r\n",
            b"PROXY TCP4 127.0.0.1 127.0.0.1 1 2\r\n" + VALID[0],
        ),
        *(b"\r\n\r\n\0\r\nQUIT\n" + bytes(20), b"CONNECT a:443 HTTP/1.1\r\n\r\n"),
        *(b"TRACE / HTTP/1.1\r\nX: " + CANARY + END, b"\x03\x00\x00\x13\x0e\xe0" * 9),
        *(
            bytes(range(256)),
            bytes(4096),
            b"\xff" * 4096,
            b"OPTIONS * HTTP/1.1\r\n\r\n",
        ),
        b"GET / HTTP/1.1\r\nUpgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\n"
        b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA\r\n\r\n",
    )
    with attacked(effort, found) as victim:

        def attack(number: int) -> None:
            greeting = greetings[number % len(greetings)]
            _converse(victim.address, greeting, half_closes=True)

        by_many(found, effort.times(20 * len(greetings)), attack)
    return found


def play_paths(effort: Effort) -> Found:
    """Ways around the names of the pages; only the documented ones are there."""
    found = Found()
    pages = ("/", "/metrics", "/-/healthy", "/-/ready")
    files: tuple[str, ...] = (
        "etc/passwd",
        "proc/self/environ",
        str(effort.folder)[1:],
        "web.yml",
    )
    files += ("hexagonal_kb.db", "exporter-state.json", "exporter/server.py")
    ways: tuple[str, ...] = (
        "/",
        "//",
        "/../",
        "/./",
        "/%2e%2e/",
        "/..%2f",
        "/%2f",
        "\\",
        "/..\\",
        "/%5c",
    )
    ways += ("/metrics/../", "/-/../", "/%00", "/;/", "/~/", "file:///", "/%252e%252e/")
    ways += (
        "/metrics/../../../../",
        "/-/healthy/../",
        "http://a//",
        "",
        "/.%00./",
        "?/",
    )
    tails = ("/", "//", "%00", "%20", ";a", ".", "..", "/.", "%2f", "\\", "#a", ".html")
    wrong = [way + file for way in ways for file in files]
    wrong += [page + tail for page in pages[1:] for tail in tails]
    wrong += [way + page[1:] for way in ways[1:-1] for page in pages[1:]]
    wrong += [page.upper() for page in pages[1:]] + [
        "/%6detrics",
        "/-",
        "/-/",
        "/favicon.ico",
    ]
    right = [
        start + page for start in ("", "http://a", "HTTPS://[::1]:1") for page in pages
    ]
    right += [page + "?" + file for page in (*pages[:1], *pages[2:]) for file in files]
    targets = [(t, False) for t in wrong if t[:2] != "?/"] + [(t, True) for t in right]

    with attacked(effort, found) as victim:

        def attack(number: int) -> None:
            target, is_page = targets[number % len(targets)]
            message = f"GET {target} HTTP/1.1\r\n\r\n".encode()
            for reply in parse_replies(exchange(victim.address, message)):
                assert (reply.status == 200) is is_page, f"{target}: {reply.status}"
                assert objection(reply) is None, f"{target}: {objection(reply)}"
                assert str(effort.folder).encode() not in reply.body, target

        by_many(found, max(len(targets), effort.times(4 * len(targets))), attack)
    return found


def play_wishes(effort: Effort) -> Found:
    """Formats, codings and times that nobody means; each gets a page that is right."""
    found = Found()
    accepts: tuple[str, ...] = (
        "",
        "*/*",
        "application/openmetrics-text",
        "text/html",
        ";;;",
        "q=1",
        ",",
    )
    accepts += (
        "application/openmetrics-text;version=9.9.9",
        "text/plain;q=1.0001",
        "\xff",
    )
    accepts += ("application/openmetrics-text;q=nan", "*/*;q=0", "application/*;q=1e9")
    codings: tuple[str, ...] = (
        "",
        "gzip",
        "gzip;q=0",
        "*",
        "br",
        "gzip;q=0.0001,identity;q=1",
        "GZIP",
        ",,",
    )
    times: tuple[str, ...] = (
        "",
        "nan",
        "-1",
        "1e999",
        "0",
        "-0.0",
        "inf",
        "1e-9",
        "0.001",
        "0.04",
        "3601",
    )
    times += ("1_0", "0x10", " 5 ", "9" * 4000, "10, 10", "\xb2", "1e-400", "0.1")
    wishes = [*itertools.product(accepts, codings, times)]
    effort.rng.shuffle(wishes)

    with attacked(effort, found, "--web.max-requests=0") as victim:

        def attack(number: int) -> None:
            accept, coding, seconds = wishes[number % len(wishes)]
            begin = time.monotonic()
            answer = victim.get(
                accept=accept,
                accept_encoding=coding,
                x_prometheus_scrape_timeout_seconds=seconds,
            )
            assert answer.status == 200, f"{wishes[number % len(wishes)]}: {answer}"
            assert time.monotonic() - begin < 10.0, wishes[number % len(wishes)]
            body = answer.body
            if answer.headers.get("content-encoding") == "gzip":
                body = gzip.decompress(body)
            is_rich = answer.headers["content-type"].startswith("application/")
            (parse_openmetrics if is_rich else Page)(body.decode())

        by_many(found, effort.times(600), attack)
    return found


GROUP = "network: messages"
_PLAYS: Sequence[tuple[str, Callable[[Effort], Found]]] = (
    ("requests with some bytes changed", play_mutations),
    ("requests of parts that do not belong together", play_grammar),
    ("requests that hide another", play_smuggling),
    ("heads around 32 KiB and far above", play_sizes),
    ("other protocols and versions", play_strangers),
    ("ways around the names of the pages", play_paths),
    ("formats, codings and times that nobody means", play_wishes),
)
FAULTS = tuple(Fault(GROUP, name, partial(play)) for name, play in _PLAYS)
