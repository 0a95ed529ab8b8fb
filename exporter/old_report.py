"""What became of the old monitor's settings, to be shown and copied."""

import json
from typing import NamedTuple


class Limit(NamedTuple):
    """A threshold's series, and how an old number becomes one of it.

    ``warning`` and ``critical`` are what the file has, so that what equals it need not
    be written, and what crosses it does not stay unseen.
    """

    quantity: str
    unit: str
    divisor: int
    warning: float
    critical: float
    low_is_bad: bool = False


LIMITS = {
    "query_latency_ms": Limit("query_duration_seconds", "seconds", 1000, 0.1, 0.5),
    "cache_hit_rate_percent": Limit(
        "cache_hits_per_lookup", "ratio", 100, 0.8, 0.5, low_is_bad=True
    ),
    "cpu_percent": Limit("cpu_utilisation", "ratio", 100, 0.8, 0.95),
    "memory_percent": Limit("memory_utilisation", "ratio", 100, 0.85, 0.95),
}
# Of a threshold in the form {"max": 90, "critical": 95}.
SEVERITIES = {"warning": "warning", "max": "warning", "min": "warning"}
SEVERITIES["critical"] = "critical"


class Report:
    """What is to be put where: a line a key, and what to copy."""

    def __init__(self) -> None:
        self.found: list[str] = []
        self.problems: list[str] = []
        self.settings: dict[str, str] = {}
        self.limits: dict[tuple[str, str], tuple[Limit, float]] = {}
        self.host, self.port = "0.0.0.0", 8000

    @property
    def instance(self) -> str:
        """The exporter as Prometheus will call it."""
        return f"localhost:{self.port}"

    def say(self, key: str, value: object, where: str) -> None:
        """Add what becomes of a key."""
        self.found.append(f"{key} {json.dumps(value)}: {where}")

    def refuse(self, key: str, value: object, wanted: str) -> None:
        """Add a value that the old monitor could not have meant."""
        self.problems.append(f"{key}: got {json.dumps(value)}, want {wanted}")
