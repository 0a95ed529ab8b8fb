"""What is drilled: faults, how they are caused and mended, and who is to hear of them.

Each fault has an instance of its own, so that all can be caused within seconds and
none disturbs another.
"""

import json
import sqlite3
from collections.abc import Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field

from exporter.commands.simulate import create
from tests.drill.scene import Scene

Labels = dict[str, str]
Limits = dict[str, dict[str, float]]
Act = Callable[[Scene], None]

# Two series for each instance on either side: nobody can say which belong together.
BROKEN_RULE = """
groups:
  - name: broken
    rules:
      - record: instance:broken:sum
        expr: hakgal_up + on (instance) hakgal_up
"""

# What no test should have to cause: a machine without processor time or memory. The
# limits are of one instance, as thresholds.yml explains.
_NOTHING = {"warning": 0.0001, "critical": 0.0002}
_ENDLESS = {"warning": 1000.0, "critical": 2000.0}
LOWERED: Limits = {
    "scrape_duration_seconds": _NOTHING,
    "cpu_utilisation": _NOTHING,
    "memory_utilisation": _NOTHING,
    "disk_utilisation": _NOTHING,
}

# What is to become of an alert.
TOLD = "told"  # by mail and webhook, and again when it is over
HELD = "held back"  # by an alert that says more
SHOWN = "shown"  # to who looks; nobody is told of severity info
UNHEARD = "unheard"  # there is nobody to tell it
LATE = "told late"  # once there is somebody again

EVERYTHING = ("*",)  # all drills that do not themselves wait for others

HAKGAL, PROMETHEUS = "hakgal", "prometheus"
ALERTMANAGER, GRAFANA = "alertmanager", "grafana"


@dataclass(frozen=True)
class Expected:
    """An alert that a fault is to cause, on a target of this job, or on none.

    ``stays`` is for one that the demo's usual load is enough for.
    """

    alert: str
    severity: str
    labels: Labels = field(default_factory=dict)
    fate: str = TOLD
    job: str = HAKGAL
    stays: bool = False


@dataclass(frozen=True)
class Drill:
    """A fault and what is to come of it.

    Args:
        name: of the drill.
        fault: in words, for the table.
        before: done to the instance at the very start.
        ready: an alert that must fire there before the fault is caused.
        after: names of drills that must be over before.
        place: name of the drill whose instance it uses, if not one of its own.
        flags: of its exporter.
        limits: thresholds of this instance, by quantity and severity.
    """

    name: str
    fault: str
    expected: tuple[Expected, ...]
    cause: Act
    mend: Act
    before: Act | None = None
    ready: str = ""
    after: tuple[str, ...] = ()
    limits: Limits = field(default_factory=dict)
    place: str = ""
    flags: tuple[str, ...] = ()

    @property
    def instance(self) -> str:
        """Return the name of the instance."""
        return self.place or self.name


def own_limits(instance: str, limits: Limits) -> str:
    """Return the rule file that gives an instance limits of its own."""
    rules = [
        {
            "record": f"hakgal:{quantity}:threshold",
            "expr": f"{limit:f}",
            "labels": {"severity": severity, "instance": instance},
        }
        for quantity, twins in limits.items()
        for severity, limit in twins.items()
    ]
    groups = [{"name": f"own limits of {instance}", "rules": rules}]
    return json.dumps({"groups": groups}, indent=2)


def calm(scene: Scene) -> None:
    """Let HAK/GAL write as usual, and end what goes wrong."""
    scene.write()


def many(scene: Scene) -> None:
    """Let it have so many good queries that the bad ones no longer count."""
    scene.write(times=150)


def fault(*names: str, times: float = 1.0) -> Act:
    """Return what lets HAK/GAL do wrong."""
    flags = [f"--fault={name}" for name in names]
    return lambda scene: scene.write(*flags, times=times)


def leave(scene: Scene) -> None:
    """Do nothing: it ends by itself."""


def twins(alert: str, **labels: str) -> tuple[Expected, Expected]:
    """Return an alert whose critical form holds its warning back."""
    return (
        Expected(alert, "critical", labels),
        Expected(alert, "warning", labels, HELD),
    )


def collectors(*names: str) -> tuple[Expected, ...]:
    """Return what an unreadable database makes of these collectors' alerts."""
    alert = "HakgalCollectorFailing"
    return tuple(Expected(alert, "warning", {"collector": n}, HELD) for n in names)


def move_away(scene: Scene) -> None:
    scene.instance.stop_writing()
    scene.instance.move_away()


def move_back(scene: Scene) -> None:
    scene.instance.move_back()
    scene.write()


def drop_table(scene: Scene) -> None:
    scene.instance.stop_writing()
    with closing(sqlite3.connect(scene.instance.knowledge_base)) as db:
        db.execute("DROP TABLE audit_log")


def make_table(scene: Scene) -> None:
    create(scene.instance.knowledge_base, scene.instance.performance)


def replace_file(scene: Scene) -> None:
    scene.instance.stop_writing()
    scene.instance.performance.unlink()
    scene.write()


def block_state(scene: Scene) -> None:
    # A folder where the file is to be written: works for root, too.
    obstacle = scene.instance.obstacle
    while not obstacle.is_dir():
        with suppress(FileExistsError):  # the state is being written right now
            obstacle.mkdir()


def free_state(scene: Scene) -> None:
    scene.instance.obstacle.rmdir()
    scene.write()


def kill_exporter(scene: Scene) -> None:
    scene.instance.exporter.kill()


def start_exporter(scene: Scene) -> None:
    scene.write()
    scene.instance.exporter.start()


def break_configuration(scene: Scene) -> None:
    for file in scene.stack.configurations:
        scene.stack.edit(file, lambda text: text + "\nno_such_option: 1\n")


def mend_configuration(scene: Scene) -> None:
    scene.stack.restore(*scene.stack.configurations)


def break_rules(scene: Scene) -> None:
    scene.stack.edit(scene.stack.rules / "thresholds.yml", without_cpu_threshold)
    scene.stack.edit(scene.stack.rules / "broken.yml", lambda _: BROKEN_RULE)


def mend_rules(scene: Scene) -> None:
    rules = scene.stack.rules
    scene.stack.restore(rules / "thresholds.yml", rules / "broken.yml")


def lower_limits(scene: Scene) -> None:
    text = own_limits(scene.instance.name, LOWERED)
    scene.stack.edit(scene.stack.rules / "lowered.yml", lambda _: text)


def raise_limits(scene: Scene) -> None:
    # Not back to the shipped ones: the machine may really be busy.
    text = own_limits(scene.instance.name, dict.fromkeys(LOWERED, _ENDLESS))
    scene.stack.edit(scene.stack.rules / "lowered.yml", lambda _: text)


def fill_page(scene: Scene) -> None:
    scene.grafana.samples = 20_001  # one more than prometheus.yml allows


def shorten_page(scene: Scene) -> None:
    scene.grafana.samples = 1


def kill_alertmanager(scene: Scene) -> None:
    scene.stack.alertmanager.kill()
    scene.stack.alertmanager.wait()


def forget_alertmanager(scene: Scene) -> None:
    targets = scene.stack.folder / "prometheus" / "targets" / "alertmanager.yml"
    scene.stack.edit(targets, lambda _: "[]")


def find_alertmanager(scene: Scene) -> None:
    targets = scene.stack.folder / "prometheus" / "targets" / "alertmanager.yml"
    scene.stack.restore(targets)


def without_cpu_threshold(text: str) -> str:
    """Return the thresholds without those of one quantity."""
    lines = text.splitlines(keepends=True)
    return "".join(line for line in lines if "record: hakgal:cpu_util" not in line)


DRILLS = (
    Drill(
        "calm",
        "none: the demo's usual load",
        (
            Expected("HakgalQueryLatencyHigh", "warning"),
            Expected("HakgalCacheHitRatioLow", "warning"),
        ),
        cause=calm,
        mend=lambda scene: scene.instance.stop_writing(),
    ),
    Drill(
        "queries",
        "simulate --fault=slow-queries --fault=failures --fault=cache-misses",
        (
            Expected("HakgalQueryLatencyHigh", "critical"),
            Expected("HakgalQueryLatencyHigh", "warning", {}, HELD, stays=True),
            *twins("HakgalQueryFailuresHigh"),
            Expected("HakgalCacheHitRatioLow", "critical"),
            Expected("HakgalCacheHitRatioLow", "warning", {}, HELD, stays=True),
            *twins("HakgalErrorBudgetBurn", slo="query_latency"),
            *twins("HakgalErrorBudgetBurn", slo="query_success"),
        ),
        before=calm,
        cause=fault("slow-queries", "failures", "cache-misses"),
        mend=many,
    ),
    Drill(
        "no-writes",
        "simulate --fault=no-writes",
        (
            Expected("HakgalEventsStalled", "warning"),
            Expected("HakgalEventsStalled", "critical"),
        ),
        before=calm,
        ready="HakgalQueryLatencyHigh",
        cause=fault("no-writes"),
        mend=calm,
    ),
    Drill(
        "lock",
        "simulate --fault=lock",
        (
            Expected("HakgalDatabaseDown", "critical", {"database": "knowledge_base"}),
            Expected("HakgalDatabaseDown", "critical", {"database": "performance"}),
            *collectors("facts", "audit", "queries", "cache", "storage"),
        ),
        cause=fault("lock"),
        mend=calm,
    ),
    Drill(
        "moved",
        "performance database moved away",
        (
            Expected("HakgalDatabaseDown", "critical", {"database": "performance"}),
            Expected("HakgalQueryFailuresHigh", "critical", {}, HELD),
            *collectors("queries", "cache", "storage"),
        ),
        before=fault("failures"),
        ready="HakgalQueryFailuresHigh",
        cause=move_away,
        mend=move_back,
    ),
    Drill(
        "killed",
        "exporter killed",
        (
            Expected("HakgalExporterDown", "critical"),
            Expected("HakgalQueryFailuresHigh", "critical", {}, HELD),
            Expected("HakgalCacheHitRatioLow", "warning", {}, HELD, stays=True),
        ),
        before=fault("failures"),
        ready="HakgalCacheHitRatioLow",
        cause=kill_exporter,
        mend=start_exporter,
    ),
    Drill(
        "table",
        "table audit_log dropped",
        (Expected("HakgalCollectorFailing", "warning", {"collector": "audit"}),),
        cause=drop_table,
        mend=make_table,
    ),
    Drill(
        "replaced",
        "performance database replaced by an empty one",
        (
            Expected("HakgalCountersReset", "info", {"table": "query_times"}, SHOWN),
            Expected("HakgalCountersReset", "info", {"table": "cache_events"}, SHOWN),
        ),
        before=calm,
        ready="HakgalQueryLatencyHigh",
        cause=replace_file,
        mend=leave,
    ),
    Drill(
        "facts-and-logs",
        "simulate --fault=facts-lost --fault=wal-growth",
        (
            *twins("HakgalFactsDropped"),
            *twins("HakgalWalGrowing", database="performance"),
        ),
        cause=fault("facts-lost", "wal-growth", times=10),
        mend=many,
        limits={"wal_size_bytes": {"warning": 2**21, "critical": 2**22}},
    ),
    Drill(
        "prune-unread",
        "simulate --fault=prune-unread",
        (
            Expected("HakgalRowsMissed", "warning", {"table": "query_times"}),
            Expected("HakgalRowsMissed", "warning", {"table": "cache_events"}),
        ),
        cause=fault("prune-unread"),
        mend=calm,
    ),
    Drill(
        "odd-rows",
        "simulate --fault=broken-rows --fault=query-types",
        (
            Expected("HakgalRowsRejected", "warning", {"table": "query_times"}),
            Expected("HakgalLabelsOverflowing", "info", {}, SHOWN),
        ),
        cause=fault("broken-rows", "query-types"),
        mend=calm,
        # With 100 query types, the servers of the drill would be busy with these only.
        flags=("--label.limit=10",),
    ),
    Drill(
        "state",
        "state file cannot be written",
        (
            Expected("HakgalCheckpointNotWritten", "warning"),
            Expected("HakgalCheckpointNotWritten", "critical"),
            Expected("HakgalBacklogGrowing", "warning", {"table": "query_times"}),
            Expected("HakgalBacklogGrowing", "warning", {"table": "cache_events"}),
        ),
        before=lambda scene: scene.write(times=200),
        cause=block_state,
        mend=free_state,
    ),
    Drill(
        "lowered",
        "limits of one instance set below what is",
        (
            *twins("HakgalScrapeSlow"),
            *twins("HakgalCpuHigh"),
            *twins("HakgalMemoryHigh"),
            Expected("HakgalDiskFilling", "critical", {"database": "performance"}),
        ),
        cause=lower_limits,
        place="calm",
        mend=raise_limits,
    ),
    Drill(
        "rules",
        "a limit removed, and a rule added that fails",
        (
            Expected("HakgalThresholdMissing", "warning", job=""),
            Expected("PrometheusRuleEvaluationFailing", "critical", job=PROMETHEUS),
        ),
        cause=break_rules,
        place="calm",
        mend=mend_rules,
    ),
    Drill(
        "configuration",
        "both configurations broken and reloaded",
        (
            Expected("PrometheusConfigReloadFailed", "warning", job=PROMETHEUS),
            Expected("AlertmanagerConfigReloadFailed", "warning", job=ALERTMANAGER),
        ),
        cause=break_configuration,
        place="calm",
        mend=mend_configuration,
        after=("rules", "lowered"),
    ),
    Drill(
        "slack",
        "Slack's URL leads nowhere",
        (Expected("AlertmanagerNotificationsFailing", "critical", job=ALERTMANAGER),),
        cause=lambda scene: scene.stack.disconnect_slack(),
        place="calm",
        mend=lambda scene: scene.stack.connect_slack(),
    ),
    Drill(
        "grafana",
        "Grafana's page has too many samples",
        (
            Expected("PrometheusTargetLimitHit", "warning", job=PROMETHEUS),
            Expected("GrafanaDown", "warning", job=GRAFANA),
        ),
        cause=fill_page,
        place="calm",
        mend=shorten_page,
    ),
    Drill(
        "alertmanager",
        "Alertmanager killed",
        (
            Expected("AlertmanagerDown", "critical", {}, UNHEARD, ALERTMANAGER),
            Expected(
                "PrometheusNotificationsFailing", "critical", {}, LATE, PROMETHEUS
            ),
        ),
        cause=kill_alertmanager,
        place="calm",
        mend=lambda scene: scene.stack.start_alertmanager(),
        after=EVERYTHING,
    ),
    Drill(
        "forgotten",
        "Alertmanager's target file emptied",
        (
            Expected(
                "PrometheusNotConnectedToAlertmanager",
                "critical",
                {},
                UNHEARD,
                PROMETHEUS,
            ),
        ),
        cause=forget_alertmanager,
        place="calm",
        mend=find_alertmanager,
        after=("alertmanager",),
    ),
)

# Alerts that no drill can cause, by name or by name and severity, and why not.
UNDRILLED = {
    "HakgalBacklogGrowing critical": "takes a million rows that wait",
    "HakgalDiskFilling warning": "takes a disk that fills for an hour",
    "PrometheusStorageFailing critical": "takes a disk that loses data",
}
