"""The rules that are shipped, and what an expression of PromQL asks for."""

import re
from typing import Any, NamedTuple

import yaml

from tests.servers import ROOT

FILES = sorted((ROOT / "prometheus" / "rules").glob("*.yml"))
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|without|on|ignoring|group_left)\s*\(([^)]*)\)")
# Strings outside of braces are arguments, such as those of label_replace.
SELECTOR = re.compile(
    r""""[^"]*" |
        (?: (?P<function>\w+) \(\s* )?
        (?<![\w:.$]) (?P<metric> [a-zA-Z_:][\w:]* ) (?![\w:]*\s*\()
        (?: \{ (?P<matchers> [^}]* ) \} )?
        (?: \[ (?P<range> [^]]+ ) \] )?""",
    re.VERBOSE,
)
SECONDS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
KEYWORDS = {"and", "or", "unless", "offset", "bool"}


class Selector(NamedTuple):
    """A metric, with its matchers and the function and range around it."""

    metric: str
    function: str
    matchers: frozenset[tuple[str, str, str]]
    range: str

    @property
    def values(self) -> dict[str, str]:
        """Return what labels are compared with, however."""
        return {label: value for label, _, value in self.matchers}

    @property
    def is_foreign(self) -> bool:
        """Tell whether Prometheus or Alertmanager shows it of itself."""
        return self.metric.startswith(("prometheus_", "alertmanager_"))


def length(duration: str) -> int:
    """Return the seconds of a duration such as ``1h30m``."""
    return sum(int(n) * SECONDS[u] for n, u in re.findall(r"(\d+)([smhd])", duration))


def selectors(expression: str) -> list[Selector]:
    """Return the metrics of an expression."""
    found = SELECTOR.finditer(GROUPING.sub(" ", expression))
    return [
        Selector(
            match["metric"],
            match["function"] or "",
            frozenset(MATCHER.findall(match["matchers"] or "")),
            match["range"] or "",
        )
        for match in found
        if match["metric"] and match["metric"] not in KEYWORDS
    ]


class Rule:
    """A rule as its file has it."""

    def __init__(self, rule: dict[str, Any], group: str) -> None:
        self.name: str = rule.get("alert") or rule["record"]
        self.recorded = "record" in rule
        self.expr = str(rule["expr"])
        self.labels: dict[str, str] = rule.get("labels", {})
        self.severity = self.labels.get("severity", "")
        self.annotations: dict[str, str] = rule.get("annotations", {})
        self.hold: str = rule.get("for", "")
        self.group = group
        self.id = "-".join([self.name, *self.labels.values()])
        self.selectors = selectors(self.expr)

    @property
    def limits(self) -> set[tuple[str, str]]:
        """Return the limits that it compares with, as (quantity, severity)."""
        return {
            (found[1], selector.values.get("severity", ""))
            for selector in self.selectors
            if (found := re.fullmatch(r"\w+:hakgal_(\w+):threshold", selector.metric))
        }


RULES = [
    Rule(rule, group["name"])
    for file in FILES
    for group in yaml.safe_load(file.read_text())["groups"]
    for rule in group["rules"]
]
ALERTS = [rule for rule in RULES if not rule.recorded]
RECORDED = {rule.name for rule in RULES if rule.recorded}
# The limits by quantity, and by severity or objective.
THRESHOLDS: dict[str, dict[str, Rule]] = {}
for _rule in RULES:
    if _rule.group == "hakgal-thresholds":
        _key = _rule.labels.get("severity") or _rule.labels.get("slo") or ""
        THRESHOLDS.setdefault(_rule.name.split(":")[1], {})[_key] = _rule


def value_of(limit: Rule) -> float:
    """Return the value of a limit such as ``256 * 1024^2``."""
    return float(eval(limit.expr.replace("^", "**")))
