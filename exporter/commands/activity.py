"""What HAK/GAL does, drawn by lot as rows: the part of the simulator without files.

Numbers are those of the old system's simulator. Another behaviour is another
``Behaviour``, not other code.
"""

import hashlib
import random
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import NamedTuple

_NO_TIMES = (-1.0, float("inf"), "soon")
_HIT_SECONDS = (0.0005, 0.005)
_DISTINCT_QUERIES = 1_000
_USERS = 9
_SUBJECTS = ("Computer", "Server", "Network", "Database", "Robot", "Vehicle", "Sensor")
_SUBJECT_NUMBERS = 100_000  # Keeps repeats rare in half a million facts.
_OBJECTS = {
    "HasPart": ("CPU", "Memory", "Disk", "PowerSupply", "Controller", "Antenna"),
    "IsA": ("Machine", "Device", "System", "Product", "Asset"),
    "DependsOn": ("Electricity", "Cooling", "Firmware", "Clock", "License"),
    "LocatedIn": ("Berlin", "Vienna", "Zurich", "Laboratory", "DataCenter"),
    "HasProperty": ("Reliable", "Fast", "Portable", "Expensive", "Redundant"),
}
_PREDICATES = tuple(_OBJECTS)

Change = dict[str, str | float]


class Operation(NamedTuple):
    """A kind of query, and how long it takes at least and at most."""

    query_type: str
    shortest_seconds: float
    longest_seconds: float


@dataclass(frozen=True)
class Behaviour:
    """What happens in a round (one operation, and what may come with it), how often.

    Shares are chances from 0 to 1. The queries of a burst come on top of the round's
    own and all miss the cache, so that of all look-ups fewer hit than ``hit_share``:
    about 70 %. ``slowness`` multiplies all durations, broken queries have one that is
    none, and who is not active does nothing.
    """

    pause_seconds: tuple[float, float] = (0.5, 2.0)
    operations: tuple[Operation, ...] = (
        Operation("search_knowledge", 0.050, 0.150),
        Operation("add_fact", 0.020, 0.080),
        Operation("get_system_status", 0.010, 0.030),
        Operation("health_check", 0.010, 0.020),
        Operation("consistency_check", 0.100, 0.300),
    )
    burst: tuple[Operation, ...] = (Operation("search_knowledge", 0.200, 0.500),) * 5
    burst_share: float = 0.05
    hit_share: float = 0.875
    failure_share: float = 0.02
    removal_share: float = 0.02
    update_share: float = 0.02
    slowness: float = 1.0
    broken_share: float = 0.0
    is_active: bool = True


NORMAL = Behaviour()


@dataclass(frozen=True)
class Totals:
    """What a run has committed, and the time it took."""

    queries: int = 0
    failures: int = 0
    cache_hits: int = 0
    cache_misses: int = 0
    facts_added: int = 0
    facts_removed: int = 0
    facts_updated: int = 0
    audit_rows: int = 0
    seconds: float = field(default=0.0, compare=False)

    def __add__(self, counts: Mapping[str, int]) -> "Totals":
        """Return the sums with counts by field name."""
        sums = {name: getattr(self, name) + count for name, count in counts.items()}
        return replace(self, **sums)

    @property
    def events(self) -> int:
        """Count the rows written, over all tables."""
        lookups = self.cache_hits + self.cache_misses
        return self.queries + lookups + self.facts_added + self.audit_rows

    @property
    def events_per_second(self) -> float:
        """Return the rate reached."""
        return self.events / self.seconds if self.seconds else 0.0


class Batch:
    """Rows drawn and not yet written.

    Queries are ``(query_time, query_type, success)``, lookups ``(hit, cache_key,
    response_time)``, changes the named parameters of a changed fact and its audit row.
    """

    def __init__(self, rng: random.Random, behaviour: Behaviour) -> None:
        self.queries: list[tuple[float | str, str, bool]] = []
        self.lookups: list[tuple[bool, str, float]] = []
        self.changes: list[Change] = []
        self._rng = rng
        self._behaviour = behaviour

    @property
    def rows(self) -> int:
        """Estimate the rows to be written: two for each query or changed fact."""
        return 2 * (len(self.queries) + len(self.changes))

    def add_round(self) -> None:
        """Draw one round."""
        behaviour = self._behaviour
        operation = self._rng.choice(behaviour.operations)
        succeeded = self._add_query(operation, behaviour.hit_share)
        if operation.query_type == "add_fact" and succeeded:
            self._add_change("add_fact")
        if self._happens(behaviour.removal_share):
            self._add_change("delete_fact")
        if self._happens(behaviour.update_share):
            self._add_change("update_fact")
        if self._happens(behaviour.burst_share):
            for slow_operation in behaviour.burst:
                self._add_query(slow_operation, hit_share=0.0)

    def count_queries(self) -> Counter[str]:
        """Count queries and look-ups under their names in ``Totals``."""
        outcomes = Counter(succeeded for _, _, succeeded in self.queries)
        results = Counter(hit for hit, _, _ in self.lookups)
        return Counter(
            queries=outcomes.total(),
            failures=outcomes[False],
            cache_hits=results[True],
            cache_misses=results[False],
        )

    def _add_query(self, operation: Operation, hit_share: float) -> bool:
        query_type, shortest, longest = operation
        duration = self._rng.uniform(shortest, longest) * self._behaviour.slowness
        succeeded = not self._happens(self._behaviour.failure_share)
        hit = self._happens(hit_share)
        query = f"{query_type} {self._rng.randrange(_DISTINCT_QUERIES)}"
        cache_key = hashlib.sha256(query.encode()).hexdigest()[:16]
        response_time = self._rng.uniform(*_HIT_SECONDS) if hit else duration
        noted: float | str = duration
        if self._behaviour.broken_share and self._happens(self._behaviour.broken_share):
            noted = self._rng.choice(_NO_TIMES)
        self.queries.append((noted, query_type, succeeded))
        self.lookups.append((hit, cache_key, response_time))
        return succeeded

    def _add_change(self, operation: str) -> None:
        user = self._rng.randint(1, _USERS)
        change = draw_fact(self._rng)
        change |= {"operation": operation, "place": self._rng.random()}
        change |= {"user_id": f"user-{user}", "session_id": f"session-{user}"}
        self.changes.append(change)

    def _happens(self, share: float) -> bool:
        return self._rng.random() < share


def draw_fact(rng: random.Random) -> Change:
    """Draw a statement, such as ``HasPart(Computer17, CPU).``, and its confidence."""
    predicate = rng.choice(_PREDICATES)
    subject = f"{rng.choice(_SUBJECTS)}{rng.randrange(_SUBJECT_NUMBERS)}"
    statement = f"{predicate}({subject}, {rng.choice(_OBJECTS[predicate])})."
    return {"statement": statement, "confidence": round(rng.uniform(0.5, 1.0), 2)}
