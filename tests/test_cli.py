"""The command line: help, version, and what is refused before anything starts."""

from pathlib import Path

import pytest

from exporter import __version__
from exporter.config import SETTINGS
from tests.exporters import run

COMMANDS = ("", "demo", "simulate", "check", "backfill", "healthcheck")
IDS = [name or "serve" for name in COMMANDS]


def test_version_is_one_line() -> None:
    done = run("--version")

    assert (done.returncode, done.stdout) == (0, f"hakgal-exporter {__version__}\n")


@pytest.mark.parametrize("command", COMMANDS, ids=IDS)
def test_help_names_its_command_and_flags(command: str) -> None:
    done = run(*command.split(), "--help")

    assert done.returncode == 0
    assert done.stdout.startswith(f"usage: hakgal-exporter {command}".rstrip())
    flags = {f"--{s.name}" for s in SETTINGS if command != "simulate"}
    assert flags | {"--help"} <= set(done.stdout.replace(",", " ").split())


def test_help_lists_every_command() -> None:
    shown = run("--help").stdout

    assert [c for c in COMMANDS if c and f"\n  {c} " not in shown] == []


@pytest.mark.parametrize("command", COMMANDS, ids=IDS)
def test_unknown_flag_is_refused(command: str) -> None:
    required = [f"--database.{name}=x" for name in ("knowledge-base", "performance")]

    done = run(*command.split(), *required, "--frobnicate")

    assert done.returncode == 2
    assert done.stderr.endswith("error: unrecognized arguments: --frobnicate\n")


def test_shortened_flag_is_refused() -> None:
    assert run("--web.listen=:1").returncode == 2


@pytest.mark.parametrize("command", ["", "demo", "check", "backfill", "healthcheck"])
def test_each_mistake_in_the_settings_is_one_line(command: str, tmp_path: Path) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text("web.max-request: 3\nlabel.limit: many\n")
    flags = [f"--config.file={file}", "--log.level=loud"]

    done = run(*command.split(), *flags, HAKGAL_LOG_FORMAT="xml")

    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.splitlines() == [
        f"hakgal-exporter: {file}: web.max-request: got an unknown key, want a"
        " setting, such as web.max-requests",
        f"hakgal-exporter: {file}: label.limit: got 'many', want a whole number",
        "hakgal-exporter: environment variable HAKGAL_LOG_FORMAT: got 'xml',"
        " want logfmt or json",
        "hakgal-exporter: flag --log.level: got 'loud',"
        " want debug, info, warn or error",
    ]


def test_damaged_configuration_file_is_one_line(tmp_path: Path) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text("web: [\n")

    done = run(f"--config.file={file}")

    assert done.returncode == 2
    assert done.stderr.startswith(f"hakgal-exporter: {file}:2: expected the node")
    assert done.stderr.count("\n") == 1
