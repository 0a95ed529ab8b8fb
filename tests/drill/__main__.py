"""``python -m tests.drill``: cause faults, print what comes of them; exits 0 or 1."""

import argparse
import contextlib
import functools
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from tests.alertmanager.sinks import HttpSink, SmtpSink, running
from tests.drill.drills import DRILLS, Drill
from tests.drill.inbox import Inbox
from tests.drill.report import MISSING, problems, table, undrilled
from tests.drill.run import Act, Run, Say
from tests.drill.scene import Grafana, Instance, Scene
from tests.drill.stack import Stack
from tests.drill.watch import Watch
from tests.servers import GENERATIONS, Processes, Servers, find_servers, left_out

FACTOR = 25.0


def main() -> int:
    """Drill the generations that were asked for; files are kept if something fails."""
    names = [drill.name for drill in DRILLS]
    parser = argparse.ArgumentParser(prog="python -m tests.drill")
    parser.add_argument("--generation", choices=GENERATIONS, action="append")
    parser.add_argument("--only", choices=names, action="append", metavar="DRILL")
    options = parser.parse_args()
    # So that everything ends that was started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    drills = [d for d in DRILLS if not options.only or d.name in options.only]
    say, failed = functools.partial(print, flush=True), False
    for servers in find_servers():
        if servers.folder.name in (options.generation or GENERATIONS):
            failed |= not drill(servers, drills, FACTOR, say)
    for line in left_out():
        say(line)
    for alert, why, files in undrilled():
        failed |= MISSING in (why, files)
        say(f"Not drilled: {alert}: {why}; proven by tests/prometheus/rules: {files}")
    return 1 if failed else 0


def drill(servers: Servers, drills: list[Drill], factor: float, say: Say) -> bool:
    """Drill one generation and say whether all happened that was to.

    On a machine so busy that Prometheus skips evaluations, conditions are interrupted
    that hold: what fails is played again, once, with three times the time.
    """
    failed = _play(servers, drills, factor, say)
    return not failed or not _play(servers, failed, factor / 3, say)


def _play(
    servers: Servers, drills: list[Drill], factor: float, say: Say
) -> list[Drill]:
    """Play drills and return those that failed, of which the files are kept."""
    name = servers.folder.name
    say(f"\n{name}: Prometheus {servers.version}, all durations divided by {factor:g}")
    folder = Path(tempfile.mkdtemp(prefix="drill-"))
    with _prepared(servers, drills, factor, folder) as (acts, watch):
        started = time.monotonic()
        Run(acts, watch, say).play()
        seconds = time.monotonic() - started
    found = [*problems(acts, watch, seconds)]
    say(f"{table(acts)}\n\nAll of it took {seconds:.0f} s.")
    for drill, problem in found:
        say(f"PROBLEM {drill.name}: {problem}")
    if found:
        say(f"Files and logs are kept in {folder}.")
    else:
        shutil.rmtree(folder)
    return [drill for drill in drills if drill in [failed for failed, _ in found]]


@contextlib.contextmanager
def _prepared(
    servers: Servers, drills: list[Drill], factor: float, folder: Path
) -> Iterator[tuple[list[Act], Watch]]:
    """Start all exporters and servers, and whatever is to go on beforehand."""
    with contextlib.ExitStack() as open_:
        sinks = SmtpSink(), HttpSink()
        inbox = Inbox(*sinks)
        grafana = Grafana()
        for server in (*sinks, grafana):
            open_.enter_context(running(server))
        processes = Processes(folder, is_quiet=True)
        open_.callback(processes.stop)
        stack = Stack(servers, processes, folder, factor, inbox, grafana.address)
        instances = {  # of several drills in one place, the first says how it is
            d.instance: Instance(processes, folder / d.instance, *d.flags)
            for d in reversed(drills)
        }
        for instance in instances.values():
            instance.exporter.start()
        stack.start([instance.name for instance in instances.values()])
        acts = [Act(d, Scene(stack, instances[d.instance], grafana)) for d in drills]
        for act in acts:
            if (before := act.drill.before) is not None:
                act.scene.write(*before.get("faults", ()), times=before.get("times", 1))
        yield acts, Watch(stack, inbox)


if __name__ == "__main__":
    sys.exit(main())
