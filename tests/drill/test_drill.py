"""The fire drill in short, and what in it could lie; ``make drill`` plays all of it."""

import pytest

from tests.drill.__main__ import drill
from tests.drill.drills import DRILLS
from tests.drill.report import MISSING, undrilled
from tests.servers import find_servers

SHORT = ("table", "lock")
FACTOR = 60.0


def test_fault_is_told_and_told_to_be_over(capsys: pytest.CaptureFixture[str]) -> None:
    servers = find_servers()[-1]
    assert servers.version, f"nothing in {servers.folder}: run `make servers`"

    assert drill(servers, [d for d in DRILLS if d.name in SHORT], FACTOR, print)

    table = capsys.readouterr().out
    for drilled in DRILLS:
        assert (f"-- {drilled.fault}\n" in table) == (drilled.name in SHORT)


def test_alert_that_is_not_drilled_has_a_reason_and_a_test() -> None:
    for alert, why, files in undrilled():
        assert MISSING not in (why, files), alert
