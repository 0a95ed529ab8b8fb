"""What clients and renewals do to TLS: who may not come in stays out, others do not.

Everything is asked over TLS, with a client's certificate and a password, by a scraper
that trusts the authority and not one certificate.
"""

import random
import ssl
import subprocess
import time
import warnings
from contextlib import AbstractContextManager, suppress
from pathlib import Path
from typing import NamedTuple

from cryptography import x509

from tests.certificates import Authority, names_of_localhost
from tests.clients import Client
from tests.torture.connections import CROWD, by_many, drip_by_many
from tests.torture.report import Effort, Fault, Found
from tests.torture.talk import exchange
from tests.torture.victim import GROWTH_BYTES, Victim, attacked
from tests.webs import CLIENTS, TLS, Web, basic, serial, users

REQUEST = b"GET /metrics HTTP/1.1\r\nHost: torture\r\n\r\n"
LOGIN = basic("alice", "right")
USERS = users(alice="right")
SESSIONS_BYTES = 10 << 20  # twice what it grows by without keeping any
# The exporter says once what it cannot use, and each time what it can.
NEWS = (
    " level=warn .* msg=failing what=web.config.file "
    '| level=info .* msg=(recovered|"web configuration read again")'
)
READ_SECONDS = 5.0  # until a file is read that was written: two looks, and some

Address = tuple[str, int]


class Protected(NamedTuple):
    """An exporter's certificates, and a client that may come in."""

    web: Web
    pair: tuple[Path, Path]

    def tls(self) -> ssl.SSLContext:
        return self.web.trusting(self.pair)

    def attacked(
        self, effort: Effort, found: Found, growth_bytes: int = GROWTH_BYTES
    ) -> AbstractContextManager[Victim]:
        """Attack an exporter that wants a certificate and a password."""
        return attacked(
            *(effort, found, f"--web.config.file={self.web.file}"),
            login=LOGIN,
            tls=self.tls,
            forgiven=NEWS,
            growth_bytes=growth_bytes,
        )


def _protect(effort: Effort) -> Protected:
    web = Web(effort.folder)
    pair = web.clients.issue("scraper")
    web.write(CLIENTS, USERS)
    return Protected(web, pair)


def play_garbage(effort: Effort) -> Found:
    """Say what is no TLS, or not all of it, in the middle of which we go or wait."""
    found, protected = Found(), _protect(effort)
    hello, seed = _client_hello(protected.tls()), effort.rng.random()
    with protected.attacked(effort, found) as victim:

        def attack(number: int) -> None:
            rng = random.Random(f"{seed} {number}")
            sent = bytearray(hello)
            match number % 4:
                case 0:
                    sent = bytearray(rng.randbytes(rng.randrange(1, 2000)))
                case 1:
                    del sent[rng.randrange(len(sent)) :]
                case 2:
                    for _ in range(rng.randrange(1, 9)):
                        sent[rng.randrange(len(sent))] = rng.randrange(256)
                case 3:
                    sent += rng.randbytes(300)
            got = exchange(victim.address, bytes(sent), half_closes=True)
            assert b"HTTP/" not in got, f"{sent[:80]!r}: {got!r}"

        by_many(found, effort.times(2000), attack)
    return found


def play_plain(effort: Effort) -> Found:
    """Speak HTTP where TLS is wanted: nothing comes back."""
    found, protected = Found(), _protect(effort)
    with protected.attacked(effort, found) as victim:

        def attack(number: int) -> None:
            target = ("/metrics", "/-/healthy", "/")[number % 3]
            login = f"Authorization: {LOGIN}\r\n" if number % 2 else ""
            message = f"GET {target} HTTP/1.0\r\n{login}\r\n".encode()
            got = exchange(victim.address, message)
            assert not got, got

        by_many(found, effort.times(500), attack)
    return found


def play_slow_handshakes(effort: Effort) -> Found:
    """Say nothing, or shake hands byte by byte, many at once: others get in."""
    found, protected = Found(), _protect(effort)
    hello = _client_hello(protected.tls())
    with protected.attacked(effort, found) as victim:
        drip_by_many(found, victim.address, effort, (b"", hello[:-1]))
    return found


def play_intruders(effort: Effort) -> Found:
    """Come with no certificate, an expired one, a stranger's, or old protocols."""
    found, protected = Found(), _protect(effort)
    web, folder = protected.web, effort.folder / "intruders"
    folder.mkdir()
    strangers = Authority(folder, "clients")  # the same name, another key
    allowed = web.trusting(protected.pair)
    intruders = {
        "no certificate": web.trusting(),
        "expired": web.trusting(web.clients.issue("expired", days=0)),
        "of a stranger": web.trusting(strangers.issue("stranger")),
        "of the server's authority": web.trusting(web.servers.issue("wrong")),
        "the server's own": web.trusting((web.certificate, web.key)),
        "none, TLS 1.2": web.trusting(None, ssl.TLSVersion.TLSv1_2),
        "a stranger's, TLS 1.2": web.trusting(
            strangers.issue("old"), ssl.TLSVersion.TLSv1_2
        ),
        "TLS 1.1": _old(web.trusting(protected.pair), ssl.TLSVersion.TLSv1_1),
        "TLS 1.0": _old(web.trusting(protected.pair), ssl.TLSVersion.TLSv1),
    }
    names = [*intruders]
    with protected.attacked(effort, found) as victim:

        def attack(number: int) -> None:
            name = names[number % len(names)]
            got = _ask_tls(victim.address, intruders[name])
            assert not got, f"{name} was answered {got[:80]!r}"

        by_many(found, effort.times(60 * len(names)), attack)
        # Without a password, or the attacks above would prove nothing.
        assert _ask_tls(victim.address, allowed).startswith(b"HTTP/1.1 401 ")
    return found


def _old(context: ssl.SSLContext, version: ssl.TLSVersion) -> ssl.SSLContext:
    context.set_ciphers("ALL:@SECLEVEL=0")
    with warnings.catch_warnings(action="ignore", category=DeprecationWarning):
        context.minimum_version = context.maximum_version = version
    return context


def _ask_tls(address: Address, context: ssl.SSLContext) -> bytes:
    """Return what is answered to a request without a password, if anything."""
    with suppress(OSError), Client(address, context) as client:
        client.send(REQUEST)
        return client.socket.recv(1 << 16)
    return b""


def play_renegotiation(effort: Effort) -> Found:
    """Ask a TLS 1.2 server for new keys on the same connection: it does not."""
    found = Found()
    web = Web(effort.folder)
    flag = f"--web.config.file={web.write(TLS)}"
    with attacked(effort, found, flag, tls=web.trusting) as victim:
        place = "{}:{}".format(*victim.address)
        for _ in range(effort.times(20)):
            talk = subprocess.run(
                ["openssl", "s_client", "-tls1_2", "-connect", place],
                input=b"R\n",
                capture_output=True,
                timeout=30,
                check=False,
            )
            if b"RENEGOTIATING" not in talk.stdout + talk.stderr:
                found.note("crashed", f"was not tried: {talk.stderr[-200:]!r}")
            elif b"no renegotiation" not in talk.stderr:
                found.note("crashed", f"was done: {talk.stderr[-200:]!r}")
            found.tried += 1
    return found


def play_renewals(effort: Effort) -> Found:
    """Renew the certificate under load, in halves too, also while files are written."""
    found, protected = Found(), _protect(effort)
    web = protected.web
    with protected.attacked(effort, found) as victim:

        def shown() -> str:
            with suppress(OSError), Client(victim.address, protected.tls()) as client:
                return serial(client)
            return ""

        for _ in range(effort.times(20)):
            _renew(web, effort.rng)
            newest = _serial_of(web.certificate)
            deadline = time.monotonic() + READ_SECONDS
            while shown() != newest:
                if time.monotonic() > deadline:
                    found.note("crashed", "a new certificate is not shown")
                    break
                time.sleep(0.1)
            found.tried += 1
    return found


def _renew(web: Web, rng: random.Random) -> None:
    """Issue a new certificate; each half of a file stands for a moment, or longer."""
    files = [web.certificate, web.key]
    old = {file: file.read_bytes() for file in files}
    web.servers.issue("server", *names_of_localhost())
    new = {file: file.read_bytes() for file in files}
    for file in files:
        file.write_bytes(old[file])
    rng.shuffle(files)
    for file in files:
        for size in (rng.randrange(len(new[file])), None):
            file.write_bytes(new[file][:size])
            time.sleep(rng.choice((0.0, 0.1, 2.5)))


def _serial_of(certificate: Path) -> str:
    number = x509.load_pem_x509_certificate(certificate.read_bytes()).serial_number
    text = f"{number:X}"
    return "0" * (len(text) % 2) + text


def play_broken_files(effort: Effort) -> Found:
    """Break the web configuration in every way: it protects on as it did."""
    found, protected = Found(), _protect(effort)
    web, good = protected.web, CLIENTS + USERS
    broken = [
        *("", "\n", "{}", "# nothing\n", TLS, CLIENTS, USERS, "\0" + good, good + good),
        *(TLS + USERS, CLIENTS + "basic_auth_users: {}\n", TLS + USERS.split()[0]),
        *("tls_server_config: {}\n" + USERS, "!!python/object:os.system x"),
        *(good.replace("RequireAndVerify", "No"), good.replace("  alice", "  {}")),
        *(good.replace(old, "gone.pem") for old in ("server.crt", "clients.pem")),
        good.replace("RequireAndVerifyClientCert", "VerifyClientCertIfGiven"),
        # Less than the last hash: what is cut after that is whole.
        *(good[: effort.rng.randrange(len(good) - 1)] for _ in range(20)),
    ]
    effort.rng.shuffle(broken)
    with protected.attacked(effort, found) as victim:
        for number in range(effort.times(len(broken))):
            web.file.unlink()
            if number % 9:
                web.write(broken[number])
            deadline = time.monotonic() + READ_SECONDS / 2
            while time.monotonic() < deadline:
                anonymous = _ask_tls(victim.address, protected.tls())
                uncertified = _ask_tls(victim.address, web.trusting())
                if not anonymous.startswith(b"HTTP/1.1 401 ") or uncertified:
                    found.note("crashed", f"let in by {broken[number][-200:]!r}")
                time.sleep(0.2)
            if (status := victim.get("/-/healthy").status) != 200:
                found.note("crashed", f"log-in answered {status}")
            found.tried += 1
            web.write(good)
    return found


def play_sessions(effort: Effort) -> Found:
    """Shake hands thousands of times, with and without goodbye and tickets."""
    found, protected = Found(), _protect(effort)
    old, new = ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3
    # Of the first, OpenSSL would keep the sessions if it could, certificates in them.
    kinds = [(old, ssl.OP_NO_TICKET)] * 4 + [(v, ssl.Options(0)) for v in (old, new)]
    contexts = []
    for highest, options in kinds:
        context = protected.web.trusting(protected.pair, highest)
        context.options |= options
        contexts.append(context)

    with protected.attacked(effort, found, SESSIONS_BYTES) as victim:

        def attack(number: int) -> None:
            context = contexts[number % len(contexts)]
            with Client(victim.address, context) as client:
                if number % 8:  # the server says goodbye first, which keeps a session
                    answer = client.get("/", authorization=LOGIN, connection="close")
                    assert answer.status == 200
                if number % 8 < 6:
                    assert isinstance(client.socket, ssl.SSLSocket)
                    with suppress(OSError):
                        client.socket.unwrap()

        by_many(found, effort.times(4000), attack)
    return found


def _client_hello(context: ssl.SSLContext) -> bytes:
    outgoing = ssl.MemoryBIO()
    client = context.wrap_bio(ssl.MemoryBIO(), outgoing, server_hostname="127.0.0.1")
    with suppress(ssl.SSLWantReadError):
        client.do_handshake()
    return outgoing.read()


GROUP = "network: TLS"
FAULTS = (
    Fault(GROUP, "what is not TLS, or not all of it", play_garbage),
    Fault(GROUP, "HTTP in the clear where TLS is wanted", play_plain),
    Fault(GROUP, f"{CROWD} silent clients and slow handshakes", play_slow_handshakes),
    Fault(GROUP, "certificates that are wrong, and old protocols", play_intruders),
    Fault(GROUP, "renegotiations", play_renegotiation),
    Fault(GROUP, "renewed certificates, in halves, under load", play_renewals),
    Fault(GROUP, "web configurations that are broken or gone", play_broken_files),
    Fault(GROUP, "handshakes that leave sessions", play_sessions),
)
