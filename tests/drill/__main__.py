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

from tests.drill.drills import DRILLS, Drill, own_limits
from tests.drill.grafana import Grafana
from tests.drill.inbox import Inbox
from tests.drill.instance import Instance
from tests.drill.report import MISSING, Report, undrilled
from tests.drill.run import Act, Run, Say
from tests.drill.scene import Scene
from tests.drill.stack import Stack
from tests.drill.watch import Watch
from tests.servers import GENERATIONS, Processes, Servers, find_servers

FACTOR = 40.0


def main() -> int:
    """Drill the generations that were asked for; files are kept if something fails."""
    names = [drill.name for drill in DRILLS]
    parser = argparse.ArgumentParser(prog="python -m tests.drill")
    parser.add_argument("--generation", choices=GENERATIONS, action="append")
    parser.add_argument("--only", choices=names, action="append", metavar="DRILL")
    parser.add_argument("--factor", type=float, default=FACTOR)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, _end)
    drills = [d for d in DRILLS if not options.only or d.name in options.only]
    chosen = options.generation or GENERATIONS
    failed, say = False, functools.partial(print, flush=True)
    for servers in find_servers():
        if servers.folder.name in chosen:
            failed |= not drill(servers, drills, options.factor, say)
    for alert, why, files in undrilled():
        failed |= MISSING in (why, files)
        say(f"Not drilled: {alert}: {why}; proven by tests/rules: {files}")
    return 1 if failed else 0


def _end(number: int, frame: object) -> None:
    """End what was started as well, undisturbed by who cannot wait for it."""
    signal.signal(number, signal.SIG_IGN)
    sys.exit(1)


def drill(servers: Servers, drills: list[Drill], factor: float, say: Say) -> bool:
    """Drill one generation and say whether all happened that was to."""
    name = servers.folder.name
    say(f"\n{name}: Prometheus {servers.version}, all durations divided by {factor:g}")
    folder = Path(tempfile.mkdtemp(prefix="drill-"))
    is_kept = True
    try:
        with _played(servers, drills, factor, folder, say) as report:
            say(report.text)
        is_kept = bool(report.problems)
    except (KeyboardInterrupt, SystemExit):
        is_kept = False
        raise
    finally:
        if is_kept:
            say(f"Files and logs are kept in {folder}.")
        else:
            shutil.rmtree(folder)
    return not report.problems


@contextlib.contextmanager
def _played(
    servers: Servers, drills: list[Drill], factor: float, folder: Path, say: Say
) -> Iterator[Report]:
    with contextlib.ExitStack() as stack:
        inbox = stack.enter_context(Inbox())
        processes = Processes(folder)
        stack.callback(_quietly_stop, processes)
        grafana = Grafana()
        grafana.start()
        stack.callback(grafana.stop)
        servers_ = Stack(
            servers, processes, folder, factor, inbox, grafana=grafana.address
        )
        instances = {
            d.instance: Instance(processes, folder / d.instance, *d.flags)
            for d in reversed(drills)
        }
        acts = [Act(d, Scene(servers_, instances[d.instance], grafana)) for d in drills]
        _prepare(acts, servers_)
        watch = stack.enter_context(Watch(servers_))
        run = Run(acts, watch, inbox, say)
        started = time.monotonic()
        run.play()
        yield Report(acts, watch, inbox, time.monotonic() - started)


def _prepare(acts: list[Act], stack: Stack) -> None:
    """Start all exporters and servers, and whatever is to go on beforehand."""
    instances = {act.drill.instance: act.scene.instance for act in acts}
    for instance in instances.values():
        instance.exporter.start()
    for act in acts:
        if act.drill.limits:
            text = own_limits(act.scene.instance.name, act.drill.limits)
            (stack.rules / f"own-{act.drill.name}.yml").write_text(text)
    stack.start([instance.name for instance in instances.values()])
    for act in acts:
        if act.drill.before:
            act.drill.before(act.scene)


def _quietly_stop(processes: Processes) -> None:
    """End what was started; its logs are files already."""
    with contextlib.redirect_stdout(None):
        processes.stop()


if __name__ == "__main__":
    sys.exit(main())
