"""The benchmarks work; how fast anything is, is not for a test to say."""

import json
import math
import subprocess
import sys
from pathlib import Path

import pytest

from tests.benchmarks.__main__ import GROUPS
from tests.servers import ROOT


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder with the results of a smallest run."""
    folder = tmp_path_factory.mktemp("benchmarks")
    command = [sys.executable, "-m", "tests.benchmarks", "--smoke"]
    command += [f"--cache={folder / 'cache'}", f"--output={folder}"]
    done = subprocess.run(
        command, cwd=ROOT, capture_output=True, text=True, check=False, timeout=110
    )
    assert done.returncode == 0, done.stderr
    return folder


def test_each_measurement_gives_figures(output: Path) -> None:
    document = json.loads((output / "benchmarks.json").read_text())
    assert {line["group"] for line in document["lines"]} == set(GROUPS)
    for line in document["lines"]:
        assert math.isfinite(line["measured"])
        assert line["measured"] > 0 or line["other"] == 0, line
        assert line["ratio"] is None or line["ratio"] > -1, line


def test_text_shows_each_line_with_its_goal(output: Path) -> None:
    document = json.loads((output / "benchmarks.json").read_text())
    text = (output / "benchmarks.txt").read_text()
    assert all(line["what"] in text for line in document["lines"])
    assert text.count("<= ") == sum(x["goal"] is not None for x in document["lines"])
    assert all(f"{name}: " in text for name in document["about"])


def test_run_leaves_nothing_but_the_cache(output: Path) -> None:
    assert [path.name for path in (output / "cache").iterdir()] == [
        "rows-10000-version-1"
    ]
