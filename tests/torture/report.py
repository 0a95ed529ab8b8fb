"""What came of a scene, and the one table of all."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

FINDINGS = ("lost", "doubled", "fell", "misread", "crashed", "harmed")
COLUMNS = ("tries", *FINDINGS, "left over")
LEGEND = """\
lost       rows in no counter although they could have been read
doubled    rows that counted twice, or are shown before they are durable
fell       counters that are lower than on an earlier page
misread    values on a page that cannot be right, resets for nothing
crashed    the exporter ended, hung, was late, let a resource grow, logged an error,
           let somebody in who has no right or did not let in somebody who has
harmed     errors that the application would not have seen alone, files of its that
           were touched, files left behind
left over  rows lost or doubled where the promise does not reach: docs/limits.md"""


@dataclass
class Found:
    """How often a scene was tried, what was found, and a line for each finding."""

    counts: Counter[str] = field(default_factory=Counter)
    notes: list[str] = field(default_factory=list)

    def note(self, finding: str, text: str, number: int = 1) -> None:
        """Count a finding, and say what it was."""
        assert finding in COLUMNS
        self.counts[finding] += number
        self.notes.append(f"{finding} {number}: {text}")

    @property
    def is_clean(self) -> bool:
        """Whether it was tried and nothing was found."""
        return self.counts["tries"] > 0 and not any(self.counts[n] for n in FINDINGS)


def table(rows: Sequence[tuple[str, str, Found]]) -> str:
    """Return what was found, as rows of group, sentence and findings, and the sum."""
    width = max(len(sentence) for _, sentence, _ in rows) + 2
    total: Counter[str] = Counter()
    lines: list[str] = []
    heading = ""
    for group, sentence, found in rows:
        if group != heading:
            heading = group
            lines += ["", _line(group.upper(), width, COLUMNS)]
        lines.append(_line(sentence, width, _cells(found.counts)))
        total += found.counts
    return "\n".join([*lines, "", _line("ALL", width, _cells(total)), "", LEGEND])


def _cells(counts: Counter[str]) -> list[str]:
    return [str(counts[name]) for name in COLUMNS]


def _line(name: str, width: int, cells: Sequence[str]) -> str:
    return name.ljust(width) + "".join(cell.rjust(10) for cell in cells)
