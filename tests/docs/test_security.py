"""What SECURITY.md claims, as far as it can be checked."""

import sys
from pathlib import Path

import pytest

from tests.clients import Client
from tests.databases import Files
from tests.exporters import Command, file_flags
from tests.servers import ROOT, Processes, find_free_port, wait_until

SECRET = "zqsecret"  # in every value that has no business outside the databases
TARGETS = ("/metrics", "/", "/-/healthy", "/-/ready", "/none", "/metrics?collect[]=x")
FORMS = ("", "application/openmetrics-text")
# Python tells of each of these before it happens, whoever asks for it.
WATCHED = f"""
import os, sys
FORBIDDEN = {{
    "socket.connect", "socket.sendto", "socket.sendmsg", "socket.gethostbyname",
    "subprocess.Popen", "os.system", "os.exec", "os.posix_spawn", "os.fork",
}}
def watch(event, arguments):
    if event in FORBIDDEN:
        os.write(2, f"forbidden {{event}} {{arguments}}".encode())
sys.path.insert(0, {str(ROOT)!r})
sys.addaudithook(watch)
"""


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    """Return a folder with a telling name, and databases full of secrets."""
    folder = tmp_path / f"{SECRET}-folder"
    with Files(folder) as files:
        for add in (files.add_fact, files.add_audit, files.add_query):
            add(timestamp=f"2026-01-01 00:00:00 {SECRET}")
        files.add_fact(f"Knows({SECRET})", confidence=SECRET, source=SECRET)
        people = {"user_id": SECRET, "session_id": SECRET}
        files.add_audit("an_operation", details=SECRET, **people)
        files.add_query(0.1, "a_type")
        files.add_query(SECRET, "a_type")
        files.add_query(0.1, "a_type", success=SECRET)
        files.add_cache(hit=SECRET, response_time=SECRET, cache_key=SECRET)
        history = {"metric_name": SECRET, "metric_type": SECRET, "tags": SECRET}
        files.performance.insert("performance_metrics", metric_value=1, **history)
    return folder


def start(processes: Processes, folder: Path, *flags: str) -> Command:
    port = find_free_port()
    return Command(processes, port, *file_flags(folder), *flags).start()


def all_answers(command: Command) -> str:
    """Return the heads and bodies of every page, in every form."""
    return "\n".join(
        str(command.get(target, Accept=form)) for target in TARGETS for form in FORMS
    )


@pytest.mark.parametrize("form", ["logfmt", "json"])
def test_nothing_of_a_row_is_shown_but_types_and_operations(
    processes: Processes, secret: Path, form: str
) -> None:
    command = start(processes, secret, "--log.level=debug", f"--log.format={form}")
    command.wait_until_ready()
    shown = all_answers(command)
    assert 'query_type="a_type"' in shown
    assert 'operation="an_operation"' in shown
    assert 'reason="not_a_number"' in shown
    assert SECRET not in shown
    assert command.stop() == 0
    assert SECRET not in command.output
    assert SECRET not in (secret / "exporter-state.json").read_text()


@pytest.mark.parametrize("content", [None, f"{SECRET} is no database" * 500])
def test_page_does_not_say_where_a_broken_file_is(
    processes: Processes, secret: Path, content: str | None
) -> None:
    for file in secret.glob("*.db"):
        file.unlink()
        if content is not None:
            file.write_text(content)
    command = start(processes, secret)
    shown = all_answers(command)
    assert 'hakgal_up{database="knowledge_base"} 0.0' in shown
    assert SECRET not in shown
    lines = [line for line in command.output.splitlines() if "level=warn" in line]
    assert all(str(secret) in line for line in lines)  # the operator's log says it
    assert "is no database" not in command.output


def test_exporter_calls_nobody_and_starts_no_program(
    processes: Processes, secret: Path
) -> None:
    # The last is what would be noticed.
    program = f"{WATCHED}from exporter.__main__ import main; main(); os.system('true')"
    address = "127.0.0.1", find_free_port()
    flags = [*file_flags(secret), "--web.listen-address={}:{}".format(*address)]
    process = processes.start(sys.executable, "-c", program, *flags)
    wait_until(lambda: "msg=listening" in processes.output(process), 20)
    with Client(address) as client:
        wait_until(lambda: client.get("/-/ready").status == 200, 20)
        assert client.get().status == 200
    process.terminate()
    assert process.wait(20) == 0
    assert processes.output(process).count("forbidden") == 1
