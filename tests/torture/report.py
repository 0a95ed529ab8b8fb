"""What a fault is, what came of it, and the table of all."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from random import Random

FINDINGS = ("lost", "doubled", "harmed", "crashed")
HEADINGS = ("tried", *FINDINGS)


@dataclass
class Found:
    """What came of a fault.

    Args:
        tried: how often it was really caused.
        lost: rows in no counter although they could have been read, counters that fell,
            and rows said to be missed that were not.
        doubled: rows that counted twice, or increases without a row.
        harmed: errors that the application would not have seen alone, files of its that
            changed owner, mode or content, files left behind.
        crashed: the exporter ended, hung, answered with 5xx that nobody ordered, let
            somebody in, let a resource grow, or logged an error of its own.
        notes: one line for each of these, for who has to mend it.
    """

    tried: int = 0
    lost: int = 0
    doubled: int = 0
    harmed: int = 0
    crashed: int = 0
    notes: list[str] = field(default_factory=list)

    def note(self, finding: str, text: str, count: int = 1) -> None:
        """Count a finding, and say what it was."""
        assert finding in FINDINGS
        setattr(self, finding, getattr(self, finding) + count)
        self.notes.append(f"{finding} {count}: {text}")

    @property
    def is_clean(self) -> bool:
        """Whether it was tried and nothing came of it."""
        return self.tried > 0 and not any(getattr(self, name) for name in FINDINGS)

    def __iadd__(self, other: "Found") -> "Found":
        for name in HEADINGS:
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.notes += other.notes
        return self


@dataclass(frozen=True)
class Effort:
    """How hard to try: an empty folder, chance, and the share of all tries to make."""

    folder: Path
    rng: Random
    share: float = 1.0

    def times(self, whole: int) -> int:
        """Return how many of the tries of a whole run are to be made, at least 1."""
        return max(1, round(whole * self.share))


@dataclass(frozen=True)
class Fault:
    """Something that is done to the exporter or around it."""

    group: str
    name: str
    play: Callable[[Effort], Found]


def table(rows: Sequence[tuple[Fault, Found]]) -> str:
    """Return all findings, group by group, and their sum."""
    width = max(len(fault.name) for fault, _ in rows) + 2
    lines = []
    group, total = "", Found()
    for fault, found in rows:
        if fault.group != group:
            group = fault.group
            lines += ["", _line(group.upper(), width, HEADINGS)]
        lines.append(_line(fault.name, width, _cells(found)))
        total += found
    return "\n".join([*lines[1:], "", _line("ALL", width, _cells(total))])


def _cells(found: Found) -> list[str]:
    return [str(getattr(found, name)) for name in HEADINGS]


def _line(name: str, width: int, cells: Sequence[str]) -> str:
    return name.ljust(width) + "".join(cell.rjust(9) for cell in cells)
