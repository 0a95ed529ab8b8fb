"""What the drill prints at the end, and whether all happened that was to."""

from collections.abc import Iterator, Sequence

import yaml

from tests.drill.drills import DRILLS, HELD, LATE, SHOWN, UNDRILLED, UNHEARD
from tests.drill.inbox import Inbox
from tests.drill.run import Act, Line
from tests.drill.watch import Watch
from tests.servers import ROOT

HEAD = (
    *("alert", "severity", "pending", "firing", "mail", "webhook", "held back by"),
    *("resolved", "mail", "webhook"),
)
TEXTS = (0, 1, 6)  # columns of words; the others are seconds
MISSING = "MISSING"
HELD_SECONDS = 2.0  # what was on its way when an alert was held back may still arrive
RULE_TESTS = ROOT / "tests" / "rules"


class Report:
    """The outcome of one generation's drill."""

    def __init__(
        self, acts: Sequence[Act], watch: Watch, inbox: Inbox, seconds: float
    ) -> None:
        self._acts = acts
        self._tracks = list(watch.tracks.values())
        self._inbox = inbox
        self._seconds = seconds
        self._lines = [line for act in acts for line in act.lines]
        self.problems = [*self._missing(), *self._leaks(), *self._heartbeat()]
        self.problems += [f"nothing to be found in {text}" for text in inbox.unread]

    @property
    def text(self) -> str:
        """Return the table and what else there is to say."""
        parts = [_table(self._acts), "", f"All of it took {self._seconds:.0f} s."]
        parts += ["Fired besides, on the instances of:", *self._besides()]
        parts += ["", *(f"PROBLEM {problem}" for problem in self.problems)]
        return "\n".join(parts).rstrip()

    def _missing(self) -> Iterator[str]:
        for line in self._lines:
            if lacking := line.lacks((*line.first_half, *line.second_half)):
                alert = line.expected
                yield f"{alert.alert} {alert.severity}: no {', '.join(lacking)}"

    def _leaks(self) -> Iterator[str]:
        """Yield alerts that were told while Alertmanager held them back."""
        for line in self._lines:
            for track in self._tracks:
                if line.wanted.items() <= track.labels.items():
                    for start, end in track.held:
                        notices = self._inbox.notices
                        told = [n for n in notices if n.tells(track.labels)]
                        told = [n for n in told if not n.is_over]
                        if any(start + HELD_SECONDS < n.moment < end for n in told):
                            yield f"{track.labels} was told although held back"

    def _heartbeat(self) -> Iterator[str]:
        beats = [n.moment for n in self._inbox.notices if n.alert == "Watchdog"]
        if len(beats) < self._seconds / 10:
            yield f"Watchdog was heard {len(beats)} times only"

    def _besides(self) -> list[str]:
        """Return what fired without being drilled there, by alert."""
        places = {a.scene.instance.name: a.drill.instance for a in self._acts}
        found: dict[str, set[str]] = {}
        for track in self._tracks:
            labels = track.labels
            fired = any(state == "firing" for _, state in track.states)
            drilled = any(x.wanted.items() <= labels.items() for x in self._lines)
            if fired and not drilled:
                place = labels.get("instance", "none")
                name = f"{labels['alertname']} {labels['severity']}"
                found.setdefault(name, set()).add(places.get(place, place))
        lines = [f"{name}: {', '.join(sorted(p))}" for name, p in found.items()]
        return [f"  {line}" for line in sorted(lines)]


def undrilled() -> list[tuple[str, str, str]]:
    """Return the other alerts: name and severity, why, and which files prove them."""
    drilled = {f"{e.alert} {e.severity}" for d in DRILLS for e in d.expected}
    drilled.add("Watchdog none")
    tests = {file: file.read_text() for file in sorted(RULE_TESTS.glob("*.yml"))}
    found = []
    for alert in sorted(set(_alerts()) - drilled):
        wanted = f"alertname: {alert.split()[0]}\n"
        files = [file.name for file, text in tests.items() if wanted in text]
        why = UNDRILLED.get(alert, MISSING)
        found.append((alert, why, ", ".join(files) or MISSING))
    return found


def _alerts() -> Iterator[str]:
    for file in (ROOT / "prometheus" / "rules").glob("*.yml"):
        for group in yaml.safe_load(file.read_text())["groups"]:
            for rule in group["rules"]:
                if "alert" in rule:
                    yield f"{rule['alert']} {rule['labels']['severity']}"


def _table(acts: Sequence[Act]) -> str:
    """Return one line an alert, below the fault that caused it."""
    rows = [(act, [_cells(act, line) for line in act.lines]) for act in acts]
    every = [list(HEAD), *(cells for _, lines in rows for cells in lines)]
    widths = [max(len(cells[n]) for cells in every) for n in range(len(HEAD))]
    lines = [_row(list(HEAD), widths)]
    for act, cells in rows:
        lines += [f"-- {act.drill.fault}", *(_row(c, widths) for c in cells)]
    return "\n".join(lines)


def _cells(act: Act, line: Line) -> list[str]:
    expected = line.expected
    name = " ".join([expected.alert, *expected.labels.values()])
    begun = [_seconds(line, n, act.caused) for n in ("pending", "firing")]
    told = [_seconds(line, n, act.caused) for n in ("mail", "webhook")]
    over = [_seconds(line, n, act.mended) for n in ("mail over", "webhook over")]
    gone = "stays" if expected.stays else _seconds(line, "resolved", act.mended)
    words = {
        HELD: ", ".join(sorted(line.holders)) or MISSING,
        SHOWN: "(not sent)",
        UNHEARD: "(nobody to send it to)",
        LATE: "(sent when possible)",
    }.get(expected.fate, "")
    if expected.fate in (HELD, SHOWN, UNHEARD):
        told = over = ["", ""]
    return [name, expected.severity, *begun, *told, words, gone, *over]


def _seconds(line: Line, name: str, since: float | None) -> str:
    moment = line.moments.get(name)
    return MISSING if moment is None or since is None else f"{moment - since:.1f}"


def _row(cells: list[str], widths: list[int]) -> str:
    fields = []
    for n, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        fields.append(cell.ljust(width) if n in TEXTS else cell.rjust(width))
    return "  ".join(fields).rstrip()
