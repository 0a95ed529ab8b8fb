"""The table: measured beside goal, as text for people and as JSON for programs."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

HEAD = ("What", "Measured", "Against", "Ratio", "Goal", "Reached")


@dataclass(frozen=True)
class Line:
    """One line of the table.

    Args:
        measured: in ``unit``, which is s, B, % (of a core), or nothing for numbers.
        against: what it is compared with, "goal" if that is a limit.
        other: the figure of that, measured in the same run; None if it is not here.
        ratio: of measured to other, as the median of rounds where there are any.
        goal: what the ratio may be at most; None for what has no goal.
    """

    what: str
    measured: float
    unit: str
    against: str
    other: float | None
    ratio: float | None
    goal: float | None
    note: str = ""
    details: Mapping[str, object] = field(default_factory=dict)
    group: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the goal is reached; None without goal or without the peer."""
        if self.goal is None or self.ratio is None:
            return None
        return self.ratio <= self.goal

    def brief(self) -> str:
        """Return the line without its columns."""
        return ", ".join(cell for cell in _cells(self)[1:] if cell)


def limit(
    what: str,
    measured: float,
    unit: str,
    limit: float,
    note: str = "",
    **details: object,
) -> Line:
    """Return the line of a figure whose goal is not a peer but a number."""
    return Line(
        what, measured, unit, "goal", limit, measured / limit, 1.0, note, details
    )


def none_of(what: str, number: int, note: str = "", **details: object) -> Line:
    """Return the line of something that shall not happen at all."""
    return Line(what, number, "", "goal", 0.0, float(number), 0.0, note, details)


def missing(what: str, measured: float, unit: str, peer: str, goal: float) -> Line:
    """Return the line of a comparison whose peer is not installed."""
    return Line(what, measured, unit, f"{peer}: not here", None, None, goal)


def as_text(lines: Sequence[Line], about: Mapping[str, object]) -> str:
    """Return the table, the notes below their lines, and what it was measured on."""
    rows = [HEAD, *(_cells(line) for line in lines)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    texts = []
    for row, note in zip(rows, ["", *(line.note for line in lines)], strict=True):
        cells = zip(row, widths, strict=True)
        texts.append("  ".join(cell.ljust(width) for cell, width in cells).rstrip())
        texts += [f"    {note}"] if note else []
    texts.insert(1, "  ".join("-" * width for width in widths))
    texts += ["", *(f"{name}: {value}" for name, value in about.items())]
    return "\n".join(texts) + "\n"


def as_json(lines: Sequence[Line], about: Mapping[str, object]) -> str:
    """Return all of it, details included."""
    rows = [asdict(line) | {"reached": line.reached} for line in lines]
    return json.dumps({"about": about, "lines": rows}, indent=2) + "\n"


def show(value: float | None, unit: str) -> str:
    """Return a figure with three digits and a unit of fitting size."""
    if value is None:
        return "-"
    if unit == "s":
        factor, name = (1e6, "µs") if value < 1e-3 else (1e3, "ms")
        return f"{value:.3g} s" if value >= 1 else f"{value * factor:.3g} {name}"
    if unit == "B":
        return f"{value / 1e6:.3g} MB" if value < 1e9 else f"{value / 1e9:.3g} GB"
    return f"{value:.3g} {unit}".rstrip()


def _cells(line: Line) -> tuple[str, ...]:
    reached = {True: "yes", False: "NO", None: ""}[line.reached]
    other = "" if line.other is None else f"{show(line.other, line.unit)} "
    return (
        line.what,
        show(line.measured, line.unit),
        f"{other}{line.against}",
        _number(line.ratio),
        "" if line.goal is None else f"<= {_number(line.goal)}",
        reached,
    )


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    if 0 < value < 0.01:
        return f"1/{round(1 / value):,}"
    return f"{value:.3g}"
