"""The embedded default: simulated databases, and the exporter over them."""

import argparse
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Mapping
from pathlib import Path

from exporter.commands.activity import Totals
from exporter.commands.faults import FAULTS, Saboteur
from exporter.commands.serve import STOP_SIGNALS, make_access, serve, wait_for_stop
from exporter.commands.simulate import create
from exporter.config import SETTINGS, Config
from exporter.errors import ConfigError

FACTS = 1000
STOP_SECONDS = 10.0
FILES = {
    "database.knowledge-base": "hexagonal_kb.db",
    "database.performance": "hakgal_performance.db",
    "state.file": "exporter-state.json",
}


def place(
    flags: argparse.Namespace, environment: Mapping[str, str]
) -> argparse.Namespace:
    """Put each file that nobody names into the demo's directory."""
    own = (setting for setting in SETTINGS if setting.name in FILES)
    for name, variable in ((setting.name, setting.environment) for setting in own):
        if getattr(flags, name, None) is None and variable not in environment:
            setattr(flags, name, str(Path(flags.directory, FILES[name])))
    return flags


def demo(config: Config) -> int:
    """Make the databases, simulate activity in a process of its own, and serve.

    In this process, our reads would drop the simulator's locks (POSIX).
    """
    knowledge_base, performance = config.knowledge_base, config.performance
    if not (knowledge_base and performance):
        raise ConfigError(["demo: got none for a database, want both to be files"])
    access = make_access(config)
    scheme = "https" if access and access.config.tls else "http"
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    create(knowledge_base, performance, facts=FACTS)
    # Told by us: when it asks for its parent, we may have been killed already.
    parent = ["--parent", str(os.getpid())]
    command = [sys.executable, "-m", "exporter", "simulate", *parent]
    command += ["--database.knowledge-base", str(knowledge_base)]
    command += ["--database.performance", str(performance)]
    simulator = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    try:
        for address in config.listen_addresses:
            url = browsable(address, scheme)
            print(f"metrics: {url}{config.telemetry_path}   overview: {url}/")
        print(f"databases: {knowledge_base}, {performance}")
        print("Ctrl-C ends it.", flush=True)
        return serve(config, alive=lambda: simulator.poll() is None)
    finally:
        simulator.terminate()
        simulator.wait(STOP_SECONDS)


def browsable(address: str, scheme: str) -> str:
    """Return the URL under which this machine reaches a listen address."""
    host, _, port = address.rpartition(":")
    return f"{scheme}://{host if host.strip('[]:0.') else 'localhost'}:{port}"


def add_simulate_flags(parser: argparse.ArgumentParser) -> None:
    """Add the flags of the command ``simulate``."""
    for name in ("database.knowledge-base", "database.performance"):
        parser.add_argument(
            f"--{name}",
            dest=name.rpartition(".")[2].replace("-", "_"),
            metavar="FILE",
            type=Path,
            required=True,
            help="Write into this file; it is made if it is missing.",
        )
    parser.add_argument(
        "--rate",
        metavar="N",
        type=_positive,
        help="Write N rows a second. Default: like a calm HAK/GAL, a round a second.",
    )
    parser.add_argument(
        "--duration",
        metavar="SECONDS",
        type=_positive,
        help="Stop after this time. Default: run until stopped.",
    )
    parser.add_argument(
        "--seed", metavar="N", type=int, help="Draw the same rows for the same N."
    )
    parser.add_argument(
        "--fault",
        metavar="NAME",
        dest="faults",
        action="append",
        default=[],
        choices=FAULTS,
        help="Cause this fault; may be repeated. See the list below.",
    )
    parser.add_argument("--parent", type=int, help=argparse.SUPPRESS)


def simulate(flags: argparse.Namespace) -> int:
    """Write activity until the time is up or a signal comes, and print the totals."""
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    create(flags.knowledge_base, flags.performance)
    simulator = Saboteur(
        flags.knowledge_base,
        flags.performance,
        faults=flags.faults,
        rate=flags.rate,
        seed=flags.seed,
    )
    stop, errors = threading.Event(), list[Exception]()

    def run() -> None:
        try:
            simulator.run(stop, flags.duration)
        except Exception as error:  # raised again where it can be reported
            errors.append(error)

    thread = threading.Thread(target=run)
    thread.start()
    wait_for_stop(lambda: thread.is_alive() and flags.parent in (None, os.getppid()))
    stop.set()
    thread.join()
    print(_summary(simulator.totals))
    if errors:
        raise errors[0]
    return 0


def _summary(totals: Totals) -> str:
    return (
        f"{totals.events} rows in {totals.seconds:.1f} s"
        f" ({totals.events_per_second:.0f}/s): {totals.queries} queries"
        f" ({totals.failures} failed), {totals.cache_hits} cache hits,"
        f" {totals.cache_misses} misses, {totals.facts_added} facts added,"
        f" {totals.facts_removed} removed, {totals.audit_rows} audit rows"
    )


def _positive(text: str) -> float:
    number = float(text)
    if not 0 < number < float("inf"):
        raise argparse.ArgumentTypeError(f"got {text}, want a number above 0")
    return number
