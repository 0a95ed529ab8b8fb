"""The benchmarks work; how fast anything is, is not for a test to say."""

import re
import subprocess
import sys
from pathlib import Path

from tests.benchmarks.__main__ import GROUPS
from tests.servers import ROOT


def test_smallest_run_gives_figures_and_leaves_nothing_but_the_cache(
    tmp_path: Path,
) -> None:
    cache = tmp_path / "cache"
    command = [sys.executable, "-m", "tests.benchmarks", "--smoke", "--sizes=10k"]
    command += [f"--cache={cache}", f"--output={tmp_path}"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, timeout=110
    )
    assert done.returncode == 0, done.stderr

    assert re.findall(r"(?m)^\S+ (\w+)$", done.stderr) == [*GROUPS]
    assert (tmp_path / "benchmarks.txt").read_text() == done.stdout
    assert not re.search(r"\b(nan|inf)\b| -\d", done.stdout)
    assert [path.name for path in cache.iterdir()] == ["rows-10000-version-1"]
