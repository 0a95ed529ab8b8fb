"""The configuration: flags over environment over file over defaults.

An overridden value must be valid too. Relative paths start at the working directory.
"""

import argparse
import difflib
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from exporter.config.settings import COLLECTORS, ROWS, SETTINGS, Config, Setting
from exporter.errors import ConfigError

__all__ = ["COLLECTORS", "SETTINGS", "Config", "add_flags", "load", "read_yaml"]

# Variables of two commands, and those that Kubernetes sets for a service hakgal.
_OTHERS = re.compile(r"HAKGAL_((DEMO|BACKFILL)_|(\w+_)?(SERVICE_|PORT($|_\d)))")
# Only the old monitor's config.json has these.
_OLD_KEYS = {"database_path", "monitoring_interval", "alert_thresholds", "flask"}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting."""
    twins = "Also environment variables (HAKGAL_LOG_LEVEL) and YAML keys (log.level)."
    group = parser.add_argument_group("settings", twins)
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
    """Return the configuration, or raise ConfigError with a line per mistake."""
    problems: list[str] = []
    values: dict[str, Any] = {}
    for setting, text, where in _sources(flags, environment, problems):
        try:
            pattern = setting.kind.pattern
            if not isinstance(text, str) or not re.fullmatch(
                pattern, text.strip(), re.I
            ):
                raise ValueError
            values[setting.name] = setting.kind.read(text.strip())
        except (ValueError, RuntimeError):  # the latter: no such user has a home
            problems.append(f"{where}: got {text!r}, want {setting.kind.wanted}")
    if problems:
        raise ConfigError(problems)
    collectors = frozenset(n for n in COLLECTORS if values[f"collector.{n}"])
    rows = {field: values[setting.name] for field, setting in ROWS.items()}
    config = Config(**rows, collectors=collectors)
    if not config.databases:
        raise ConfigError(["database: got none for both, want at least one file"])
    paths = map(os.path.realpath, config.databases.values())
    if config.state_file and os.path.realpath(config.state_file) in paths:
        raise ConfigError([f"state.file: {config.state_file} is a database"])
    return config


def unknown_variables(environment: Iterable[str]) -> dict[str, str]:
    """Return unknown HAKGAL_ variables, each with the nearest setting."""
    known = [setting.environment for setting in SETTINGS]
    return {
        name: difflib.get_close_matches(name, known, 1, cutoff=0.0)[0]
        for name in sorted({*environment}.difference(known))
        if name.startswith("HAKGAL_") and not _OTHERS.match(name)
    }


def _sources(
    flags: argparse.Namespace, environment: Mapping[str, str], problems: list[str]
) -> Iterator[tuple[Setting, Any, str]]:
    """Yield each given value as setting, text and origin; a later one wins."""
    outside = []
    for one in SETTINGS:
        yield one, one.default, f"default of {one.name}"
        if text := environment.get(one.environment, "").strip():
            outside.append((one, text, f"environment variable {one.environment}"))
        value = getattr(flags, one.name, None)
        if value is not None:
            text = " ".join(value) if isinstance(value, list) else str(value)
            outside.append((one, text, f"flag --{one.name}"))
    files = [text.strip() for one, text, _ in outside if one.name == "config.file"]
    if files and files[-1]:
        try:
            yield from _from_file(Path(os.path.expanduser(files[-1])))
        except ConfigError as error:
            problems += error.problems
    yield from outside


def _from_file(path: Path) -> Iterator[tuple[Setting, Any, str]]:
    known = {one.name: one for one in SETTINGS if one.name != "config.file"}
    values = {".".join(keys): value for keys, value in read_yaml(path).items()}
    if _OLD_KEYS.intersection(values):
        raise ConfigError([f"{path}: the old monitor's file; see docs/migration.md"])
    problems = []
    for name, value in values.items():
        if setting := known.get(name):
            is_list = setting.kind.is_list and isinstance(value, list)
            text = " ".join(map(str, value)) if is_list else value
            yield setting, text, f"{path}: {name}"
        elif value or not any(one.startswith(f"{name}.") for one in known):
            (nearest,) = difflib.get_close_matches(name, known, 1, cutoff=0.0)
            problems.append(f"{path}: unknown setting {name}; did you mean {nearest}?")
    raise ConfigError(problems)


def read_yaml(path: Path) -> dict[tuple[str, ...], Any]:
    """Return texts, None, lists and {} by key path; ConfigError if not a mapping."""
    import yaml  # not at the top: healthchecks without a file need not wait for it

    class Texts(yaml.SafeLoader):  # scalars stay text, duplicate keys are rejected
        def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
            made = super().construct_mapping(node, deep=True)
            if len(made) < len(node.value):
                raise yaml.MarkedYAMLError("found a duplicate key", node.start_mark)
            return made

    for tag in ("bool", "int", "float", "timestamp"):
        Texts.add_constructor(f"tag:yaml.org,2002:{tag}", lambda _, node: node.value)
    try:
        with path.open("rb") as file:
            tree = yaml.load(file, Texts) or {}
        if isinstance(tree, dict):
            return dict(_flat(tree, ()))
        reason = "not a mapping"
    except (OSError, yaml.YAMLError, RecursionError) as error:
        reason = " ".join(str(error).split())
    raise ConfigError([f"{path}: {reason}, want a readable YAML file"])


def _flat(tree: Any, above: tuple[str, ...]) -> Iterator[tuple[tuple[str, ...], Any]]:
    for key, value in tree.items():
        if isinstance(value, dict) and value:
            yield from _flat(value, (*above, str(key)))
        else:
            yield (*above, str(key)), value
