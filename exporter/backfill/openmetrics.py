"""OpenMetrics text with timestamps, one line at a time."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import NamedTuple, TextIO

# A moment in seconds since the epoch, and a value for each series of the group.
Values = tuple[float, Sequence[float]]


class Group(NamedTuple):
    """Series that have the same moments: the buckets of a histogram, or a single one.

    ``series`` are names with labels; ``values`` gives their values, oldest first.
    """

    series: tuple[tuple[str, Mapping[str, str]], ...]
    values: Callable[[], Iterator[Values]]


@dataclass(frozen=True)
class Family:
    """A metric: its name without ``_total``, its type, and its series."""

    name: str
    kind: str
    help: str
    groups: tuple[Group, ...]

    def then(self, later: "Family") -> "Family":
        """Return a family of one series that goes on as another one."""
        ((ours,), (theirs,)) = self.groups, later.groups
        both = ours.values, theirs.values
        group = ours._replace(values=lambda: chain.from_iterable(v() for v in both))
        return Family(self.name, self.kind, later.help, (group,))


@dataclass
class Written:
    """How many samples were written, and of which time in seconds since the epoch."""

    number: int = 0
    first: float = float("inf")
    last: float = 0.0


def write(
    families: Iterable[Family], target: Mapping[str, str], output: TextIO
) -> Written:
    """Write all families and the end mark; ``target`` labels go to each series."""
    written = Written()
    for family in families:
        head = f"# TYPE {family.name} {family.kind}\n"
        head += f"# HELP {family.name} {_escape(family.help)}\n"
        for group in family.groups:
            starts = [_series(name, {**labels, **target}) for name, labels in group[0]]
            for moment, values in group.values():
                output.write(head)
                _write_values(starts, moment, values, output)
                written.number += len(starts)
                written.first = min(written.first, moment)
                written.last = max(written.last, moment)
                head = ""
    output.write("# EOF\n")
    return written


def _write_values(
    starts: list[str], moment: float, values: Sequence[float], output: TextIO
) -> None:
    # Prometheus knows milliseconds.
    when = str(int(moment)) if moment == int(moment) else f"{moment:.3f}"
    for start, value in zip(starts, values, strict=True):
        output.write(f"{start} {value!r} {when}\n")


def _series(name: str, labels: Mapping[str, str]) -> str:
    pairs = (f'{label}="{_escape(value)}"' for label, value in labels.items())
    return f"{name}{{{','.join(pairs)}}}"


def _escape(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
