"""Where a drill plays: a HAK/GAL with its exporter, and the servers that all share."""

import sys
from dataclasses import dataclass
from pathlib import Path

from exporter.commands.simulate import create
from tests.drill.pages import PageServer
from tests.drill.stack import Stack
from tests.exporters import Command, file_flags
from tests.servers import ROOT, Process, Processes, find_free_port

# Rows a second of a HAK/GAL without much to do; where time passes faster, it writes
# faster.
RATE = 1.0
FACTS = 200
STOP_SECONDS = 30.0


class Instance:
    """Databases in a folder of their own, an exporter, and who writes into them."""

    def __init__(self, processes: Processes, folder: Path, *flags: str) -> None:
        self.folder = folder
        self.knowledge_base = folder / "hexagonal_kb.db"
        self.performance = folder / "hakgal_performance.db"
        self._processes = processes
        self._writer: Process | None = None
        self.make_tables()
        port = find_free_port()
        self.name = f"127.0.0.1:{port}"  # the label instance
        self.exporter = Command(processes, port, *file_flags(folder), *flags)

    def make_tables(self) -> None:
        """Make what is missing."""
        create(self.knowledge_base, self.performance, facts=FACTS)

    def write(self, rate: float, *faults: str) -> None:
        """Let HAK/GAL write so many rows a second, instead of what it did."""
        self.stop_writing()
        flags = [*file_flags(self.folder)[:2], f"--rate={rate}"]
        flags += [f"--fault={fault}" for fault in faults]
        command = [sys.executable, "-m", "exporter", "simulate", *flags]
        self._writer = self._processes.start(*command, PYTHONPATH=str(ROOT))

    def stop_writing(self) -> None:
        """Stop HAK/GAL, and with it what it does wrong."""
        if self._writer:
            self._writer.terminate()
            self._writer.wait(STOP_SECONDS)

    def end(self) -> None:
        """Stop everything."""
        self.stop_writing()
        self.exporter.stop()


class Grafana(PageServer):
    """A stand-in for Grafana, which no package brings: a page of so many samples."""

    def __init__(self) -> None:
        self.samples = 1
        super().__init__(self._page, Content_Type="text/plain; version=0.0.4")

    def _page(self) -> bytes:
        lines = (f'page{{n="{n}"}} 1\n' for n in range(self.samples))
        return "".join(lines).encode()


@dataclass(frozen=True)
class Scene:
    """What the acts of a drill act upon."""

    stack: Stack
    instance: Instance
    grafana: Grafana

    def write(self, *faults: str, times: float = 1.0) -> None:
        """Let HAK/GAL write so many times its usual pace."""
        self.instance.write(RATE * self.stack.factor * times, *faults)
