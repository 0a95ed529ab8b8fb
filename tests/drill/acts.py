"""How the faults of drills.yml are caused, and, after the ``yield``, mended."""

import json
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, suppress

from tests.drill.scene import Scene

# Two series for each instance on either side: nobody can say which belong together.
BROKEN_RULE = """
groups:
  - name: broken
    rules: [{record: instance:broken:sum, expr: hakgal_up + on (instance) hakgal_up}]
"""
Play = Callable[[Scene], Iterator[None]]


def play(cause: Callable[[Scene], object], mend: Callable[[Scene], object]) -> Play:
    """Return a fault that takes a line, and so does its mending."""

    def both(scene: Scene) -> Iterator[None]:
        cause(scene)
        yield
        mend(scene)

    return both


def simulated(*faults: str, times: float = 1, mended_times: float = 1) -> Play:
    """Return what lets HAK/GAL do wrong, and after that write as usual, or more."""
    return play(
        lambda scene: scene.write(*faults, times=times),
        lambda scene: scene.write(times=mended_times),
    )


def facts_and_logs(scene: Scene) -> Iterator[None]:
    """Lose facts and let the log grow, of which this instance may have less."""
    _limit(scene, 2**21, 2**22, "wal_size_bytes")
    yield from simulated("facts-lost", "wal-growth", times=5, mended_times=75)(scene)


def moved(scene: Scene) -> Iterator[None]:
    """Move the performance database out of sight."""
    elsewhere = scene.instance.folder / "elsewhere.db"
    scene.instance.stop_writing()
    scene.instance.performance.rename(elsewhere)
    yield
    elsewhere.rename(scene.instance.performance)
    scene.write()


def killed(scene: Scene) -> Iterator[None]:
    """Kill the exporter."""
    scene.instance.exporter.kill()
    yield
    scene.write()
    scene.instance.exporter.start()


def table(scene: Scene) -> Iterator[None]:
    """Drop the audit log."""
    with closing(sqlite3.connect(scene.instance.knowledge_base)) as db:
        db.execute("DROP TABLE audit_log")
    yield
    scene.instance.make_tables()


def replaced(scene: Scene) -> Iterator[None]:
    """Replace the performance database by an empty one."""
    scene.instance.stop_writing()
    for file in scene.instance.folder.glob("hakgal_performance.db*"):
        file.unlink()
    scene.write()
    yield


def state(scene: Scene) -> Iterator[None]:
    """Put a folder where the state file is to be written: works for root, too."""
    obstacle = scene.instance.folder / "exporter-state.json.tmp"
    while not obstacle.is_dir():
        with suppress(FileExistsError):  # the state is being written right now
            obstacle.mkdir()
    yield
    obstacle.rmdir()
    scene.write()


def lowered(scene: Scene) -> Iterator[None]:
    """Lower limits: no test should have to wear out the machine."""
    quantities = ("scrape_duration_seconds", "cpu_utilisation", "memory_utilisation")
    _limit(scene, 0.0001, 0.0002, *quantities, "disk_utilisation")
    yield
    # Not back to the shipped ones: the machine may really be busy.
    _limit(scene, 1000, 2000, *quantities, "disk_utilisation")


def _limit(scene: Scene, warning: float, critical: float, *quantities: str) -> None:
    """Give an instance limits of its own, as thresholds.yml explains."""
    rules = [
        {
            "record": f"hakgal:{quantity}:threshold",
            "expr": f"{limit:f}",
            "labels": {"severity": severity, "instance": scene.instance.name},
        }
        for quantity in quantities
        for severity, limit in {"warning": warning, "critical": critical}.items()
    ]
    name = f"limits-{scene.instance.folder.name}"
    groups = {"groups": [{"name": name, "rules": rules}]}
    (scene.stack.rules / f"{name}.yml").write_text(json.dumps(groups))
    scene.stack.reload()


def rules(scene: Scene) -> Iterator[None]:
    """Take the limits of one quantity away, and add a rule that fails."""
    thresholds, broken = (scene.stack.rules / f"{n}.yml" for n in ("thresholds", "x"))
    shipped = thresholds.read_text()
    lines = shipped.splitlines(keepends=True)
    kept = [line for line in lines if "record: hakgal:cpu_util" not in line]
    thresholds.write_text("".join(kept))
    broken.write_text(BROKEN_RULE)
    scene.stack.reload()
    yield
    thresholds.write_text(shipped)
    broken.unlink()
    scene.stack.reload()


def configuration(scene: Scene) -> Iterator[None]:
    """Put something into both configurations that no server understands."""
    shipped = {f: f.read_text() for f in scene.stack.configurations.values()}
    for server, file in scene.stack.configurations.items():
        file.write_text(f"{shipped[file]}\nno_such_option: 1\n")
        scene.stack.reload(server)
    yield
    for server, file in scene.stack.configurations.items():
        file.write_text(shipped[file])
        scene.stack.reload(server)


PLAYS: dict[str, Play] = {
    "calm": play(lambda scene: scene.write(), lambda s: s.instance.stop_writing()),
    "queries": simulated("slow-queries", "failures", "cache-misses", mended_times=75),
    "no-writes": simulated("no-writes"),
    "lock": simulated("lock"),
    "moved": moved,
    "killed": killed,
    "table": table,
    "replaced": replaced,
    "facts-and-logs": facts_and_logs,
    "prune-unread": simulated("prune-unread"),
    "odd-rows": simulated("broken-rows", "query-types"),
    "state": state,
    "lowered": lowered,
    "rules": rules,
    "configuration": configuration,
    "slack": play(
        lambda scene: scene.stack.connect_slack(works=False),
        lambda scene: scene.stack.connect_slack(works=True),
    ),
    "grafana": play(  # one sample more than prometheus.yml allows
        lambda scene: setattr(scene.grafana, "samples", 20_001),
        lambda scene: setattr(scene.grafana, "samples", 1),
    ),
    "alertmanager": play(
        lambda scene: scene.stack.alertmanager.kill(),
        lambda scene: scene.stack.start_alertmanager(),
    ),
    "forgotten": play(
        lambda scene: scene.stack.write_targets("alertmanager", []),
        lambda scene: scene.stack.write_targets("alertmanager"),
    ),
}
