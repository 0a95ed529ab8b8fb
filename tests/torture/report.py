"""What came of a scene, and the one table of all."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field

from tests.tables import aligned

FINDINGS = ("lost", "doubled", "fell", "misread", "crashed", "harmed")
COLUMNS = ("tries", *FINDINGS, "left over")
LEGEND = """\
lost       rows in no counter although they could have been read
doubled    rows that counted twice, or are shown before they are durable
fell       counters that are lower than on an earlier page
misread    values on a page that cannot be right, resets for nothing
crashed    the exporter ended, hung, was late, let a resource grow, logged an error,
           did not let somebody in who has a right, or answered somebody who has not
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
    total = sum((found.counts for _, _, found in rows), Counter[str]())
    counted = [(group, text, found.counts) for group, text, found in rows]
    cells = [
        (group, text, *(str(counts[name]) for name in COLUMNS))
        for group, text, counts in [*counted, ("ALL", "", total)]
    ]
    return "\n".join([*aligned([("", "", *COLUMNS), *cells]), "", LEGEND])
