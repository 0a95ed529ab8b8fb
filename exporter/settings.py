"""The table of settings.

Flags, environment names, keys of the YAML file, their checks and the documentation
come from it.
"""

import math
import re
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

COLLECTORS = ("facts", "audit", "queries", "cache", "storage", "system")


_ADDRESS = re.compile(r"(?:\[([0-9A-Fa-f:.%\w]+)\]|([\w.-]*)):([0-9]{1,5})", re.ASCII)
_HIGHEST_PORT = 65535


def parse_address(text: str) -> tuple[str, int]:
    """Split a listen address into host and port.

    ``:8000`` has the host ``""``, which means all interfaces; ``[::1]:8000`` has
    the host ``::1``. Whether the host exists is not looked up.

    Raises:
        ValueError: not an address, or the port is above 65535.
    """
    match = _ADDRESS.fullmatch(text)
    if match is None:
        raise ValueError(
            f"{text!r} is not a listen address: write :PORT for all, HOST:PORT or"
            " [IPV6]:PORT, such as 127.0.0.1:8000"
        )
    port = int(match[3])
    if port > _HIGHEST_PORT:
        raise ValueError(f"{text!r} has a port above {_HIGHEST_PORT}")
    return match[1] or match[2] or "", port


class Kind(NamedTuple):
    """How a value is read from text: as a whole it matches, then it is converted."""

    metavar: str
    wanted: str
    pattern: str
    convert: Callable[[str], object] = str
    is_text: bool = True
    is_list: bool = False

    def parse(self, text: str) -> object:
        """Return the value; a list has spaces or commas between its words.

        Raises:
            ValueError: with one argument for each word that is refused.
        """
        words = re.split(r"[\s,]+", text) if self.is_list else [text]
        parsed: list[object] = []
        refused: list[str] = []
        for word in words:
            try:
                parsed.append(self._parse_word(word))
            except ValueError:
                refused.append(repr(word))
        if refused:
            raise ValueError(*refused)
        return tuple(parsed) if self.is_list else parsed[0]

    def _parse_word(self, word: str) -> object:
        if not re.fullmatch(self.pattern, word):
            raise ValueError
        return self.convert(word)


class Setting(NamedTuple):
    """One row of the table."""

    name: str
    default: str
    kind: Kind
    help: str

    @property
    def environment(self) -> str:
        """Return the name of the environment variable."""
        return "HAKGAL_" + re.sub("[.-]", "_", self.name).upper()


class Given(NamedTuple):
    """A value that somebody wrote, and where: the start of an error message."""

    setting: Setting
    text: str
    where: str

    def refusal(self, got: str) -> str:
        """Return the error message for this value."""
        return f"{self.where}: got {got}, want {self.setting.kind.wanted}"


def _path_or_none(text: str) -> Path | None:
    return Path(text) if text else None


def _is_on(text: str) -> bool:
    return text.lower() in ("true", "yes", "on", "1")


def _address(text: str) -> str:
    parse_address(text)
    return text


def _bound(text: str) -> float:
    bound = float(text)
    if not 0 < bound < math.inf:
        raise ValueError
    return bound


def _path_unless_none(text: str) -> Path | None:
    return None if text == "none" else Path(text)


_DATABASE = Kind("FILE", "a path, or none", r"[^\0]+", _path_unless_none)
_FILE_OR_NONE = Kind("FILE", "a path, or empty text for none", r"[^\0]*", _path_or_none)
_NUMBER = Kind("N", "a whole number from 0", "[0-9]{1,9}", int, is_text=False)
_LIMIT = Kind("N", "a whole number from 1", "[1-9][0-9]{0,8}", int, is_text=False)
_LEVEL = Kind(
    "LEVEL", "debug, info, warn or error", "(?i)debug|info|warn|error", str.lower
)
_FORMAT = Kind("FORMAT", "logfmt or json", "(?i)logfmt|json", str.lower)
_SWITCH = Kind(
    "", "true or false", "(?i)true|yes|on|1|false|no|off|0", _is_on, is_text=False
)
_URL_PATH = Kind(
    "PATH",
    "/ and then letters, digits or any of /._~-, but not /-/healthy or /-/ready",
    "(?!/-/(healthy|ready)$)/[A-Za-z0-9/._~-]*",
)
_ADDRESSES = Kind(
    "ADDRESS",
    ":PORT, HOST:PORT or [IPV6]:PORT with a port up to 65535",
    ".*",
    _address,
    is_list=True,
)
_BUCKETS = Kind(
    "SECONDS",
    "finite numbers above 0, each above the one before (+Inf is added by itself)",
    ".*",
    _bound,
    is_text=False,
    is_list=True,
)

# Below what it names.
SETTINGS = (
    Setting("config.file", "", _FILE_OR_NONE, "Read settings from this YAML file."),
    Setting(
        "database.knowledge-base",
        "data/hexagonal_kb.db",
        _DATABASE,
        "Read facts and audit log from this database; none if there is no such file.",
    ),
    Setting(
        "database.performance",
        "data/hakgal_performance.db",
        _DATABASE,
        "Read queries and cache events from this database; none if there is no such"
        " file.",
    ),
    Setting(
        "state.file",
        "data/exporter-state.json",
        _FILE_OR_NONE,
        "Keep the checkpoint in this file; empty text switches it off.",
    ),
    Setting(
        "web.listen-address",
        ":8000",
        _ADDRESSES,
        "Serve on this address; may be repeated.",
    ),
    Setting(
        "web.telemetry-path", "/metrics", _URL_PATH, "Serve metrics under this path."
    ),
    Setting(
        "web.config.file",
        "",
        _FILE_OR_NONE,
        "Read TLS, users and headers from this file.",
    ),
    Setting(
        "web.max-requests",
        "40",
        _NUMBER,
        "Answer at most this many scrapes at a time; 0 means no limit.",
    ),
    *(
        Setting(f"collector.{name}", "true", _SWITCH, f"Run the {name} collector.")
        for name in COLLECTORS
    ),
    Setting(
        "query.buckets",
        "0.005 0.01 0.025 0.05 0.075 0.1 0.15 0.2 0.3 0.5 1 2.5 5 10",
        _BUCKETS,
        "Bound latency buckets at these seconds; include every latency threshold.",
    ),
    Setting(
        "label.limit",
        "100",
        _LIMIT,
        "Keep this many values of a label; the rest become other.",
    ),
    Setting("log.level", "info", _LEVEL, "Log this level and what is more severe."),
    Setting("log.format", "logfmt", _FORMAT, "Write log lines in this format."),
)
