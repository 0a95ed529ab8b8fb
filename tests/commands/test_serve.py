"""The main job as a process: what stops it from starting, and how it stops."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.databases import Files
from tests.exporters import WAIT_SECONDS, Command, file_flags, run, run_as_nobody
from tests.servers import ROOT, answers, wait_until

ANY_PORT = "--web.listen-address=127.0.0.1:0"
HITS = "hakgal_cache_hits_total"
STATE = "exporter-state.json"


def test_unwritable_state_file_is_one_line(open_folder: Path) -> None:
    state = open_folder / STATE
    open_folder.chmod(0o555)

    done = run_as_nobody(f"--state.file={state}", ANY_PORT)

    assert (done.returncode, done.stdout) == (1, "")
    reason = f"[Errno 13] Permission denied: '{state}.lock'; make it and its folder"
    text = f"hakgal-exporter: cannot use the state file {state}: {reason}"
    assert done.stderr.startswith(text)


def test_second_exporter_on_a_state_file_is_refused(
    command: Command, folder: Path
) -> None:
    command.start()

    done = run(*file_flags(folder), ANY_PORT)

    assert (done.returncode, done.stdout) == (1, "")
    text = f"cannot use the state file {folder / STATE}: another exporter uses it; "
    assert done.stderr.startswith(f"hakgal-exporter: {text}")


@pytest.mark.parametrize("stop_signal", [signal.SIGTERM, signal.SIGINT])
def test_signal_stops_it_and_nothing_is_lost_or_counted_twice(
    command: Command, folder: Path, stop_signal: signal.Signals
) -> None:
    for hits in (1, 2):
        with Files(folder) as files:
            files.add_cache()
        command.start().wait_until_ready()  # the row is counted, and not shown
        command.process.send_signal(stop_signal)
        assert command.process.wait(WAIT_SECONDS) == 0
        assert command.output.splitlines()[-1].endswith("msg=stopped")
        with Files(folder) as files:
            files.performance.prune("cache_events")
        command.start().wait_until_ready()
        assert command.page()(HITS) == hits
        command.stop()


def test_signals_without_end_stop_it_in_order(command: Command) -> None:
    command.start()
    while command.process.poll() is None:
        command.process.send_signal(signal.SIGTERM)
        time.sleep(0.001)
    assert command.process.returncode == 0


def test_terminal_that_hangs_up_stops_it_in_order(folder: Path, free_port: int) -> None:
    master, terminal = os.openpty()
    flags = [*file_flags(folder), f"--web.listen-address=127.0.0.1:{free_port}"]
    command = [sys.executable, "-m", "exporter", *flags]
    with subprocess.Popen(command, stdin=terminal, cwd=ROOT) as process:
        try:
            health = f"http://127.0.0.1:{free_port}/-/healthy"
            wait_until(lambda: answers(health), WAIT_SECONDS)
            process.send_signal(signal.SIGHUP)
            assert process.wait(WAIT_SECONDS) == 0
        finally:
            process.kill()
            os.close(master)
            os.close(terminal)


def test_it_leaves_no_file_but_its_own(command: Command, folder: Path) -> None:
    before = set(os.listdir(folder))
    command.start().wait_until_ready()
    assert command.page()("hakgal_facts") == 0

    assert command.stop() == 0

    left = {name for name in os.listdir(folder) if not name.endswith(".log")}
    assert left == before | {STATE, f"{STATE}.lock"}


def test_unknown_variable_and_missing_file_are_logged_at_start(
    command: Command,
) -> None:
    of_kubernetes = "SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT", "PORT_80_TCP_ADDR"
    others = [f"HAKGAL_EXPORTER_{name}" for name in of_kubernetes]
    others += "HAKGAL_PORT", "HAKGAL_DEMO_DIRECTORY", "HAKGAL_BACKFILL_STEP"
    command.flags += "--log.level=warn", "--log.format=json"  # nothing else is told

    command.start(HAKGAL_STATE_FLE="x", **dict.fromkeys(others, "x"))

    line = json.loads(command.output.splitlines()[0])
    assert (line["msg"], line["variable"]) == ("unknown setting", "HAKGAL_STATE_FLE")
    missing = "hakgal_performance.db: the file does not exist"
    wait_until(lambda: missing in command.output, WAIT_SECONDS)
