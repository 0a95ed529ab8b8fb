"""What became of each alert, and when, as seen from outside."""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any, Self

from tests.drill.stack import Stack

POLL_SECONDS = 0.2
Labels = dict[str, str]


@dataclass
class Track:
    """One alert: since when it has been what, on the monotonic clock.

    ``states`` are pending, firing and gone, as Prometheus says; ``routed`` are active,
    suppressed and gone, as Alertmanager says.
    """

    labels: Labels
    states: list[tuple[float, str]] = field(default_factory=list)
    routed: list[tuple[float, str]] = field(default_factory=list)
    holders: set[str] = field(default_factory=set)

    @property
    def is_gone(self) -> bool:
        """Whether Prometheus has it no more."""
        return bool(self.states) and self.states[-1][1] == "gone"

    def state_at(self, moment: float) -> str:
        """Return what Prometheus said then."""
        return next((s for m, s in reversed(self.states) if m <= moment), "gone")

    @property
    def held(self) -> list[tuple[float, float]]:
        """Return from when to when Alertmanager has held it back."""
        ends = [moment for moment, _ in self.routed[1:]] + [float("inf")]
        spans = zip(self.routed, ends, strict=False)
        return [(start, end) for (start, what), end in spans if what == "suppressed"]

    def note(self, log: list[tuple[float, str]], state: str, moment: float) -> None:
        """Note a state if it is a new one."""
        if not log or log[-1][1] != state:
            log.append((moment, state))


class Watch:
    """Looks at Prometheus and Alertmanager all the time."""

    def __init__(self, stack: Stack) -> None:
        self.tracks: dict[frozenset[tuple[str, str]], Track] = {}
        self.error: Exception | None = None
        self._stack = stack
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self._stop.set()
        self._thread.join()

    def find(self, wanted: Labels) -> list[Track]:
        """Return the alerts that have these labels."""
        items = wanted.items()
        return [t for t in list(self.tracks.values()) if items <= t.labels.items()]

    def _run(self) -> None:
        try:
            self._look_until_stopped()
        except Exception as error:  # raised again where it can be reported
            self.error = error

    def _look_until_stopped(self) -> None:
        while not self._stop.wait(POLL_SECONDS):
            self._look(self._stack.alerts, self._note_states)
            self._look(self._stack.routed, self._note_routes)
            self._stack.inbox.look()

    def _look(
        self,
        ask: Callable[[], list[dict[str, Any]]],
        note: Callable[[list[dict[str, Any]]], None],
    ) -> None:
        try:
            found = ask()
        except (OSError, HTTPException):
            return  # it is part of the drill to stop them
        note(found)

    def _track(self, labels: Labels) -> Track:
        return self.tracks.setdefault(frozenset(labels.items()), Track(labels))

    def _note_states(self, found: list[dict[str, Any]]) -> None:
        now, clock = time.monotonic(), datetime.now(UTC)
        seen = []
        for alert in found:
            track = self._track(alert["labels"])
            seen.append(track)
            if not track.states or track.states[-1][1] == "gone":
                track.note(track.states, "pending", now - _age(alert, clock))
            track.note(track.states, alert["state"], now)
        for track in self.tracks.values():
            if track.states and track not in seen:
                track.note(track.states, "gone", now)

    def _note_routes(self, found: list[dict[str, Any]]) -> None:
        now = time.monotonic()
        seen = []
        names = {alert["fingerprint"]: alert["labels"]["alertname"] for alert in found}
        for alert in found:
            status = alert["status"]
            if track := self._track_routed(alert["labels"]):
                seen.append(track)
                track.note(track.routed, status["state"], now)
                track.holders |= {names[f] for f in status["inhibitedBy"] if f in names}
        for track in self.tracks.values():
            if track.routed and track not in seen:
                track.note(track.routed, "gone", now)

    def _track_routed(self, labels: Labels) -> Track | None:
        """Return the track of an alert that has external labels as well."""
        matching = [
            t for t in self.tracks.values() if t.labels.items() <= labels.items()
        ]
        return max(matching, key=lambda t: len(t.labels), default=None)


def _age(alert: dict[str, Any], clock: datetime) -> float:
    # Nanoseconds are more than datetime takes.
    text = alert["activeAt"].rstrip("Z")
    whole, _, fraction = text.partition(".")
    since = datetime.fromisoformat(f"{whole}.{fraction[:6]:0<6}+00:00")
    return (clock - since).total_seconds()
