"""The benchmarks work; how fast anything is, is not for a test to say."""

import json
import math
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
    document = json.loads((tmp_path / "benchmarks.json").read_text())
    text = (tmp_path / "benchmarks.txt").read_text()

    assert {line["group"] for line in document["lines"]} == set(GROUPS)
    for line in document["lines"]:
        assert math.isfinite(line["measured"])
        assert line["measured"] > 0 or line["other"] == 0, line
        assert line["ratio"] is None or line["ratio"] > -1, line
        assert line["what"] in text
    assert text.count("<= ") == sum(x["goal"] is not None for x in document["lines"])
    assert all(f"{name}: " in text for name in document["about"])
    assert [path.name for path in cache.iterdir()] == ["rows-10000-version-1"]
