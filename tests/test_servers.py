"""`make servers` where Debian's mirror does not answer, or has moved on."""

import os
import subprocess
from pathlib import Path

import pytest

from tests.servers import ROOT, left_out

APT = """#!/bin/sh
case "$*" in
*--print-uris*) echo "'http://mirror.invalid/debian/dists/bookworm/InRelease' x" ;;
*" update "*forky* | *forky*" update "*) echo "E: no such suite"; exit {forky} ;;
*" download "*) touch prometheus.deb ;;
esac
"""
# Unpacks a Prometheus of a version that nobody knows.
DPKG = """#!/bin/sh
[ "$1" = --extract ] || { echo amd64; exit; }
mkdir -p "$3/usr/bin"
for name in prometheus promtool prometheus-alertmanager amtool; do
    printf '#!/bin/sh\\necho prometheus, version 99.1.0\\n' >"$3/usr/bin/$name"
    chmod +x "$3/usr/bin/$name"
done
"""


def fetch(folder: Path, forky: int) -> subprocess.CompletedProcess[str]:
    """Run `make servers` with an apt of our own."""
    for name, text in {
        "apt-get": APT.replace("{forky}", str(forky)),
        "dpkg": DPKG,
        "dpkg-deb": DPKG,
    }.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    places = {"HAKGAL_SERVERS": str(folder / "servers")}
    path = {"PATH": f"{folder}:{os.environ['PATH']}"}
    return subprocess.run(
        [ROOT / ".ci" / "servers"],
        env=os.environ | places | path,
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.fixture
def oldest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Have the older generation already, and nothing else."""
    programs = tmp_path / "servers" / "oldest" / "bin"
    programs.mkdir(parents=True)
    for name in ("prometheus", "promtool", "alertmanager", "amtool"):
        (programs / name).touch(0o755)
    (programs.parent / "version").write_text("2.42\n")
    monkeypatch.setenv("HAKGAL_SERVERS", str(tmp_path / "servers"))
    return tmp_path


@pytest.mark.parametrize(
    ("forky", "why"),
    [
        (100, "cannot read Debian's suite forky, try make servers later: E: no such"),
        (0, "Debian's suite forky has Prometheus 99.1 now, not 3.5: write 99.1 into"),
    ],
    ids=["unreachable", "moved-on"],
)
def test_run_goes_on_with_the_generation_that_is_there(
    oldest: Path, forky: int, why: str
) -> None:
    done = fetch(oldest, forky)
    assert done.returncode == 0
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"servers: left out is newest, because {why}")
    (said,) = left_out()
    assert said.startswith("Left out: newest, tested was Prometheus 2.42 only;")


def test_without_any_generation_it_fails(tmp_path: Path) -> None:
    done = fetch(tmp_path, forky=0)
    assert done.returncode == 1
    assert done.stderr.count("servers: left out is ") == 2
