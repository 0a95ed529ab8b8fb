"""The configuration: flags over environment over file over defaults.

A value that another overrides must be well-formed too. Relative paths start at the
working directory, wherever they are written.
"""

import argparse
import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, NamedTuple

from exporter.config.settings import COLLECTORS, ROWS, SETTINGS, Config, Setting
from exporter.errors import ConfigError

__all__ = ["COLLECTORS", "SETTINGS", "Config", "add_flags", "load", "unknown_variables"]

# Variables of two commands, and of Kubernetes for a service of this name.
_OTHER_VARIABLES = re.compile(
    r"HAKGAL_((DEMO|BACKFILL)_\w+|(\w+_)?(SERVICE_(HOST|PORT\w*)|PORT(_[0-9]\w+)?))"
)
# Of the old monitor's config.json, and of no other program's file.
_OLD_KEYS = {"database_path", "monitoring_interval", "alert_thresholds", "flask"}


class Given(NamedTuple):
    """A value as somebody wrote it, and where: the start of an error message."""

    setting: Setting
    text: str
    where: str


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting."""
    group = parser.add_argument_group(
        "settings",
        "Each is also an environment variable (HAKGAL_WEB_MAX_REQUESTS)\nand, but for"
        " config.file, a key of that file (web.max-requests).",
    )
    for setting in SETTINGS:
        options: dict[str, Any] = {"metavar": setting.kind.metavar}
        if setting.name.startswith("collector."):
            options = {"action": argparse.BooleanOptionalAction}
        elif setting.kind.is_list:
            options["action"] = "append"
        group.add_argument(
            f"--{setting.name}",
            dest=setting.name,
            help=f"{setting.help} Default: {setting.default or 'none'}.",
            **options,
        )


def load(flags: argparse.Namespace, environment: Mapping[str, str]) -> Config:
    """Return the configuration from all its sources.

    Raises:
        ConfigError: with one line for each mistake, all at once.
    """
    problems: list[str] = []
    values: dict[str, Any] = {}
    for setting, text, where in _sources(flags, environment, problems):
        try:
            if not re.fullmatch(setting.kind.pattern, text.strip(), re.IGNORECASE):
                raise ValueError
            values[setting.name] = setting.kind.read(text.strip())
        except (ValueError, RuntimeError):  # no user whose home it would be
            problems.append(f"{where}: got {text!r}, want {setting.kind.wanted}")
    if problems:
        raise ConfigError(problems)
    collectors = frozenset(n for n in COLLECTORS if values[f"collector.{n}"])
    rows = {field: values[setting.name] for field, setting in ROWS.items()}
    config = Config(**rows, collectors=collectors)
    if not config.databases:
        raise ConfigError(["database: got none for both, want at least one"])
    paths = map(os.path.realpath, config.databases.values())
    if config.state_file and os.path.realpath(config.state_file) in paths:
        problem = f"got {str(config.state_file)!r}, a database, want a file of its own"
        raise ConfigError([f"state.file: {problem}"])
    return config


def unknown_variables(environment: Iterable[str]) -> dict[str, str]:
    """Return variables that look like settings and are none, with what may be meant."""
    known = [setting.environment for setting in SETTINGS]
    return {
        name: _nearest(name, known)
        for name in sorted({*environment}.difference(known))
        if name.startswith("HAKGAL_") and not _OTHER_VARIABLES.fullmatch(name)
    }


def _nearest(name: str, known: Iterable[str]) -> str:
    return next(iter(difflib.get_close_matches(name, known, n=1, cutoff=0.0)))


def _sources(
    flags: argparse.Namespace, environment: Mapping[str, str], problems: list[str]
) -> Iterator[Given]:
    """Yield every value that is given; a later one wins."""
    outside = []
    for one in SETTINGS:
        yield Given(one, one.default, f"default of {one.name}")
        text = environment.get(one.environment, "").strip()
        # Empty means not given, but for the state file: there it means none.
        if text or (one.environment in environment and one.name == "state.file"):
            outside.append(Given(one, text, f"environment variable {one.environment}"))
    for one in SETTINGS:
        value = getattr(flags, one.name, None)
        if value is not None:
            text = " ".join(value) if isinstance(value, list) else str(value)
            outside.append(Given(one, text, f"flag --{one.name}"))
    files = [one.text.strip() for one in outside if one.setting.name == "config.file"]
    if files and files[-1]:
        yield from _from_file(Path(os.path.expanduser(files[-1])), problems)
    yield from outside


def _from_file(path: Path, problems: list[str]) -> Iterator[Given]:
    # Not at the top: without a file, the YAML library's memory and time are saved.
    from exporter.config.yaml_file import read_yaml

    known = {one.name: one for one in SETTINGS if one.name != "config.file"}
    try:
        values = {".".join(keys): value for keys, value in read_yaml(path).items()}
    except ConfigError as error:
        problems += error.problems
        return
    if _OLD_KEYS.intersection(values):
        problems.append(f"{path}: got the old monitor's file; see docs/migration.md")
        return
    for name, value in values.items():
        setting, place = known.get(name), f"{path}: {name}"
        is_list = setting and setting.kind.is_list and isinstance(value, list)
        text = " ".join(map(str, value)) if is_list else value
        if setting and isinstance(text, str):
            yield Given(setting, text, place)
        elif setting:
            got = "a list" if text else "nothing"
            problems.append(f"{place}: got {got}, want {setting.kind.wanted}")
        elif value or not any(one.startswith(f"{name}.") for one in known):
            wanted = f"a setting, such as {_nearest(name, known)}"
            problems.append(f"{place}: got an unknown key, want {wanted}")
