"""Turn what a scrape found into families; failures of collectors into figures."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from prometheus_client.core import Metric

from exporter.collectors import Storage, System, TableCollector, exporter
from exporter.collectors.storage import Measured
from exporter.fold import Counts
from exporter.isolation import Failures, Outcome, isolate
from exporter.tail import Reading, State


@dataclass
class Found:
    """What the parts of one scrape answered, by collector and by database.

    ``noted`` errors belong to a whole database and have been logged as such. Without
    ``had_time``, errors mean nothing to the log.
    """

    readings: dict[str, Outcome[Reading | None]] = field(default_factory=dict)
    storage: dict[str, Outcome[Measured]] = field(default_factory=dict)
    system: Outcome[list[Metric]] | None = None
    up: dict[str, bool] = field(default_factory=dict)
    noted: list[Exception] = field(default_factory=list)
    had_time: bool = True


class Families:
    """Builds all families of the page."""

    def __init__(
        self,
        collectors: Mapping[str, TableCollector],
        storage: Storage,
        failures: Failures,
    ) -> None:
        self._collectors = collectors
        self._tables = {c.table.name: c.table for c in collectors.values()}
        self._storage = storage
        self._failures = failures
        self._build_info = exporter.build_info()
        # The state is kept with its families, so that its id is not given out again.
        self._built: dict[str, tuple[tuple[object, ...], State, list[Metric]]] = {}
        self._trouble: tuple[dict[str, State], list[Metric]] = ({}, [])

    def build(
        self, found: Found, shown: Mapping[str, State], saved_at: float | None
    ) -> list[Metric]:
        """Return what was found as families.

        Args:
            shown: the states that the checkpoint covers, by table.
            saved_at: time of that checkpoint in seconds since the epoch.
        """
        outcomes: dict[str, Outcome[list[Metric]]] = {}
        readings: dict[str, Reading] = {}
        for name, outcome in found.readings.items():
            outcomes[name] = self._table_families(name, outcome, shown)
            if outcome.result:
                readings[self._collectors[name].table.name] = outcome.result
        if found.storage:
            outcomes["storage"] = self._storage_families(found.storage)
        if found.system:
            outcomes["system"] = found.system
        for name, built in outcomes.items():
            if built.error not in found.noted and (found.had_time or not built.error):
                self._failures.note(name, built.error)
        known = {
            table: shown[table]
            for table in self._tables
            if table in shown and _is_followed(readings.get(table))
        }
        if not self._trouble[1] or not _are_same(known, self._trouble[0]):
            self._trouble = (known, list(exporter.trouble(self._tables, known)))
        return [
            exporter.up(found.up),
            *(family for built in outcomes.values() for family in built.result or ()),
            self._build_info,
            *exporter.outcomes(outcomes),
            *exporter.freshness(readings, known),
            *self._trouble[1],
            exporter.checkpoint(saved_at),
        ]

    def describe(self) -> Iterator[Metric]:
        """Yield every family, from states and readings of nothing."""
        for collector in self._collectors.values():
            state = State(Counts.zero(collector.table))
            reading = Reading(state, collector.table, 0, None)
            yield from collector.families(state, reading)
        yield from self._storage.families({})
        yield from System({}).families()
        yield from self.build(Found(), {}, None)

    def _table_families(
        self,
        name: str,
        outcome: Outcome[Reading | None],
        shown: Mapping[str, State],
    ) -> Outcome[list[Metric]]:
        """Return the families of a table; of what it counts, none while it is first
        read, or where its rows cannot be followed."""
        collector, reading = self._collectors[name], outcome.result
        if reading is None:
            return Outcome([], outcome.error, outcome.seconds)
        is_followed = reading.table.is_followed
        state = shown.get(collector.table.name) if is_followed else None
        if state is None:
            built = isolate(lambda: checked(collector.families(None, reading)))
            return Outcome(built.result, built.error, outcome.seconds + built.seconds)
        key = (id(state), reading.table, reading.rows, reading.last_event)
        cached = self._built.get(name)
        if cached and cached[0] == key:
            return Outcome(cached[2], None, outcome.seconds)
        built = isolate(lambda: checked(collector.families(state, reading)))
        if built.result is not None:
            self._built[name] = (key, state, built.result)
        return Outcome(built.result, built.error, outcome.seconds + built.seconds)

    def _storage_families(
        self, found: Mapping[str, Outcome[Measured]]
    ) -> Outcome[list[Metric]]:
        """Return the families of the files that could be read."""
        measured = {name: o.result for name, o in found.items() if o.result}
        built = isolate(lambda: checked(self._storage.families(measured)))
        parts: list[Outcome[Any]] = [*found.values(), built]
        errors = [part.error for part in parts if part.error]
        seconds = sum(part.seconds for part in parts)
        return Outcome(built.result, errors[0] if errors else None, seconds)


def _is_followed(reading: Reading | None) -> bool:
    return reading is None or reading.table.is_followed


def _are_same(states: Mapping[str, State], others: Mapping[str, State]) -> bool:
    return states.keys() == others.keys() and all(
        others[table] is state for table, state in states.items()
    )


def checked(families: Iterable[Metric]) -> list[Metric]:
    """Return the families if the client library can write them.

    It fails on a wrong type only while it writes the page, where one bad value costs
    everything.

    Raises:
        TypeError: a label is not text or a value not a number.
    """
    complete = list(families)
    for family in complete:
        for sample in family.samples:
            texts = all(isinstance(label, str) for label in sample.labels.values())
            if not texts or not isinstance(sample.value, int | float):
                raise TypeError(f"{sample.name}: bad label or value in {sample!r}")
    return complete
