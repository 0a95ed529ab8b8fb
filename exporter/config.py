"""The configuration: flags over environment over file over defaults.

A value that another overrides must be well-formed too. Relative paths start at the
working directory, wherever they are written.
"""

import argparse
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

from exporter.errors import ConfigError
from exporter.settings import COLLECTORS, SETTINGS, Given

__all__ = ["COLLECTORS", "SETTINGS", "Config", "add_flags", "load"]

_SIDE_FILES = ("", "-wal", "-shm", "-journal")
_SEPARATE_FILES = (
    ("database.performance", "database.knowledge-base"),
    ("state.file", "database.knowledge-base"),
    ("state.file", "database.performance"),
    ("state.file", "config.file"),
    ("state.file", "web.config.file"),
)


@dataclass(frozen=True)
class Config:
    """Everything that the exporter can be told, checked."""

    knowledge_base: Path | None
    performance: Path | None
    state_file: Path | None
    listen_addresses: tuple[str, ...]
    telemetry_path: str
    web_config_file: Path | None
    max_requests: int
    collectors: frozenset[str]
    query_buckets: tuple[float, ...]
    label_limit: int
    log_level: str
    log_format: str

    @property
    def databases(self) -> dict[str, Path]:
        """Return the files that this installation has, by name."""
        paths = {
            "knowledge_base": self.knowledge_base,
            "performance": self.performance,
        }
        return {name: path for name, path in paths.items() if path}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """Add a flag for each setting; only full names are accepted."""
    parser.allow_abbrev = False
    group = parser.add_argument_group(
        "settings",
        "Each is also an environment variable (HAKGAL_WEB_MAX_REQUESTS) and, but for"
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
            # A default in the namespace of a subcommand would overwrite what was
            # given before the name of the subcommand.
            default=argparse.SUPPRESS,
            help=f"{setting.help} Default: {setting.default or 'none'}.",
            **options,
        )


def load(flags: argparse.Namespace, environment: Mapping[str, str]) -> Config:
    """Return the configuration from all its sources.

    Raises:
        ConfigError: with one line for each mistake, all at once.
    """
    problems: list[str] = []
    defaults = [Given(s, s.default, f"default of {s.name}") for s in SETTINGS]
    outside = [*_from_environment(environment), *_from_flags(flags)]
    values: dict[str, Any] = {}
    origins: dict[str, Given] = {}
    for given in [*defaults, *_from_file(outside, problems), *outside]:
        name = given.setting.name
        try:
            values[name] = given.setting.kind.parse(given.text)
            origins[name] = given
        except ValueError as error:
            problems += [given.refusal(got) for got in error.args]
    problems += _contradictions(values, origins)
    if problems:
        raise ConfigError(problems)
    return _config(values)


def _config(values: Mapping[str, Any]) -> Config:
    return Config(
        knowledge_base=values["database.knowledge-base"],
        performance=values["database.performance"],
        state_file=values["state.file"],
        listen_addresses=values["web.listen-address"],
        telemetry_path=values["web.telemetry-path"],
        web_config_file=values["web.config.file"],
        max_requests=values["web.max-requests"],
        collectors=frozenset(n for n in COLLECTORS if values[f"collector.{n}"]),
        query_buckets=values["query.buckets"],
        label_limit=values["label.limit"],
        log_level=values["log.level"],
        log_format=values["log.format"],
    )


def _from_environment(environment: Mapping[str, str]) -> Iterator[Given]:
    for setting in SETTINGS:
        text = environment.get(setting.environment)
        if text or (text is not None and setting.name == "state.file"):
            yield Given(setting, text, f"environment variable {setting.environment}")


def _from_flags(flags: argparse.Namespace) -> Iterator[Given]:
    for setting in SETTINGS:
        value = getattr(flags, setting.name, None)
        if value is not None:
            text = " ".join(value) if setting.kind.is_list else str(value)
            yield Given(setting, text, f"flag --{setting.name}")


def _from_file(outside: list[Given], problems: list[str]) -> list[Given]:
    files = [given for given in outside if given.setting.name == "config.file"]
    if not files or not files[-1].text:
        return []
    # Not at the top: without a file, the YAML library's memory and time are saved.
    from exporter.config_file import read_file

    return read_file(files[-1], problems)


def _contradictions(
    values: Mapping[str, Any], origins: Mapping[str, Given]
) -> Iterator[str]:
    if not any(values[f"collector.{name}"] for name in COLLECTORS):
        yield f"collector: got all off, want at least one of {', '.join(COLLECTORS)}"
    for low, high in pairwise(values["query.buckets"]):
        if high <= low:
            yield origins["query.buckets"].refusal(f"{high:g} after {low:g}")
    if not (values["database.knowledge-base"] or values["database.performance"]):
        where = origins["database.performance"].where
        yield f"{where}: got none for both databases, want at least one"
    for name, owner in _SEPARATE_FILES:
        path, owned = values[name], values[owner]
        if path and owned and _belongs(path, owned):
            got = f"{str(path)!r}, a file of {owner} ({str(owned)!r})"
            yield f"{origins[name].where}: got {got}, want another one"


def _belongs(path: Path, owner: Path) -> bool:
    # SQLite puts the side files beside what a link points to.
    real = os.path.realpath(owner)
    return os.path.realpath(path) in [real + suffix for suffix in _SIDE_FILES]
