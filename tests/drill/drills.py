"""The drills of drills.yml, which says what each word means."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

TOLD, HELD, SHOWN, UNHEARD, LATE = FATES = "told", "held", "shown", "unheard", "late"
HAKGAL = "hakgal"


class Expected:
    """An alert that a fault is to cause, and what is to become of it."""

    def __init__(self, words: str, fate: str) -> None:
        self.alert, self.severity, *rest = words.split()
        self.fate = fate
        self.labels = dict(word.split("=") for word in rest if "=" in word)
        self.job = self.labels.pop("job", HAKGAL)
        self.name = f"{self.alert} {self.severity}"


@dataclass(frozen=True)
class Drill:
    """A fault and what is to come of it."""

    name: str
    fault: str
    expected: tuple[Expected, ...]
    before: Mapping[str, Any] | None = None
    ready: str = ""
    after: tuple[str, ...] = ()
    stage: int = 1
    mends_last: bool = False
    place: str = ""
    flags: tuple[str, ...] = ()

    @property
    def instance(self) -> str:
        """Return the name of the instance."""
        return self.place or self.name


def _read(name: str, fields: dict[str, Any]) -> Drill:
    found = {fate: fields.pop(fate, ()) for fate in FATES}
    expected = (Expected(words, fate) for fate in FATES for words in found[fate])
    return Drill(name, expected=tuple(expected), **fields)


_TABLE = yaml.safe_load(Path(__file__).with_suffix(".yml").read_text())
UNDRILLED: dict[str, str] = _TABLE.pop("undrilled")
DRILLS = [_read(name, fields) for name, fields in _TABLE.items()]
