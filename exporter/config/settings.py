"""The table of settings: the source of flags, variables, keys, checks and help."""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, fields
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urlsplit

COLLECTORS = ("facts", "audit", "queries", "cache", "storage", "system")
_ON, _OFF = ("true", "yes", "on", "1"), ("false", "no", "off", "0")


def parse_address(text: str) -> tuple[str, int]:
    """Split a listen address; host ``""`` means all. ValueError if it is malformed."""
    parts = urlsplit(f"//{text}")
    if parts.port is None:
        raise ValueError
    return parts.hostname or "", parts.port


def _path(text: str) -> Path | None:
    return Path(text).expanduser() if text else None


def _addresses(text: str) -> tuple[str, ...]:
    return tuple(word for word in re.split(r"[\s,]+", text) if parse_address(word))


def _buckets(text: str) -> tuple[float, ...]:
    bounds = tuple(map(float, re.split(r"[\s,]+", text)))
    if not all(low < high for low, high in pairwise((0.0, *bounds, math.inf))):
        raise ValueError
    return bounds


class Kind(NamedTuple):
    """A kind of value: its text must match ``pattern``, and ``read`` must parse it."""

    metavar: str
    wanted: str
    pattern: str
    read: Callable[[str], Any] = str
    is_list: bool = False


_FILE = Kind("FILE", "a path, or an empty value for none", r"[^\0]*", _path)
_DATABASE = Kind(
    "FILE", "a path, or none", r"[^\0]+", lambda t: _path(t) if t != "none" else None
)
_NUMBER = Kind("N", "a whole number", "[0-9]{1,9}", int)
_LEVEL = Kind("LEVEL", "debug, info, warn or error", "debug|info|warn|error", str.lower)
_FORMAT = Kind("FORMAT", "logfmt or json", "logfmt|json", str.lower)
_SWITCH = Kind("", "true or false", "|".join(_ON + _OFF), lambda t: t.lower() in _ON)
_URL_PATH = Kind(
    "PATH", "a path such as /metrics", "(?!/-/(healthy|ready)$)/[A-Za-z0-9/._~-]*"
)
_ADDRESSES = Kind(
    "ADDRESS", ":PORT, HOST:PORT or [IPV6]:PORT", r"[\w:.,\s\[\]-]+", _addresses, True
)
_BUCKETS = Kind("SECONDS", "increasing numbers above 0", ".+", _buckets, True)


class Setting(NamedTuple):
    """A row of the table."""

    name: str
    default: str
    kind: Kind
    help: str

    @property
    def environment(self) -> str:
        """Return the name of the environment variable."""
        return "HAKGAL_" + re.sub("[.-]", "_", self.name).upper()


def _row(*row: Any) -> Any:
    return field(metadata={"setting": Setting(*row)})


@dataclass(frozen=True)
class Config:
    """All settings of the exporter, validated."""

    knowledge_base: Path | None = _row(
        "database.knowledge-base",
        "data/hexagonal_kb.db",
        _DATABASE,
        "Read facts and the audit log from this database; 'none' disables it.",
    )
    performance: Path | None = _row(
        "database.performance",
        "data/hakgal_performance.db",
        _DATABASE,
        "Read queries and cache events from this database; 'none' disables it.",
    )
    state_file: Path | None = _row(
        "state.file",
        "data/exporter-state.json",
        _FILE,
        "Keep the checkpoint in this file; an empty value disables it.",
    )
    listen_addresses: tuple[str, ...] = _row(
        "web.listen-address", ":8000", _ADDRESSES, "Listen on this address; repeatable."
    )
    telemetry_path: str = _row(
        "web.telemetry-path", "/metrics", _URL_PATH, "Serve metrics on this path."
    )
    web_config_file: Path | None = _row(
        "web.config.file", "", _FILE, "Read TLS, users and headers from this file."
    )
    max_requests: int = _row(
        "web.max-requests", "40", _NUMBER, "Limit concurrent scrapes; 0 means no limit."
    )
    query_buckets: tuple[float, ...] = _row(
        "query.buckets",
        "0.005 0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.5 1 2.5 5 10",
        _BUCKETS,
        "Set these bucket bounds in seconds; include every latency threshold.",
    )
    label_limit: int = _row(
        "label.limit",
        "100",
        _NUMBER,
        "Keep this many values per label; the rest become other.",
    )
    log_level: str = _row("log.level", "info", _LEVEL, "Log this level and above.")
    log_format: str = _row("log.format", "logfmt", _FORMAT, "Log in this format.")
    collectors: frozenset[str] = frozenset(COLLECTORS)

    @property
    def databases(self) -> dict[str, Path]:
        """Return the database files of this installation, by name."""
        both = {"knowledge_base": self.knowledge_base, "performance": self.performance}
        return {name: path for name, path in both.items() if path}


ROWS: dict[str, Setting] = {
    one.name: one.metadata["setting"] for one in fields(Config) if one.metadata
}
SETTINGS = (
    Setting("config.file", "", _FILE, "Read settings from this YAML file."),
    *ROWS.values(),
    *(
        Setting(f"collector.{name}", "true", _SWITCH, f"Run the {name} collector.")
        for name in COLLECTORS
    ),
)
