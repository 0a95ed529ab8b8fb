"""``python -m tests.faults``: play rounds, print what was found; exit code 0 or 1."""

import argparse
import functools
import random
import shutil
import sys
import tempfile
from pathlib import Path

from tests.faults.run import Run


def main() -> int:
    """Play the rounds that were asked for; files are kept if something is found."""
    parser = argparse.ArgumentParser(prog="python -m tests.faults")
    parser.add_argument("--rounds", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=random.randrange(1_000_000))
    options = parser.parse_args()
    say = functools.partial(print, flush=True)
    say(f"--rounds {options.rounds} --seed {options.seed}")
    folder = Path(tempfile.mkdtemp(prefix="faults-"))
    with Run(folder, options.seed, say) as run:
        run.play(options.rounds)
    say(run.report())
    if run.failed:
        say(f"files are kept in {folder}")
        return 1
    shutil.rmtree(folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
