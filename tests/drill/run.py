"""Cause the faults, wait for what is to come of them, mend them, wait again.

What is judged is whether things happen and in which order, never how fast: each wait
ends when the thing happens, and fails only after a time that nothing real takes.
"""

import time
from collections.abc import Callable, Iterable, Sequence

from tests.drill.acts import PLAYS
from tests.drill.drills import HAKGAL, HELD, LATE, TOLD, Drill, Expected
from tests.drill.inbox import MAIL, WEBHOOK
from tests.drill.scene import Instance, Scene
from tests.drill.watch import Labels, Watch

POLL_SECONDS = 0.1
STAGGER_SECONDS = 0.5
PATIENCE_SECONDS = 300.0  # for each half of a drill, and for what must fire before it
# As long after which a first message would have gone and arrived.
SURELY_HELD, SURELY_HELD_SECONDS = "30s", 6.0

Say = Callable[[str], object]
# What is to be seen of an alert before its fault is mended, and after.
TOLD_OF, TOLD_OVER = (MAIL, WEBHOOK), (f"{MAIL} over", f"{WEBHOOK} over")
FIRST_HALF = {TOLD: TOLD_OF, HELD: ("held",)}
SECOND_HALF = {TOLD: TOLD_OVER, LATE: (*TOLD_OF, *TOLD_OVER)}


class Line:
    """One alert of a drill: when each thing was seen, on the monotonic clock."""

    def __init__(self, expected: Expected, wanted: Labels) -> None:
        self.expected = expected
        self.wanted = wanted
        self.moments: dict[str, float] = {}
        self.holders: set[str] = set()
        self.ended_held = False

    def lacks(self, *, is_mended: bool) -> list[str]:
        """Return what was to be seen before the fault was mended, or after it."""
        if not is_mended:
            columns = ("pending", "firing", *FIRST_HALF.get(self.expected.fate, ()))
        else:
            columns = ("resolved", *SECOND_HALF.get(self.expected.fate, ()))
        return [column for column in columns if column not in self.moments]

    def observe(self, watch: Watch, caused: float, mended: float | None) -> None:
        """Note what has been seen by now."""
        tracks = watch.find(self.wanted)
        for state in ("pending", "firing"):
            self._note(state, (m for t in tracks for m in t.came_into(state, caused)))
        enough = watch.stack.seconds(SURELY_HELD) + SURELY_HELD_SECONDS
        for track in tracks:
            for held in track.held:
                since = max(held.since, caused)
                # Until it was gone is as good: alerts of a killed exporter end.
                if held.until > since + (0 if track.ended_held else enough):
                    self._note("held", [since])
        if "held" in self.moments:
            self.holders.update(*(track.holders for track in tracks))
        told = [n for n in watch.inbox.notices if n.tells(self.wanted)]
        for channel, over in zip(TOLD_OF, TOLD_OVER, strict=True):
            by_now = [n for n in told if n.channel == channel and n.moment > caused]
            self._note(channel, (n.moment for n in by_now if not n.is_over))
            # The last word counts: it may have been over before it was mended.
            if mended is not None and channel in self.moments and by_now[-1].is_over:
                self._note(over, [max(mended, by_now[-1].moment)])
        if mended is not None and tracks and all(t.state == "gone" for t in tracks):
            self._note("resolved", [max(mended, *(t.states[-1][0] for t in tracks))])
            self.ended_held = any(t.ended_held for t in tracks)

    def _note(self, name: str, found: Iterable[float]) -> None:
        if name not in self.moments and (moments := list(found)):
            self.moments[name] = min(moments)


class Act:
    """A drill under way."""

    def __init__(self, drill: Drill, scene: Scene) -> None:
        self.drill = drill
        self.scene = scene
        self.caused: float | None = None
        self.mended: float | None = None
        self.ended: float | None = None
        self.lines = [Line(e, self._wanted(e)) for e in drill.expected]
        self._play = PLAYS[drill.name](scene)

    def _wanted(self, expected: Expected) -> Labels:
        labels = {"alertname": expected.alert, "severity": expected.severity}
        instance = self.scene.stack.addresses.get(expected.job)
        if expected.job == HAKGAL:
            instance = self.scene.instance.name
        return labels | expected.labels | ({"instance": instance} if instance else {})

    def observe(self, watch: Watch) -> None:
        """Note what has been seen by now."""
        if self.caused is not None and self.ended is None:
            for line in self.lines:
                line.observe(watch, self.caused, self.mended)

    def missing(self) -> list[str]:
        """Return what is still to be seen in this half."""
        is_mended = self.mended is not None
        lacking = {line: line.lacks(is_mended=is_mended) for line in self.lines}
        return [f"{x.expected.name} {', '.join(n)}" for x, n in lacking.items() if n]

    def go_on(self) -> float:
        """Cause the fault, or mend it, and return when."""
        now = time.monotonic()
        next(self._play, None)
        return now


class Run:
    """All drills, side by side where they may be."""

    def __init__(self, acts: Sequence[Act], watch: Watch, say: Say) -> None:
        self._acts, self._watch, self._say = acts, watch, say
        self._started = self._next_cause = time.monotonic()
        self._instances = {act.drill.instance: act.scene.instance for act in acts}
        self._leaving: list[Instance] = []

    def play(self) -> None:
        """Play until all is over or patience is."""
        while not all(act.ended for act in self._acts):
            self._watch.look()
            for act in self._acts:
                act.observe(self._watch)
                self._step(act, time.monotonic())
            self._retire()
            time.sleep(POLL_SECONDS)

    def _step(self, act: Act, now: float) -> None:
        missing = act.missing()
        if act.caused is None:
            if now >= self._next_cause and self._may_begin(act, now):
                self._next_cause = now + STAGGER_SECONDS
                self._tell(act, act.drill.fault, [])
                act.caused = act.go_on()
        elif act.mended is None:
            same = [a for a in self._acts if a.drill.stage == act.drill.stage]
            is_last = all(a.ended for a in same if a is not act)
            is_done = not missing or now > act.caused + PATIENCE_SECONDS
            if is_done and (is_last or not act.drill.mends_last):
                self._tell(act, "mended", missing)
                act.mended = act.go_on()
        elif not act.ended and (not missing or now > act.mended + PATIENCE_SECONDS):
            self._tell(act, "over", missing)
            act.ended = now

    def _may_begin(self, act: Act, now: float) -> bool:
        before = [a for a in self._acts if a.drill.stage < act.drill.stage]
        before += [a for a in self._acts if a.drill.name in act.drill.after]
        if not all(a.ended for a in before):
            return False
        if not act.drill.ready or now > self._started + PATIENCE_SECONDS:
            return True
        wanted = {"alertname": act.drill.ready, "instance": act.scene.instance.name}
        return any(track.state == "firing" for track in self._watch.find(wanted))

    def _tell(self, act: Act, words: str, missing: list[str]) -> None:
        waiting = f", not seen: {'; '.join(missing)}" if missing else ""
        seconds = time.monotonic() - self._started
        self._say(f"{seconds:6.1f} s  {act.drill.name}: {words}{waiting}")

    def _retire(self) -> None:
        """End instances that are no longer needed, once they are no targets either."""
        needed = {act.drill.instance for act in self._acts if act.ended is None}
        if unneeded := self._instances.keys() - needed:
            self._leaving += [self._instances.pop(name) for name in unneeded]
            names = [instance.name for instance in self._instances.values()]
            self._watch.stack.write_targets("hakgal", names)
        for instance in list(self._leaving):
            if not self._watch.stack.prometheus.query(
                f'up{{instance="{instance.name}"}}'
            ):
                instance.end()
                self._leaving.remove(instance)
