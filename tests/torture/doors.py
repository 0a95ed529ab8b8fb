"""Who may not come in: with garbage for TLS, wrong certificates, wrong passwords.

Meanwhile who may is served, over TLS, with a client's certificate and a password.
"""

import ssl
from contextlib import suppress
from functools import partial
from random import Random

from tests.certificates import Authority
from tests.clients import Client
from tests.torture.network import MESSAGES, SCRAPE, by_many, exchange
from tests.torture.scene import Scene
from tests.torture.stage import Stage
from tests.webs import CLIENTS, Web, basic, users

LOGIN = basic("alice", "right")


def garble_handshakes(stage: Stage, number: int) -> int:
    """What is no TLS, or not all of it, or with bits flipped, is not answered."""
    context = _tls(stage)
    hello = _client_hello(context)
    plain = b"GET / HTTP/1.0\r\nAuthorization: " + LOGIN.encode() + b"\r\n\r\n"

    def attack(rng: Random) -> None:
        sent = bytearray(hello)
        match rng.randrange(5):
            case 0:
                sent = bytearray(rng.randbytes(rng.randrange(1, 2000)))
            case 1:
                del sent[rng.randrange(len(sent)) :]
            case 2:
                for _ in range(rng.randrange(1, 9)):
                    sent[rng.randrange(len(sent))] = rng.randrange(256)
            case 3:
                sent = bytearray(plain)
            case 4:  # a handshake in order, and no goodbye
                return Client(stage.victim.address, context).__exit__()
        got = exchange(stage, bytes(sent), half_closes=True)
        assert b"HTTP/" not in got, f"{sent[:80]!r}: {got!r}"

    return by_many(stage, 2 * MESSAGES, attack)


def intrude(stage: Stage, number: int) -> int:
    """Wrong certificates, none, wrong passwords, none: nobody comes in."""
    web, folder = _web(stage), stage.folder / f"strangers-{number}"
    folder.mkdir()
    strangers = Authority(folder, "clients")  # the same name, another key
    pairs = (
        None,
        web.clients.issue("expired", days=0),
        strangers.issue("stranger"),
        web.servers.issue("wrong"),
        (web.certificate, web.key),
    )
    versions = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
    contexts = [web.trusting(pair, highest) for pair in pairs for highest in versions]
    allowed = _tls(stage)
    logins = ("", "Basic", LOGIN[:-4], basic("alice", "Right"), basic("bob", "right"))

    def attack(rng: Random) -> None:
        got = _ask(stage, rng.choice(contexts), LOGIN)
        assert not got, f"let in: {got[:80]!r}"
        got = _ask(stage, allowed, rng.choice(logins))
        assert got.startswith(b"HTTP/1.1 401 "), f"not sent away: {got[:80]!r}"

    return by_many(stage, MESSAGES // 5, attack)


def _ask(stage: Stage, context: ssl.SSLContext, login: str) -> bytes:
    """Return what is answered, if anything."""
    header = f"Authorization: {login}\r\n\r\n".encode()
    with suppress(OSError), Client(stage.victim.address, context) as client:
        client.send(SCRAPE[:-2] + header)
        return client.socket.recv(1 << 16)
    return b""


def protected(stage: Stage) -> None:
    """Want a client's certificate and a password."""
    folder = stage.folder / "web"
    folder.mkdir()
    stage.web = web = Web(folder)
    pair = web.clients.issue("scraper")
    file = web.write(CLIENTS, users(alice="right"))
    stage.victim.flags.append(f"--web.config.file={file}")
    stage.victim.tls, stage.victim.login = partial(web.trusting, pair), LOGIN


def _web(stage: Stage) -> Web:
    assert stage.web
    return stage.web


def _tls(stage: Stage) -> ssl.SSLContext:
    assert stage.victim.tls
    return stage.victim.tls()


def _client_hello(context: ssl.SSLContext) -> bytes:
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


_scene = partial(Scene, "doors")
SCENES = (
    _scene(garble_handshakes, 6, protected),
    _scene(intrude, 4, protected),
)
