"""Numbers from interleaved rounds, and the table: measured beside goal."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import median

from tests.tables import aligned

HEAD = ("What", "Measured", "Against", "Ratio", "Goal", "Reached")
Sample = Callable[[], list[float]]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below which a share of the values lies."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


@dataclass(frozen=True)
class Pairs:
    """Rounds of two sides, taken in turn, A B A B …, because the machine is noisy."""

    ours: list[list[float]] = field(default_factory=list)
    theirs: list[list[float]] = field(default_factory=list)

    def percentiles(self, share: float) -> tuple[list[float], list[float]]:
        """Return a percentile of each side, round by round."""
        ours = [percentile(taken, share) for taken in self.ours]
        return ours, [percentile(taken, share) for taken in self.theirs]


def interleave(rounds: int, ours: Sample, theirs: Sample) -> Pairs:
    """Take both sides in turn."""
    taken = [(ours(), theirs()) for _ in range(rounds)]
    return Pairs([a for a, _ in taken], [b for _, b in taken])


@dataclass(frozen=True)
class Line:
    """One line of the table; ``against`` a peer, or "goal" if that is a limit."""

    what: str
    measured: float
    unit: str  # s, B, % (of a core), or nothing for numbers
    against: str
    other: float  # the figure of that, measured in the same run
    ratio: float  # the median of rounds where there are any
    goal: float | None  # what the ratio may be at most
    note: str = ""

    def cells(self) -> tuple[str, ...]:
        """Return the line as columns of text."""
        measured, other = (show(x, self.unit) for x in (self.measured, self.other))
        goal = reached = ""
        if self.goal is not None:
            goal = f"<= {_number(self.goal)}"
            reached = "yes" if self.ratio <= self.goal else "NO"
        against = f"{other} {self.against}"
        return self.what, measured, against, _number(self.ratio), goal, reached


def compare(
    what: str,
    pairs: Pairs,
    peer: str,
    goal: float | None,
    note: str = "",
    share: float = 0.5,
) -> Line:
    """Return the line of a percentile of seconds beside somebody else's."""
    ours, theirs = pairs.percentiles(share)
    ratios = [a / b for a, b in zip(ours, theirs, strict=True)]
    note = f"rounds {min(ratios):.3g} to {max(ratios):.3g}{note and '; '}{note}"
    return Line(
        what, median(ours), "s", peer, median(theirs), median(ratios), goal, note
    )


def limit(what: str, measured: float, unit: str, limit: float, note: str = "") -> Line:
    """Return the line of a figure whose goal is not a peer but a number."""
    return Line(what, measured, unit, "goal", limit, measured / limit, 1.0, note)


def none_of(what: str, number: int, note: str = "") -> Line:
    """Return the line of something that shall not happen at all."""
    return Line(what, number, "", "goal", 0.0, float(number), 0.0, note)


def as_text(lines: Sequence[Line], about: Mapping[str, object]) -> str:
    """Return the table, the notes below their lines, and what it was measured on."""
    rows = aligned([HEAD, *(line.cells() for line in lines)])
    texts = []
    for row, note in zip(rows, ["", *(line.note for line in lines)], strict=True):
        texts += [row, f"    {note}"] if note else [row]
    texts += ["", *(f"{name}: {value}" for name, value in about.items())]
    return "\n".join(texts) + "\n"


def show(value: float, unit: str) -> str:
    """Return a figure with three digits and a unit of fitting size."""
    if unit == "s":
        factor, name = (1e6, "µs") if value < 1e-3 else (1e3, "ms")
        return f"{value:.3g} s" if value >= 1 else f"{value * factor:.3g} {name}"
    if unit == "B":
        return f"{value / 1e6:.3g} MB" if value < 1e9 else f"{value / 1e9:.3g} GB"
    return f"{value:.3g} {unit}".rstrip()


def _number(value: float) -> str:
    return f"1/{round(1 / value):,}" if 0 < value < 0.01 else f"{value:.3g}"
