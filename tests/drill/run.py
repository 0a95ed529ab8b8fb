"""Cause the faults, wait for what is to come of them, mend them, wait again."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from tests.drill.drills import EVERYTHING, HAKGAL, HELD, LATE, TOLD, Drill, Expected
from tests.drill.inbox import MAIL, WEBHOOK, Inbox
from tests.drill.scene import Scene
from tests.drill.watch import Track, Watch

POLL_SECONDS = 0.1
STAGGER_SECONDS = 0.5
UNNOTICED_SECONDS = 8.0  # until Prometheus has read its targets again
# For each half of a drill; the longest wait is an hour, divided.
PATIENCE_SECONDS = 30.0
PATIENCE_DIVIDED = 4800.0

Say = Callable[[str], object]

# What is to be seen of an alert, in the order of the table's columns.
FIRST_HALF = ("pending", "firing", "mail", "webhook", "held")
SECOND_HALF = ("resolved", "mail over", "webhook over")


@dataclass
class Line:
    """One alert of a drill: when each thing was seen, on the monotonic clock."""

    drill: Drill
    expected: Expected
    wanted: dict[str, str]
    moments: dict[str, float] = field(default_factory=dict)
    holders: set[str] = field(default_factory=set)
    leaked: bool = False

    @property
    def first_half(self) -> tuple[str, ...]:
        """What is to be seen before the fault is mended."""
        last = {TOLD: ("mail", "webhook"), HELD: ("held",)}
        return ("pending", "firing", *last.get(self.expected.fate, ()))

    @property
    def second_half(self) -> tuple[str, ...]:
        """What is to be seen after that."""
        if self.expected.stays:
            return ()
        over = ("mail over", "webhook over")
        last = {TOLD: over, LATE: ("mail", "webhook", *over)}
        return ("resolved", *last.get(self.expected.fate, ()))

    def lacks(self, columns: Sequence[str]) -> list[str]:
        """Return what of it has not been seen."""
        return [column for column in columns if column not in self.moments]


class Act:
    """A drill under way."""

    def __init__(self, drill: Drill, scene: Scene) -> None:
        self.drill = drill
        self.scene = scene
        self.caused: float | None = None
        self.mended: float | None = None
        self.ended: float | None = None
        self.lines = [Line(drill, e, self._wanted(e)) for e in drill.expected]

    def _wanted(self, expected: Expected) -> dict[str, str]:
        labels = {"alertname": expected.alert, "severity": expected.severity}
        job = expected.job
        instance = self.scene.stack.address(job)
        if job == HAKGAL:
            instance = self.scene.instance.name
        return labels | expected.labels | ({"instance": instance} if instance else {})


class Run:
    """All drills, side by side where they may be."""

    def __init__(
        self, acts: Sequence[Act], watch: Watch, inbox: Inbox, say: Say
    ) -> None:
        self.acts = acts
        self._watch = watch
        self._inbox = inbox
        self._say = say
        self._started = time.monotonic()
        self._next_cause = self._started
        self._retired: dict[str, float] = {}
        divided = PATIENCE_DIVIDED / acts[0].scene.stack.factor
        self._patience = PATIENCE_SECONDS + divided

    def play(self) -> None:
        """Play until all is over or patience is."""
        while not all(act.ended for act in self.acts):
            now = time.monotonic()
            for act in self.acts:
                self._step(act, now)
            self._retire(now)
            if self._watch.error:
                raise self._watch.error
            time.sleep(POLL_SECONDS)

    def _retire(self, now: float) -> None:
        """Take instances that are no longer needed from the targets, then end them."""
        for name in {act.drill.instance for act in self.acts} - self._retired.keys():
            if all(act.ended for act in self.acts if act.drill.instance == name):
                self._retired[name] = now
                self.acts[0].scene.stack.write_targets("hakgal", self._in_use())
        for act in self.acts:
            if now > self._retired.get(act.drill.instance, now) + UNNOTICED_SECONDS:
                act.scene.instance.end()

    def _in_use(self) -> list[str]:
        instances = {act.drill.instance: act.scene.instance for act in self.acts}
        return [i.name for name, i in instances.items() if name not in self._retired]

    def tell(self, words: str) -> None:
        """Say how far it is."""
        self._say(f"{time.monotonic() - self._started:6.1f} s  {words}")

    def _step(self, act: Act, now: float) -> None:
        if act.caused is None:
            if now >= self._next_cause and self._may_begin(act):
                self._next_cause = now + STAGGER_SECONDS
                self.tell(f"{act.drill.name}: {act.drill.fault}")
                act.caused = time.monotonic()
                act.drill.cause(act.scene)
            return
        if act.ended:
            return
        for line in act.lines:
            self._observe(line, act.caused, act.mended)
        if act.mended is None:
            missing = self._missing(act, lambda line: line.first_half)
            if not missing or now > act.caused + self._patience:
                self._report(act, "mended", missing)
                act.mended = time.monotonic()
                act.drill.mend(act.scene)
            return
        missing = self._missing(act, lambda line: line.second_half)
        if not missing or now > act.mended + self._patience:
            self._report(act, "over", missing)
            act.ended = now

    def _report(self, act: Act, word: str, missing: list[str]) -> None:
        waiting = f", not seen: {'; '.join(missing)}" if missing else ""
        self.tell(f"{act.drill.name}: {word}{waiting}")

    def _missing(
        self, act: Act, columns: Callable[[Line], tuple[str, ...]]
    ) -> list[str]:
        return [
            f"{line.expected.alert} {line.expected.severity} {', '.join(lacking)}"
            for line in act.lines
            if (lacking := line.lacks(columns(line)))
        ]

    def _may_begin(self, act: Act) -> bool:
        if any(not other.ended for other in self.acts if _is_before(other, act)):
            return False
        if not act.drill.ready:
            return True
        wanted = {"alertname": act.drill.ready, "instance": act.scene.instance.name}
        return any(
            t.states[-1][1] == "firing" for t in self._watch.find(wanted) if t.states
        )

    def _observe(self, line: Line, caused: float, mended: float | None) -> None:
        tracks = self._watch.find(line.wanted)
        moments = line.moments
        for state in ("pending", "firing"):
            _first(moments, state, _since(tracks, state, caused))
        for track in tracks:
            held = [
                t for t, state in track.routed if state == "suppressed" and t > caused
            ]
            _first(moments, "held", held)
            line.holders |= track.holders if held else set()
        for channel in (MAIL, WEBHOOK):
            told = [n for n in self._inbox.notices if n.tells(line.wanted)]
            notices = [n for n in told if n.channel == channel]
            begun = [n.moment for n in notices if not n.is_over and n.moment > caused]
            _first(moments, channel, begun)
            if mended is not None:
                # On a machine that is too busy, it may have been over before.
                fires = any(t.state_at(mended) == "firing" for t in tracks)
                since = mended if fires else moments.get(channel, mended)
                over = [n.moment for n in notices if n.is_over and n.moment > since]
                _first(moments, f"{channel} over", [max(mended, m) for m in over])
        if mended is not None and tracks and all(t.is_gone for t in tracks):
            gone = max(t.states[-1][0] for t in tracks)
            _first(moments, "resolved", [max(gone, mended)])


def _is_before(one: Act, other: Act) -> bool:
    if other.drill.after == EVERYTHING:
        return not {*one.drill.after} & {*EVERYTHING, other.drill.name}
    return one.drill.name in other.drill.after


def _since(tracks: Sequence[Track], state: str, caused: float) -> list[float]:
    """Return when alerts came into a state; of those in it already, the fault."""
    found = []
    for track in tracks:
        before = [name for moment, name in track.states if moment <= caused]
        if before and before[-1] in ("firing", state):
            found.append(caused)
        found += [m for m, name in track.states if name == state and m > caused]
    return found


def _first(moments: dict[str, float], name: str, found: Sequence[float]) -> None:
    if found and name not in moments:
        moments[name] = min(found)
