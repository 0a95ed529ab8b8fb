"""The systemd unit: complete, hardened, and in step with the exporter's settings."""

import re
import shutil
import subprocess
from argparse import Namespace
from pathlib import Path

import pytest

from exporter.config import SETTINGS, load
from exporter.web.server import Server
from tests.servers import ROOT

FOLDER = ROOT / "exporter" / "systemd"
UNIT = FOLDER / "hakgal-exporter.service"
DEFAULTS = FOLDER / "hakgal-exporter.default"
LINES = re.findall(r"(?m)^(\w+)=(.*)$", UNIT.read_text())
OPTIONS = dict(LINES)
# What `systemd-analyze security` calls OK; 10 is a service without any protection.
EXPOSURE_LIMIT = 1.5
needs_systemd = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None,
    reason="systemd-analyze is not on this machine: install Debian's package systemd",
)


def test_it_has_no_right_that_it_does_not_need() -> None:
    switched_on = {name for name, value in LINES if value == "yes"}

    assert {
        *("NoNewPrivileges", "PrivateTmp", "PrivateDevices", "ProtectHome"),
        *("ProtectClock", "ProtectControlGroups", "ProtectHostname"),
        *("ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables"),
        *("LockPersonality", "MemoryDenyWriteExecute", "RemoveIPC"),
        *("RestrictNamespaces", "RestrictRealtime", "RestrictSUIDSGID"),
    } <= switched_on
    assert OPTIONS["ProtectSystem"] == "strict"
    assert OPTIONS["CapabilityBoundingSet"] == OPTIONS["AmbientCapabilities"] == ""
    assert OPTIONS["RestrictAddressFamilies"] == "AF_INET AF_INET6"
    assert ("SystemCallFilter", "@system-service") in LINES
    assert OPTIONS["UMask"] == "0077"


def test_it_sees_the_processes_whose_connections_it_counts() -> None:
    assert OPTIONS["ProtectProc"] == "invisible"
    assert "PrivateUsers" not in OPTIONS
    assert OPTIONS.get("ProcSubset", "all") == "all"


def test_it_is_bounded_and_does_not_restart_on_wrong_settings() -> None:
    assert OPTIONS["MemoryMax"]
    assert int(OPTIONS["TasksMax"]) > Server.max_connections
    assert OPTIONS["Restart"] == "on-failure"
    assert OPTIONS["RestartPreventExitStatus"] == "2"


def test_its_state_is_where_it_may_write() -> None:
    state = OPTIONS["Environment"].removeprefix("HAKGAL_STATE_FILE=")

    assert Path(state).parent == Path("/var/lib") / OPTIONS["StateDirectory"]


def test_it_reads_the_shipped_settings() -> None:
    assert OPTIONS["EnvironmentFile"] == "-/etc/default/hakgal-exporter"
    assert DEFAULTS.read_text().startswith("# /etc/default/hakgal-exporter:")


@pytest.mark.parametrize("sign", ["", "#?"], ids=["as shipped", "uncommented"])
def test_shipped_settings_are_valid(sign: str) -> None:
    lines = re.findall(rf"(?m)^{sign}(HAKGAL_\w+)=(.+)$", DEFAULTS.read_text())

    assert lines
    assert {name for name, _ in lines} <= {s.environment for s in SETTINGS}
    assert load(Namespace(), dict(lines)).listen_addresses == ("127.0.0.1:8000",)


@pytest.fixture
def unit(tmp_path: Path) -> Path:
    """Copy the unit, with a program that is on every machine."""
    text, count = re.subn("(?m)^ExecStart=.*", "ExecStart=/bin/true", UNIT.read_text())
    assert count == 1
    copy = tmp_path / UNIT.name
    copy.write_text(text)
    return copy


@needs_systemd
def test_systemd_finds_nothing_to_say(unit: Path) -> None:
    done = subprocess.run(
        ["systemd-analyze", "verify", unit], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if unit.name in line]

    assert (done.returncode, ours) == (0, [])


@needs_systemd
def test_systemd_calls_it_hardened(unit: Path) -> None:
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager"]
    limit = f"--threshold={int(EXPOSURE_LIMIT * 10)}"
    done = subprocess.run(
        [*command, limit, unit], capture_output=True, text=True, check=False
    )

    assert done.returncode == 0, done.stdout + done.stderr
    exposure = re.search(r"Overall exposure level for .*: ([0-9.]+)", done.stdout)
    assert exposure
    assert float(exposure[1]) <= EXPOSURE_LIMIT
