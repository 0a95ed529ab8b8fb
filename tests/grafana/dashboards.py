"""The shipped dashboards as tests see them, and queries as Grafana sends them."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tests.servers import ROOT

GRAFANA = ROOT / "grafana"
FILES = sorted((GRAFANA / "dashboards").glob("*.json"))
MAY_BE_EMPTY = "Empty when all is well."
# What Grafana fills in: all is chosen, 6 h are shown on a panel of 360 points.
FILLED = {"$__rate_interval": "1m", "$__interval_ms": "60000", "$__range": "6h"}
FILLED |= {"$__interval": "60s", "$__from": "0", "$job": ".+", "$instance": ".+"}

Json = dict[str, Any]


@dataclass(frozen=True)
class Panel:
    """A panel, and the dashboard that it is on."""

    dashboard: str
    json: Json

    @property
    def name(self) -> str:
        return f"{self.dashboard}/{self.json['title']}"

    @property
    def kind(self) -> str:
        return str(self.json["type"])

    @property
    def targets(self) -> list[Json]:
        return list(self.json.get("targets", ()))

    @property
    def colours(self) -> list[str]:
        """Return the colour of each target of a stat of which only one answers."""
        overrides = json.dumps(self.json["fieldConfig"]["overrides"])
        each = r'byFrameRefID.+?"fixedColor": "([^"]+)"'
        return re.findall(each, overrides) if self.kind == "stat" else []

    @property
    def may_be_empty(self) -> bool:
        return str(self.json["description"]).endswith(MAY_BE_EMPTY)


def load() -> dict[str, Json]:
    """Return the dashboards by uid."""
    dashboards = [json.loads(file.read_text()) for file in FILES]
    return {dashboard["uid"]: dashboard for dashboard in dashboards}


def panels() -> Iterator[Panel]:
    """Yield all panels of all dashboards."""
    for uid, dashboard in load().items():
        for panel in dashboard["panels"]:
            yield Panel(uid, panel)


def fill(expression: str, **chosen: str) -> str:
    """Return an expression with Grafana's variables replaced."""
    values = FILLED | {f"${name}": value for name, value in chosen.items()}
    for name in sorted(values, key=len, reverse=True):
        expression = expression.replace(name, values[name])
    assert "$" not in re.sub(r'"\$\d"', "", expression), expression
    return expression
