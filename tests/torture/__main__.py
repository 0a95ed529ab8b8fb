"""``python -m tests.torture``: play faults, print the table; exit code 0 or 1."""

import argparse
import random
import shutil
import sys
import tempfile
import time
import traceback
from pathlib import Path

from tests.torture import files, leaks, network, process, properties, rounds
from tests.torture.report import Effort, Fault, Found, table

FAULTS: tuple[Fault, ...] = (
    *rounds.FAULTS,
    *properties.FAULTS,
    *files.FAULTS,
    *process.FAULTS,
    *network.FAULTS,
    *leaks.FAULTS,
)
MOST_NOTES = 10


def main() -> int:
    """Play what was asked for; files are kept where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("--share", type=float, default=1.0)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--only", default="")
    options = parser.parse_args()
    say(f"--share {options.share:g} --seed {options.seed} --only '{options.only}'")
    chosen = [f for f in FAULTS if options.only in f"{f.group} {f.name}"]
    if not chosen:
        parser.error(f"nothing is called {options.only!r}")
    rows = [(fault, play(fault, options.seed, options.share)) for fault in chosen]
    say(table(rows))
    return 0 if all(found.is_clean for _, found in rows) else 1


def play(fault: Fault, seed: int, share: float) -> Found:
    """Return what came of one fault; what was found is said at once."""
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    started = time.monotonic()
    # Of its own seed, so that it does the same alone.
    effort = Effort(folder, random.Random(f"{seed} {fault.name}"), share)
    try:
        found = fault.play(effort)
    except Exception:  # one that cannot be played must not hide the others
        found = Found()
        found.note("crashed", traceback.format_exc())
    seconds = time.monotonic() - started
    say(f"{fault.group}: {fault.name}: {found.tried} times, {seconds:.0f} s")
    for text in found.notes[:MOST_NOTES]:
        say(f"  {text}")
    if found.is_clean:
        shutil.rmtree(folder)
    else:
        say(f"  files are kept in {folder}")
    return found


def say(text: str) -> None:
    print(text, flush=True)


if __name__ == "__main__":
    sys.exit(main())
