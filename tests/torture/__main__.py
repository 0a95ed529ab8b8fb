"""``python -m tests.torture``: play scenes, print the table; exit code 0 or 1."""

import argparse
import functools
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path

from tests.torture import (
    files,
    history,
    network,
    system_calls,
)
from tests.torture.report import Found, table
from tests.torture.scene import Scene

SCENES: tuple[Scene, ...] = (
    *history.SCENES,
    *system_calls.SCENES,
    *files.SCENES,
    *network.SCENES,
)

say = functools.partial(print, flush=True)


def main() -> int:
    """Play what was asked for; files are kept where something was found."""
    parser = argparse.ArgumentParser(prog="python -m tests.torture")
    parser.add_argument("--share", type=float, default=1.0, help="of all tries")
    parser.add_argument("--rounds", type=int, help="tries of each scene, instead")
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    parser.add_argument("--only", default="", help="words of a group or a name")
    options = parser.parse_args()
    chosen = [s for s in SCENES if options.only in f"{s.group}: {s.name}: {s.sentence}"]
    if not chosen:
        parser.error(f"nothing is called {options.only!r}")
    say(f"--share {options.share:g} --seed {options.seed} --only '{options.only}'")
    rows = []
    for scene in chosen:
        tries = options.rounds or max(1, round(scene.tries * options.share))
        rows.append((scene.group, scene.sentence, play(scene, options.seed, tries)))
    say(table(rows))
    return 0 if all(found.is_clean for _, _, found in rows) else 1


def play(scene: Scene, seed: int, tries: int) -> Found:
    """Play a scene in a folder of its own, and say how it went."""
    folder = Path(tempfile.mkdtemp(prefix="torture-"))
    folder.chmod(0o755)  # some play as another user
    started = time.monotonic()
    found = scene.run(folder, seed, tries, say)
    seconds = time.monotonic() - started
    say(f"{scene.group}: {scene.name}: {found.counts['tries']} times, {seconds:.0f} s")
    if found.is_clean:
        shutil.rmtree(folder)
    else:
        say(f"  files are kept in {folder}")
    return found


if __name__ == "__main__":
    sys.exit(main())
