"""The exporters that the product is compared with, fetched beside the system.

query-exporter from PyPI in an environment of its own; node_exporter from Debian's
packages, by ``.ci/servers``. Both stay in the folder of the other servers.
"""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from tests.benchmarks.bench import Bench
from tests.benchmarks.programs import Program, exporter, running
from tests.servers import ROOT, find_free_port, find_servers

FOLDER = find_servers()[0].folder.parent
NODE_EXPORTER = FOLDER / "node-exporter" / "bin" / "node_exporter"
QUERY_EXPORTER = FOLDER / "query-exporter" / "bin" / "query-exporter"
QUERY_EXPORTER_VERSION = "query-exporter==5.0.2"
CONFIG = Path(__file__).with_name("query-exporter.yml")


def install() -> None:
    """Fetch whatever is missing."""
    if not NODE_EXPORTER.exists():
        subprocess.run([ROOT / ".ci" / "servers", "node-exporter"], check=True)
    if not QUERY_EXPORTER.exists():
        home = FOLDER / "query-exporter"
        subprocess.run([sys.executable, "-m", "venv", "--clear", home], check=True)
        pip = (home / "bin" / "pip", "install", "--quiet", QUERY_EXPORTER_VERSION)
        subprocess.run(pip, check=True)


def node_exporter(bench: Bench) -> AbstractContextManager[Program]:
    """Run node_exporter with its defaults."""
    return _peer(bench, NODE_EXPORTER, "--web.listen-address=127.0.0.1:")


def query_exporter(bench: Bench) -> AbstractContextManager[Program]:
    """Run query-exporter over the large files."""
    words = (f"--config={CONFIG}", "--host=127.0.0.1", "--port=")
    knowledge_base, performance = (f"sqlite:///{path}" for path in bench.large.both)
    dsn = {"KNOWLEDGE_BASE_DSN": knowledge_base, "PERFORMANCE_DSN": performance}
    return _peer(bench, QUERY_EXPORTER, *words, **dsn)


@contextmanager
def _peer(
    bench: Bench, path: Path, *words: str, **environment: str
) -> Iterator[Program]:
    """Run a peer; where it is not installed, the product plays its part."""
    if not path.exists():
        with exporter(bench.small) as program:
            yield program
        return
    port = find_free_port()
    command = [str(path), *words[:-1], f"{words[-1]}{port}"]
    with running(bench.folder, *command, port=port, **environment) as program:
        program.wait_for("/")
        yield program
