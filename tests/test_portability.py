"""Where the system has no POSIX: what cannot be had is absent, the rest works."""

import sys
from pathlib import Path

from tests.exporters import WAIT_SECONDS, fetch_page
from tests.servers import ROOT, Processes, answers, wait_until

# Read by each Python that starts: takes away what Windows lacks.
WITHOUT_POSIX = """
import builtins, os, select, signal, sys
import psutil  # on that system it would not need these

sys.modules |= {"fcntl": None, "resource": None}
del os.O_DIRECTORY, os.geteuid, os.getuid, select.poll
for name in ("SIGHUP", "SIGUSR1", "SIGUSR2", "pthread_sigmask", "sigwaitinfo",
             "sigtimedwait", "sigwait"):
    delattr(signal, name)

def without_proc(call):
    def called(path, *arguments, **options):
        if str(path) in ("/proc", "/proc/locks"):
            raise FileNotFoundError(path)
        return call(path, *arguments, **options)
    return called

os.listdir, builtins.open = without_proc(os.listdir), without_proc(open)
"""


def test_demo_needs_no_posix(
    processes: Processes, tmp_path: Path, free_port: int
) -> None:
    (tmp_path / "sitecustomize.py").write_text(WITHOUT_POSIX)
    flags = f"--demo.directory={tmp_path}", f"--web.listen-address=:{free_port}"
    process = processes.start(
        *(sys.executable, "-m", "exporter", "demo", *flags),
        PYTHONPATH=f"{tmp_path}:{ROOT}",
    )
    ready = f"http://127.0.0.1:{free_port}/-/ready"
    wait_until(lambda: answers(ready), WAIT_SECONDS)
    page = fetch_page(("127.0.0.1", free_port))

    assert page.failed == set()
    assert page("hakgal_up", database="performance") == 1
    assert page.sum("hakgal_facts") > 900
    assert page.by("database", "hakgal_database_connections") == {}
    assert (tmp_path / "exporter-state.json").exists()
    process.terminate()
    assert process.wait(WAIT_SECONDS) == 0, processes.output(process)
