"""One HAK/GAL with its exporter: where faults are caused."""

import sys
from pathlib import Path

from exporter.commands.simulate import create
from tests.exporters import Command, file_flags
from tests.servers import ROOT, Process, Processes, find_free_port

FACTS = 200
STOP_SECONDS = 10.0


class Instance:
    """Databases in a folder of their own, an exporter, and who writes into them."""

    def __init__(self, processes: Processes, folder: Path, *flags: str) -> None:
        self.knowledge_base = folder / "hexagonal_kb.db"
        self.performance = folder / "hakgal_performance.db"
        self.state = folder / "exporter-state.json"
        self.folder = folder
        self._elsewhere = folder / "elsewhere.db"
        self._processes = processes
        self._writers: list[Process] = []
        create(self.knowledge_base, self.performance, facts=FACTS)
        self.exporter = Command(
            processes, find_free_port(), *file_flags(folder), *flags
        )

    @property
    def name(self) -> str:
        """Return the value of the label ``instance``."""
        host, port = self.exporter.address
        return f"{host}:{port}"

    @property
    def obstacle(self) -> Path:
        """Return where the exporter writes its state file before it renames it."""
        return self.state.with_name(self.state.name + ".tmp")

    def move_away(self) -> None:
        """Move the performance database out of sight; nobody may have it open."""
        self.performance.rename(self._elsewhere)

    def move_back(self) -> None:
        """Undo ``move_away``."""
        self._elsewhere.rename(self.performance)

    def write(self, *flags: str) -> None:
        """Let HAK/GAL write, besides what it does already; see ``simulate --help``."""
        files = file_flags(self.folder)[:2]
        command = [sys.executable, "-m", "exporter", "simulate", *files, *flags]
        self._writers.append(self._processes.start(*command, PYTHONPATH=str(ROOT)))

    def stop_writing(self) -> None:
        """Stop HAK/GAL, and with it what it does wrong."""
        for writer in self._writers:
            writer.terminate()
        for writer in self._writers:
            writer.wait(STOP_SECONDS)
        self._writers.clear()

    def end(self) -> None:
        """Stop everything; may be repeated."""
        self.stop_writing()
        if self.exporter.process.poll() is None:
            self.exporter.stop()
