"""``python -m tests.torture.sabotage``: break the exporter on purpose, to be caught.

What finds nothing may be unable to. So each fault of the network is played against a
copy of the exporter in which one promise is broken; exit code 1 if any is not noticed.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NamedTuple

from tests.servers import ROOT


class Sabotage(NamedTuple):
    """One change to one module, and the fault that must notice it."""

    fault: str
    module: str
    old: str
    new: str
    share: float = 0.1


SABOTAGES = (
    Sabotage("drip byte", "server", "receive_seconds = 10.0", "receive_seconds = 60.0"),
    Sabotage(
        "read none",
        "server",
        "(self._waiting, self._sending):\n",
        "(self._waiting,):\n",
        1.0,
    ),
    Sabotage("idle", "server", "not is_full or self._make_room()", "not is_full", 1.0),
    Sabotage(
        "half closed",
        "http_connection",
        'line not in (b"\\r\\n", b"\\n")',
        "line.strip()",
        0.3,
    ),
    Sabotage(
        "are reset",
        "server",
        "        connection.close()\n",
        "        self.__dict__.setdefault('leak', []).append(connection)\n",
    ),
    Sabotage(
        "without a word",
        "server",
        "        connection.close()\n",
        "        self.__dict__.setdefault('leak', []).append(connection)\n",
    ),
    Sabotage("scrapers at once", "pages", "self._slots.release()", "pass"),
    Sabotage(
        "scrapers at once", "collectors/cache", "sum(hit.counts)", "2 * sum(hit.counts)"
    ),
    Sabotage(
        "scrapers at once", "collectors/cache", "sum(miss.counts)", "-sum(miss.counts)"
    ),
    Sabotage(
        "some bytes changed",
        "http_connection",
        'raise RequestError(HTTPStatus.BAD_REQUEST, "malformed header")',
        "continue",
    ),
    Sabotage(
        "do not belong",
        "http_connection",
        'raise RequestError(HTTPStatus.BAD_REQUEST, "malformed request line")',
        "raise ValueError(lines)",
    ),
    Sabotage(
        "hide another", "http_connection", "closes = _has_body(headers) or", "closes ="
    ),
    Sabotage(
        "heads around", "http_connection", "room = HEAD_", "room = 1 + HEAD_", 1.0
    ),
    Sabotage(
        "other protocols",
        "http_connection",
        'raise RequestError(HTTPStatus.HTTP_VERSION_NOT_SUPPORTED, "only HTTP/1.x")',
        "raise RequestError(HTTPStatus.BAD_REQUEST, str(lines))",
    ),
    Sabotage(
        "ways around",
        "pages",
        "match request.path:",
        'match request.path.replace("//", "/"):',
    ),
    Sabotage(
        "what is not TLS",
        "tls_stream",
        "            raise\n",
        "            raise ValueError\n",
    ),
    Sabotage("in the clear", "tls_stream", '"HTTP_REQUEST"', '"no such reason"'),
    Sabotage(
        "handshakes byte",
        "server",
        "greet(connection, self.first_seconds)",
        "greet(connection, 60.0)",
    ),
    Sabotage(
        "certificates that are",
        "tls",
        "context.verify_mode = settings.client_auth",
        "context.verify_mode = ssl.CERT_OPTIONAL",
    ),
    Sabotage(
        "renegotiations", "tls", "ssl.OP_NO_RENEGOTIATION", "1 << 8"
    ),  # SSL_OP_ALLOW_CLIENT_RENEGOTIATION
    Sabotage("in halves", "watch", "if stamps == self._stamps:", "if stamps:"),
    Sabotage(
        "broken or gone",
        "guard",
        "_refuse_to_open(self._path, self._config, config)",
        "pass",
    ),
    Sabotage(
        "leave sessions", "tls_stream", 'self._tls.version() == "TLSv1.3"', "True", 1.0
    ),
    Sabotage(
        "guesses",
        "authentication",
        "self._turns.take(address)",
        'self._turns.take("everybody")',
    ),
    Sabotage(
        "users that exist",
        "authentication",
        "if login is None:",
        "if login is None or login[0] not in users:",
    ),
    Sabotage(
        "every way", "authentication", "(encoded, validate=True)", "(encoded)", 0.3
    ),
)


def main() -> int:
    """Commit each sabotage, and say which were noticed."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture.sabotage")
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    missed = 0
    for sabotage in SABOTAGES:
        if options.only in f"{sabotage.fault} {sabotage.module}":
            notice = _commit(sabotage)
            missed += not notice
            print(
                f"{sabotage.fault}: {sabotage.module}: {notice or 'MISSED'}", flush=True
            )
    return 1 if missed else 0


def _commit(sabotage: Sabotage) -> str:
    """Break a copy, play the fault, and return what it said; nothing if nothing."""
    with tempfile.TemporaryDirectory(prefix="sabotage-") as made:
        copy = Path(made)
        for name in ("exporter", "tests"):
            ignored = shutil.ignore_patterns("__pycache__")
            shutil.copytree(ROOT / name, copy / name, ignore=ignored)
        module = copy / "exporter" / f"{sabotage.module}.py"
        text = module.read_text()
        assert sabotage.old in text, (
            f"{sabotage.old!r} is not in {module.name} any more"
        )
        module.write_text(text.replace(sabotage.old, sabotage.new))
        # What it keeps of a fault lies in the copy too, and goes with it.
        environment = os.environ | {"PYTHONPATH": str(copy), "TMPDIR": str(copy)}
        words = ["--only", sabotage.fault, "--share", str(sabotage.share)]
        done = subprocess.run(
            [sys.executable, "-P", "-m", "tests.torture", *words],
            cwd=copy,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
    lines = [line for line in done.stdout.splitlines() if line.startswith("  ")]
    return lines[0].strip()[:110] if done.returncode == 1 and lines else ""


if __name__ == "__main__":
    sys.exit(main())
