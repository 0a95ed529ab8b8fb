"""Start programs, ask the kernel what they cost, and end them by their own handle."""

import contextlib
import ssl
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from tests.benchmarks.client import Client
from tests.benchmarks.data import Files
from tests.exporters import file_flags
from tests.servers import ROOT, Process, Processes, find_free_port

POLL_SECONDS = 0.005  # at least, between two questions whether it is ready
POLL_SHARE = 0.01  # of the time so far: to answer is work for a program that starts
COUNT_POLL_SECONDS = 0.1
START_SECONDS = 600.0  # a first fold of very many rows on a very slow machine


class Program:
    """A program that runs, and the port that it was told to serve on."""

    def __init__(self, processes: Processes, process: Process, port: int) -> None:
        self.port = port
        self._processes, self._process = processes, process
        self._started = time.perf_counter()

    def cpu_seconds(self) -> float:
        """Return the processor time used so far, ended threads included.

        By the process' own clock (clock_getcpuclockid in the C library), because
        /proc has it in ticks of 10 ms.
        """
        return time.clock_gettime((~self._process.pid << 3) | 2)

    def peak_bytes(self) -> int:
        """Return the most memory that was ever resident."""
        status = Path(f"/proc/{self._process.pid}/status").read_text()
        return int(status.partition("VmHWM:")[2].split()[0]) * 1024

    def wait_for(self, target: str, tls: ssl.SSLContext | None = None) -> float:
        """Return the seconds from the start until a target is answered with 200."""
        while True:
            with (
                contextlib.suppress(OSError),
                Client(self.port, target, tls=tls) as client,
            ):
                if client.get().status == 200:
                    return time.perf_counter() - self._started
            taken = time.perf_counter() - self._started
            is_alive = self._process.poll() is None and taken < START_SECONDS
            assert is_alive, self._processes.output(self._process)[-2000:]
            time.sleep(max(POLL_SECONDS, POLL_SHARE * taken))

    def wait_until_counted(self, tls: ssl.SSLContext | None = None) -> None:
        """Wait until the facts have been counted, which goes on in the background."""
        with Client(self.port, tls=tls) as client:
            while "\nhakgal_facts " not in client.page().text:
                time.sleep(COUNT_POLL_SECONDS)


Running = contextlib.AbstractContextManager[Program]


@contextlib.contextmanager
def running(
    folder: Path, *command: str | Path, port: int = 0, **environment: str
) -> Iterator[Program]:
    """Run a command until the block ends; its output goes to a file in a folder."""
    processes = Processes(folder, is_quiet=True)
    process = processes.start(*command, PYTHONPATH=str(ROOT), **environment)
    try:
        yield Program(processes, process, port)
    finally:
        processes.stop()


def started_exporter(files: Files, *flags: str) -> Running:
    """Start the product over these files, and do not wait for it."""
    port = find_free_port()
    command = (sys.executable, "-m", "exporter", *file_flags(files.folder))
    listen = f"--web.listen-address=127.0.0.1:{port}"
    return running(files.folder, *command, listen, *flags, port=port)


@contextlib.contextmanager
def exporter(files: Files) -> Iterator[Program]:
    """Run the product over these files, once it has read all and come to rest."""
    with started_exporter(files) as program:
        program.wait_for("/-/ready")
        program.wait_until_counted()
        yield program


def writer(files: Files, rate: int) -> Running:
    """Let the simulator write into both files."""
    command = (sys.executable, "-m", "exporter", "simulate", f"--rate={rate}")
    return running(files.folder, *command, *file_flags(files.folder)[:2])
