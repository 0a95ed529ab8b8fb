"""`make dashboards` puts what Grafana exports into one form, and refuses the rest."""

import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.grafana.dashboards import GRAFANA, Json


def in_panel(**values: object) -> Callable[[Json], None]:
    return lambda dashboard: dashboard["panels"][0].update(values)


def at(x: int, width: int) -> Callable[[Json], None]:
    return in_panel(gridPos={"x": x, "y": 0, "w": width, "h": 4})


REFUSED: dict[str, Callable[[Json], None]] = {
    "export it as “Classic”": lambda d: d.update(spec={}),
    "uid is 'abc'": lambda d: d.update(uid="abc"),
    "uid 'hakgal-queries' is hakgal-cache": lambda d: d.update(uid="hakgal-queries"),
    "title 'HAK/GAL / Queries' is": lambda d: d.update(title="HAK/GAL / Queries"),
    "schemaVersion 42 is above": lambda d: d.update(schemaVersion=42),
    "has no panels": lambda d: d.pop("panels"),
    "is two dashboards": lambda d: d["panels"].extend(d["panels"]),
    "type 'graph' is none of": in_panel(type="graph"),
    "has no description": in_panel(description=""),
    "library panel": in_panel(libraryPanel={}),
    "is not ${datasource}": in_panel(datasource={"uid": "P1"}),
    "two panels 'Look-ups'": in_panel(title="Look-ups"),
    "overlaps": at(1, 6),
    "hole in row": at(0, 5),
    "wider than the page": at(20, 6),
    "has a noValue": in_panel(type="table"),
    "values without a unit": in_panel(fieldConfig={"defaults": {}}),
    "leads nowhere": in_panel(fieldConfig={"defaults": {}}),
    "colour must be text": in_panel(fieldConfig={"defaults": {}}),
    "colours by 'x'": in_panel(fieldConfig={"defaults": {"color": {"mode": "x"}}}),
    "uses #FF0000": in_panel(color="#FF0000"),
    "cuts the names": in_panel(type="table", renamed={"alertname": "Alert"}),
    "starts in lower case": in_panel(type="table", renameByName={"slo": "slo"}),
    "takes null for 0": in_panel(options={"from": None, "to": 0}),
    "would cover": lambda d: d["annotations"]["list"][0].update(expr="ALERTS"),
}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return one of the shipped dashboards, in a copy of their folder."""
    copy = shutil.copytree(GRAFANA / "dashboards", tmp_path / "dashboards")
    return Path(copy) / "hakgal-cache.json"


def normalise(folder: Path, *flags: str) -> tuple[int, str]:
    program = str(GRAFANA / "normalise.py")
    command = [sys.executable, program, "--folder", str(folder), *flags]
    done = subprocess.run(command, capture_output=True, text=True)
    return done.returncode, done.stderr


def test_what_an_export_leaves_behind_is_taken_out(file: Path) -> None:
    shipped = file.read_text()
    exported = json.loads(shipped) | {"__inputs": [], "id": 7, "editable": True}
    exported["panels"].reverse()
    exported["panels"][0] |= {"id": 99, "pluginVersion": "11.6.0"}
    exported["templating"]["list"][1]["current"] = {"text": "a", "value": "a"}
    assert normalise(file.parent, "--check") == (0, "")
    file.write_text(json.dumps(exported))

    assert normalise(file.parent, "--check")[0] == 1
    assert normalise(file.parent) == (0, "")
    assert file.read_text() == shipped


@pytest.mark.parametrize("says", REFUSED)
def test_what_breaks_provisioning_is_refused_and_nothing_is_written(
    says: str, file: Path
) -> None:
    broken = json.loads(file.read_text())
    REFUSED[says](broken)
    file.write_text(json.dumps(broken))
    before = {path: path.read_text() for path in file.parent.iterdir()}

    code, said = normalise(file.parent)

    assert (code, says in said) == (1, True)
    # A second one with the same title or uid is reported at whichever comes last.
    assert "hakgal-cache.json" in said
    assert {path: path.read_text() for path in file.parent.iterdir()} == before


def test_what_holds_no_dashboard_is_refused(tmp_path: Path) -> None:
    assert "no dashboards" in normalise(tmp_path)[1]
    (tmp_path / "a.json").write_text("{")
    assert "a.json: not JSON" in normalise(tmp_path)[1]
