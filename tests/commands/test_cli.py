"""The command line: help, version, and what is refused before anything starts."""

from pathlib import Path

import pytest

from exporter import __version__
from exporter.config import SETTINGS
from tests.exporters import run

COMMANDS = ("", "demo", "simulate", "check", "backfill", "healthcheck")
each_command = pytest.mark.parametrize("command", COMMANDS)


def test_version_is_one_line() -> None:
    assert run("--version").stdout == f"hakgal-exporter {__version__}\n"


@each_command
def test_help_names_its_command_and_flags(command: str) -> None:
    done = run(*command.split(), "--help")
    assert done.stdout.startswith(f"usage: hakgal-exporter {command}".rstrip())
    words = {f"--{s.name}" for s in SETTINGS if command != "simulate"}
    words |= set() if command else set(COMMANDS[1:])
    assert words <= set(done.stdout.replace(",", " ").split())


@each_command
def test_unknown_and_shortened_flags_are_refused(command: str) -> None:
    required = "--database.knowledge-base=x", "--database.performance=x"
    unknown = "--frobnicate", "--database.perf=y"

    done = run(*command.split(), *required, *unknown)

    assert done.returncode == 2
    assert done.stderr.endswith(f"unrecognized arguments: {' '.join(unknown)}\n")


@pytest.mark.parametrize("command", ["", "demo", "check", "backfill", "healthcheck"])
def test_each_mistake_in_the_settings_is_one_line(command: str, tmp_path: Path) -> None:
    file = tmp_path / "exporter.yml"
    file.write_text("label.limits: 3\nlabel.limit: many\n")
    flags = [f"--config.file={file}", "--log.level=loud"]

    done = run(*command.split(), *flags, HAKGAL_LOG_FORMAT="xml")

    assert (done.returncode, done.stdout) == (2, "")
    assert [line.partition(", want ")[0] for line in done.stderr.splitlines()] == [
        f"hakgal-exporter: {file}: label.limit: got 'many'",
        f"hakgal-exporter: {file}: unknown setting label.limits; did you mean"
        " label.limit?",
        "hakgal-exporter: flag --log.level: got 'loud'",
        "hakgal-exporter: environment variable HAKGAL_LOG_FORMAT: got 'xml'",
    ]


def test_without_users_bcrypt_need_not_be_there() -> None:
    program = "import sys, exporter.commands.serve; print('bcrypt' in sys.modules)"
    assert run(program=program).stdout == "False\n"
