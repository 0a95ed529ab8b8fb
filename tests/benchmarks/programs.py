"""Start programs, ask the kernel what they cost, and end them by their own handle."""

import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.client import Client, status_of
from tests.benchmarks.data import Files
from tests.servers import ROOT, find_free_port

POLL_SECONDS = 0.005  # at least, between two questions whether it is ready
POLL_SHARE = 0.01  # of the time so far: to answer is work for a program that starts
COUNT_POLL_SECONDS = 0.1
START_SECONDS = 600.0  # a first fold of very many rows on a very slow machine
STOP_SECONDS = 20.0


class Program:
    """A program that runs, and the port that it was told to serve on."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, log: Path) -> None:
        self.process = process
        self.port = port
        self.started = time.perf_counter()
        self._log = log

    def cpu_seconds(self) -> float:
        """Return the processor time used so far, ended threads included.

        The sum of utime and stime in /proc/PID/stat, but in nanoseconds and not in
        ticks of 10 ms: the process' own clock (clock_getcpuclockid in the C library).
        """
        return time.clock_gettime((~self.process.pid << 3) | 2)

    def memory_bytes(self, field: str) -> int:
        """Return ``VmRSS`` (resident now) or ``VmHWM`` (at most so far)."""
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        (line,) = (text for text in status.splitlines() if text.startswith(field))
        return int(line.split()[1]) * 1024

    def wait_for(self, target: str) -> float:
        """Return the seconds from the start until a target is answered with 200.

        Raises:
            RuntimeError: the program has ended, or takes too long.
        """
        while status_of(self.port, target) != 200:
            taken = time.perf_counter() - self.started
            if self.process.poll() is not None or taken > START_SECONDS:
                output = self._log.read_text(errors="replace")[-2000:]
                raise RuntimeError(f"not ready after {taken:.0f} s: {output}")
            time.sleep(max(POLL_SECONDS, POLL_SHARE * taken))
        return time.perf_counter() - self.started

    def wait_until_counted(self) -> None:
        """Wait until the facts have been counted, which goes on in the background."""
        with Client(self.port) as client:
            while b"\nhakgal_facts " not in client.page().body:
                time.sleep(COUNT_POLL_SECONDS)


@contextmanager
def running(
    log: Path, *command: str | Path, port: int = 0, **environment: str
) -> Iterator[Program]:
    """Run a command until the block ends; its output goes to a file."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            cwd=ROOT,
            env=os.environ | environment,
        )
    try:
        yield Program(process, port, log)
    finally:
        process.terminate()
        try:
            process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def started_exporter(
    files: Files, state: Path | None = None, *flags: str
) -> Iterator[Program]:
    """Start the product over these files, and do not wait for it."""
    port = find_free_port()
    with running(
        files.folder / "exporter.log",
        *(sys.executable, "-m", "exporter"),
        *file_flags(files),
        f"--state.file={state or files.state}",
        f"--web.listen-address=127.0.0.1:{port}",
        *flags,
        port=port,
    ) as program:
        yield program


@contextmanager
def exporter(files: Files, state: Path | None = None) -> Iterator[Program]:
    """Run the product over these files, once it has read all and come to rest."""
    with started_exporter(files, state) as program:
        program.wait_for("/-/ready")
        program.wait_until_counted()
        yield program


@contextmanager
def writer(files: Files, rate: int) -> Iterator[Program]:
    """Let the simulator write into both files."""
    command = (sys.executable, "-m", "exporter", "simulate", f"--rate={rate}")
    log = files.folder / "writer.log"
    with running(log, *command, *file_flags(files)) as program:
        yield program


def file_flags(files: Files) -> tuple[str, str]:
    """Return the flags that name both databases."""
    return (
        f"--database.knowledge-base={files.knowledge_base}",
        f"--database.performance={files.performance}",
    )
