"""What becomes of each alert: in Prometheus, in Alertmanager, in people's inboxes."""

import contextlib
import time
from dataclasses import dataclass, field
from datetime import UTC, datetime
from http.client import HTTPException
from typing import Any

from tests.drill.inbox import Inbox
from tests.drill.stack import Stack

Labels = dict[str, str]
# A message may still be on its way when its alert is held back.
ON_ITS_WAY_SECONDS = 5.0


@dataclass
class Held:
    """An alert was held back in every look from one moment to another."""

    since: float
    until: float


@dataclass(eq=False)
class Track:
    """One alert: when it became what, on the monotonic clock."""

    labels: Labels
    # Pending, firing and gone, as Prometheus says.
    states: list[tuple[float, str]] = field(default_factory=list)
    held: list[Held] = field(default_factory=list)
    holders: set[str] = field(default_factory=set)
    is_held: bool = False
    ended_held: bool = False

    @property
    def state(self) -> str:
        """What Prometheus said last."""
        return self.states[-1][1] if self.states else "gone"

    def note(self, moment: float, state: str) -> None:
        """Note a state if it is a new one."""
        if self.state != state:
            self.states.append((moment, state))
            self.ended_held = state == "gone" and self.is_held

    def came_into(self, state: str, after: float) -> list[float]:
        """Return when it came into a state; ``after``, if it was in it already."""
        before = [name for moment, name in self.states if moment <= after]
        found = [m for m, name in self.states if name == state and m > after]
        return [after, *found] if before[-1:] in (["firing"], [state]) else found


class Watch:
    """Looks at everything, again and again."""

    def __init__(self, stack: Stack, inbox: Inbox) -> None:
        self.stack = stack
        self.inbox = inbox
        self.tracks: dict[frozenset[tuple[str, str]], Track] = {}

    def find(self, wanted: Labels) -> list[Track]:
        """Return the alerts that have these labels."""
        items = wanted.items()
        return [t for t in self.tracks.values() if items <= t.labels.items()]

    def look(self) -> None:
        """Look once; it is part of the drill that servers do not answer."""
        with contextlib.suppress(OSError, HTTPException):
            self._note_states(self.stack.prometheus.api("alerts")["alerts"])
        asked, routed = time.monotonic(), []
        with contextlib.suppress(OSError, HTTPException):
            routed = self.stack.routes.alerts()
        self._note_held(routed, asked)
        self.inbox.look()

    def _track(self, labels: Labels) -> Track:
        return self.tracks.setdefault(frozenset(labels.items()), Track(labels))

    def _note_states(self, alerts: list[dict[str, Any]]) -> None:
        now = time.monotonic()
        seen = set()
        for alert in alerts:
            seen.add(track := self._track(alert["labels"]))
            if track.state == "gone":
                track.note(now - _age(alert["activeAt"]), "pending")
            track.note(now, alert["state"])
        for track in {*self.tracks.values()} - seen:
            track.note(now, "gone")

    def _note_held(self, routed: list[dict[str, Any]], asked: float) -> None:
        names = {alert["fingerprint"]: alert["labels"]["alertname"] for alert in routed}
        held = set()
        for alert in routed:
            if alert["status"]["state"] == "suppressed":
                held.add(track := self._track(alert["labels"]))
                if not track.is_held:
                    track.held.append(Held(time.monotonic(), asked))
                track.held[-1].until = asked
                holders = alert["status"]["inhibitedBy"]
                track.holders |= {names[h] for h in holders if h in names}
        for track in self.tracks.values():
            track.is_held = track in held

    def leaked(self, wanted: Labels, before: float) -> bool:
        """Tell whether an alert was told of while it was held back, until a moment."""
        return any(
            held.since + ON_ITS_WAY_SECONDS < notice.since
            and notice.moment < min(held.until, before)
            for track in self.find(wanted)
            for held in track.held
            for notice in self.inbox.notices
            if not notice.is_over and notice.tells(track.labels)
        )


def _age(moment: str) -> float:
    """Return the seconds since a moment with nanoseconds, more than datetime takes."""
    whole, _, fraction = moment.rstrip("Z").partition(".")
    since = datetime.fromisoformat(f"{whole}.{fraction[:6]:0<6}+00:00")
    return (datetime.now(UTC) - since).total_seconds()
