"""docs/alerts.md says of each alert what its rules say."""

import re

import pytest

from tests.contract.metrics import table_in
from tests.prometheus.shipped import ALERTS, THRESHOLDS, value_of

ROWS = {row[0]: row[1:] for row in table_in("docs/alerts.md", "Alerts")}
NAMES = list(dict.fromkeys(alert.name for alert in ALERTS))
UNITS = {"s": 1, "min": 60, "h": 3600, "d": 86400}


def link(name: str) -> str:
    return f"[{name}](runbooks.md#{name.lower()})"


def show(value: float, unit: str) -> str:
    """Return a limit as people write it: 0.1 s, 80 %, 256 MiB, 10,000 rows."""
    if unit == "ratio":
        return f"{value:.0%}".replace("%", " %")
    if unit == "bytes":
        power = max(n for n in range(5) if value >= 1024**n)
        return f"{value / 1024**power:g} {('B', 'KiB', 'MiB', 'GiB', 'TiB')[power]}"
    if unit == "seconds":
        fitting = [(n, u) for u, n in UNITS.items() if value >= n] or [(1, "s")]
        length, symbol = max(fitting)
        return f"{value / length:g} {symbol}"
    return f"{value:,.0f} {unit}"


def test_alerts_are_listed_in_the_order_of_the_rules() -> None:
    """The objectives, from a file of their own, stand with what is right or wrong."""
    order = [name for name in NAMES if name != "HakgalErrorBudgetBurn"]
    order.insert(order.index("HakgalCountersReset"), "HakgalErrorBudgetBurn")

    assert list(ROWS) == [link(name) for name in order]


@pytest.mark.parametrize("name", NAMES)
def test_row_says_severity_limits_and_for(name: str) -> None:
    severity, fires_when, limit, hold = ROWS[link(name)]
    alerts = [alert for alert in ALERTS if alert.name == name]
    alerts.sort(key=lambda alert: alert.severity, reverse=True)
    limits = {
        show(value_of(rule), rule.labels["unit"])
        for alert in alerts
        for quantity, wanted in alert.limits
        for key, rule in THRESHOLDS[quantity].items()
        if wanted in (key, "")
    }

    assert severity == " / ".join(alert.severity for alert in alerts)
    assert fires_when
    assert set(re.split(" / | and | or |; ", limit)) - {""} == limits
    assert hold == " / ".join(dict.fromkeys(alert.hold for alert in alerts))
