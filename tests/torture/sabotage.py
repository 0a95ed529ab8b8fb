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
from tests.torture.report import FINDINGS


class Sabotage(NamedTuple):
    """One change to one module, and the fault that must notice it."""

    fault: str
    module: str
    old: str
    new: str
    share: float = 0.1


_MANY = "max_connections = 128", "max_connections = 100_000"
_TELL = "setLevel(logging.ERROR)", "setLevel(logging.DEBUG)"
SABOTAGES = (
    Sabotage("drip byte", "web/server", *_MANY),
    Sabotage("read none", "web/server", *_MANY),
    Sabotage("silent clients", "web/server", *_MANY),
    Sabotage(
        "descriptors", "web/server", "OWN_DESCRIPTORS = 40", "OWN_DESCRIPTORS = 0"
    ),
    Sabotage("other protocols", "web/server", *_TELL),
    Sabotage(
        "are reset", "web/server", "busy.discard(stream)", "busy.add(socket.dup(0))"
    ),
    Sabotage(
        "in the clear", "web/server", "look_seconds = 1.0", "look_seconds = 0.001"
    ),
    Sabotage(
        *("heads around", "web/server", "max_header_size=HEAD_LIMIT_BYTES"),
        *("max_header_size=HEAD_LIMIT_BYTES + 1", 1.0),
    ),
    Sabotage("hide another", "web/server", "max_body_size=0", "max_body_size=9"),
    Sabotage("at once", "web/pages", "self._running -= 1", "pass"),
    Sabotage("at once", "collectors/cache", "sum(hit.counts)", "2 * sum(hit.counts)"),
    Sabotage("at once", "collectors/cache", "sum(miss.counts)", "-sum(miss.counts)"),
    Sabotage("bytes changed", "web/pages", '"not found"', "request.path"),
    Sabotage(
        "do not belong", "web/pages", "; there are: ", " in {request.query}: ", 0.5
    ),
    Sabotage("ways around", "web/pages", "request.path:", "request.path.lower():"),
    Sabotage("nobody means", "web/pages", "except TypeError", "except KeyError"),
    Sabotage(
        "that are wrong", "web/config", "ssl.CERT_REQUIRED,\n", "ssl.CERT_OPTIONAL,\n"
    ),
    # SSL_OP_ALLOW_CLIENT_RENEGOTIATION
    Sabotage("renegotiations", "web/config", "ssl.OP_NO_RENEGOTIATION", "1 << 8"),
    Sabotage("in halves", "web/access", "self._seen != before", "True"),
    Sabotage("broken or gone", "web/access", "if lost or", "if False and", 1.0),
    Sabotage("guesses", "web/access", "setdefault(address,", 'setdefault("everybody",'),
    Sabotage(
        *("users that exist", "web/access", "if login is None:"),
        "if login is None or login[0] not in users:",
    ),
    Sabotage("every way", "web/access", ", validate=True", "", 0.3),
)
NOTES = tuple(f"  {finding} " for finding in FINDINGS)


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
    lines = [line for line in done.stdout.splitlines() if line.startswith(NOTES)]
    return lines[0].strip()[:110] if done.returncode == 1 and lines else ""


if __name__ == "__main__":
    sys.exit(main())
