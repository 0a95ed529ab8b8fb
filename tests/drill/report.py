"""What the drill prints at the end, and whether all happened that was to."""

from collections.abc import Iterator, Sequence
from itertools import chain, islice

import yaml

from tests.drill.drills import DRILLS, HELD, LATE, SHOWN, UNDRILLED, UNHEARD, Drill
from tests.drill.run import TOLD_OF, TOLD_OVER, Act, Line
from tests.drill.watch import Watch
from tests.servers import ROOT
from tests.tables import aligned

HEAD = "alert severity pending firing mail webhook held-back-by resolved mail webhook"
MISSING = "MISSING"
BEATS_EVERY = "5m"  # at least; one a minute is sent
RULE_TESTS = ROOT / "tests" / "prometheus" / "rules"
# What stands in the table where nobody was told.
UNTOLD = {SHOWN: "(not sent)", UNHEARD: "(nobody to send it to)"}


def problems(
    acts: Sequence[Act], watch: Watch, seconds: float
) -> Iterator[tuple[Drill, str]]:
    """Yield what did not happen, and what should not have, and in which drill."""
    for act in acts:
        for line in act.lines:
            lacking = line.lacks(is_mended=False) + line.lacks(is_mended=True)
            # Alertmanager forgets the end of what it still holds back at that moment.
            if line.ended_held:
                lacking = [column for column in lacking if column not in TOLD_OVER]
            if lacking:
                yield act.drill, f"{line.expected.name}: no {', '.join(lacking)}"
            if watch.leaked(line.wanted, act.ended or 0.0):
                yield act.drill, f"{line.expected.name} was told although held back"
    beats = sum(notice.alert == "Watchdog" for notice in watch.inbox.notices)
    if beats < seconds / acts[0].scene.stack.seconds(BEATS_EVERY):
        yield acts[0].drill, f"Watchdog was heard {beats} times only"
    for text in watch.inbox.unread:
        yield acts[0].drill, f"nothing to be found in {text}"


def undrilled() -> Iterator[tuple[str, str, str]]:
    """Yield the other alerts: name and severity, why, and which files prove them."""
    files = (ROOT / "prometheus" / "rules").glob("*.yml")
    groups = [g for f in files for g in yaml.safe_load(f.read_text())["groups"]]
    alerts = [rule for g in groups for rule in g["rules"] if "alert" in rule]
    shipped = {f"{rule['alert']} {rule['labels']['severity']}" for rule in alerts}
    drilled = {e.name for d in DRILLS for e in d.expected} | {"Watchdog none"}
    tests = {file: file.read_text() for file in sorted(RULE_TESTS.glob("*.yml"))}
    for alert in sorted(shipped - drilled):
        wanted = f"alertname: {alert.split()[0]}\n"
        proofs = [file.name for file, text in tests.items() if wanted in text]
        yield alert, UNDRILLED.get(alert, MISSING), ", ".join(proofs) or MISSING


def table(acts: Sequence[Act]) -> str:
    """Return one line an alert, below the fault that caused it."""
    rows = [_cells(act, line) for act in acts for line in act.lines]
    head, *rest = aligned([HEAD.split(), *rows])
    lines = iter(rest)
    parts = [[f"-- {a.drill.fault}", *islice(lines, len(a.lines))] for a in acts]
    return "\n".join([head, *chain(*parts)])


def _cells(act: Act, line: Line) -> list[str]:
    def seconds(since: float | None, *names: str) -> list[str]:
        moments = [line.moments.get(name) for name in names]
        return [MISSING if not m or not since else f"{m - since:.1f}" for m in moments]

    expected = line.expected
    words = UNTOLD.get(expected.fate, "")
    begun = seconds(act.caused, "pending", "firing")
    told, over = seconds(act.caused, *TOLD_OF), seconds(act.mended, *TOLD_OVER)
    gone = seconds(act.mended, "resolved")
    if expected.fate == HELD:
        words = ", ".join(sorted(line.holders)) or MISSING
    if words:
        told = over = ["", ""]
    elif expected.fate == LATE:
        words = "(sent when possible)"
    elif line.ended_held:
        over = ["(held)" if cell == MISSING else cell for cell in over]
    name = " ".join([expected.alert, *expected.labels.values()])
    return [name, expected.severity, *begun, *told, words, *gone, *over]
