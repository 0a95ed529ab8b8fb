"""Where a drill plays: one instance, and the servers that all share."""

from dataclasses import dataclass

from tests.drill.grafana import Grafana
from tests.drill.instance import Instance
from tests.drill.stack import Stack

# Rows a second of a HAK/GAL without much to do, a fifth of the demo's; where time
# passes faster, it writes faster.
RATE = 0.5


@dataclass
class Scene:
    """What the acts of a drill act upon."""

    stack: Stack
    instance: Instance
    grafana: Grafana

    def write(self, *flags: str, times: float = 1.0) -> None:
        """Let HAK/GAL write so many times its usual pace, instead of what it did."""
        self.instance.stop_writing()
        rate = RATE * self.stack.factor * times
        self.instance.write(f"--rate={rate}", *flags)
