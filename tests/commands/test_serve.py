"""The main job as a process: what stops it from starting, and how it stops."""

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.databases import Files
from tests.exporters import Command, file_flags, run, run_as_nobody
from tests.servers import ROOT, Processes, answers, wait_until

STOP_SIGNALS = [pytest.param(s, id=s.name) for s in (signal.SIGTERM, signal.SIGINT)]


def test_port_in_use_is_one_line(folder: Path, taken_port: int) -> None:
    done = run(*file_flags(folder), f"--web.listen-address=127.0.0.1:{taken_port}")

    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        f"hakgal-exporter: cannot listen on 127.0.0.1:{taken_port}:"
        " Address already in use, want a free port above 1023 and an address of this"
        " machine, or :PORT\n"
    )


def test_unwritable_state_file_is_one_line(foreign_folder: Path) -> None:
    state = foreign_folder / "state.json"

    done = run_as_nobody(f"--state.file={state}", "--web.listen-address=127.0.0.1:0")

    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"hakgal-exporter: cannot use the state file {state}: [Errno 13] Permission"
        f" denied: '{state}.lock'; make it writable for this user, and its folder,"
    )


def test_second_exporter_on_a_state_file_is_refused(
    command: Command, folder: Path
) -> None:
    command.start()

    done = run(*file_flags(folder), "--web.listen-address=127.0.0.1:0")

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(
        f"hakgal-exporter: cannot use the state file {folder}/exporter-state.json:"
        " another exporter uses it; "
    )


@pytest.mark.parametrize("stop_signal", STOP_SIGNALS)
def test_signal_stops_it_and_nothing_is_lost_or_counted_twice(
    command: Command, files: Files, stop_signal: signal.Signals
) -> None:
    for hits in (3, 6):
        for is_scraped in (False, True):
            if not is_scraped:
                for _ in range(3):
                    files.add_cache()
            command.start().wait_until_ready()
            if is_scraped:
                assert command.page()("hakgal_cache_hits_total") == hits
            command.process.send_signal(stop_signal)
            assert command.process.wait(10) == 0
            assert command.output.splitlines()[-1].endswith("msg=stopped")


def test_stray_signals_end_nothing(command: Command) -> None:
    command.start()
    for stray in (signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        command.process.send_signal(stray)
    assert command.get("/-/healthy").status == 200
    assert command.stop() == 0


def test_terminal_that_hangs_up_stops_it_in_order(folder: Path, free_port: int) -> None:
    master, terminal = os.openpty()
    flags = [*file_flags(folder), f"--web.listen-address=127.0.0.1:{free_port}"]
    process = subprocess.Popen(
        [sys.executable, "-m", "exporter", *flags],
        stdin=terminal,
        stderr=subprocess.DEVNULL,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
    )
    try:
        wait_until(lambda: answers(f"http://127.0.0.1:{free_port}/-/healthy"), 20)
        process.send_signal(signal.SIGHUP)
        assert process.wait(10) == 0
    finally:
        process.kill()
        process.wait()
        os.close(master)
        os.close(terminal)


def test_stopping_does_not_wait_for_idle_connections(command: Command) -> None:
    command.start()
    with socket.create_connection(command.address) as idle:
        idle.sendall(b"GET /-/healthy HTTP/1.1\r\nHost: x\r\n\r\n")
        assert idle.recv(4096).startswith(b"HTTP/1.1 200")
        started = time.monotonic()

        assert command.stop() == 0

    assert time.monotonic() - started < 3


def test_it_leaves_no_file_but_its_own(command: Command, folder: Path) -> None:
    before = set(os.listdir(folder))
    command.start().wait_until_ready()
    command.page()

    command.stop()

    own = {"exporter-state.json", "exporter-state.json.lock"}
    assert {f for f in os.listdir(folder) if not f.endswith(".log")} == before | own


def test_without_state_file_it_writes_nothing(
    processes: Processes, folder: Path, free_port: int
) -> None:
    before = set(os.listdir(folder))
    flags = [*file_flags(folder)[:2], "--state.file="]
    command = Command(processes, free_port, *flags)
    command.start().wait_until_ready()
    assert command.page()("hakgal_facts") == 0

    assert command.stop() == 0

    assert {f for f in os.listdir(folder) if not f.endswith(".log")} == before


def test_it_serves_on_several_addresses(
    processes: Processes, folder: Path, free_port: int
) -> None:
    flags = [*file_flags(folder), "--web.listen-address=[::1]:0"]

    command = Command(processes, free_port, *flags).start()

    wait_until(lambda: command.output.count("msg=listening") == 2, 10.0)


def test_mistakes_in_the_web_configuration_are_lines(folder: Path) -> None:
    web = folder / "web.yml"
    web.write_text("tls_server_config: {min_version: 1}\nbasic_auth_users: {a: b}\n")

    for command in ([], ["demo", f"--demo.directory={folder / 'demo'}"]):
        done = run(*command, f"--web.config.file={web}")

        assert (done.returncode, done.stdout) == (2, "")
        assert done.stderr.splitlines() == [
            f"hakgal-exporter: {web}: tls_server_config.min_version: got '1',"
            " want TLS12 or TLS13",
            f"hakgal-exporter: {web}: basic_auth_users.a: got something else, want a"
            " bcrypt hash, cost 04 to 16: $2y$10$…",
        ]
    assert not (folder / "demo").exists()


def test_variable_that_is_no_setting_is_told_at_start(
    command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HAKGAL_STATE_FLE", "x")
    monkeypatch.setenv("HAKGAL_SERVICE_HOST", "10.0.0.1")

    command.start()

    expected = 'msg="no such setting" variable=HAKGAL_STATE_FLE'
    assert (
        command.output.count("no such setting") == command.output.count(expected) == 1
    )


def test_without_users_bcrypt_is_not_loaded() -> None:
    program = "import sys, exporter.commands.serve; print('bcrypt' in sys.modules)"

    assert run(program=program).stdout == "False\n"
