"""The command ``demo``: simulated databases, and the exporter over them."""

import subprocess
import sys
from pathlib import Path

from exporter.commands.serve import serve
from exporter.commands.simulate import create
from exporter.config import Config
from exporter.errors import ConfigError
from exporter.web.config import read


def default_files(directory: str) -> dict[str, str]:
    """Return where each file is that nobody names, as environment variables."""
    files = {
        "HAKGAL_DATABASE_KNOWLEDGE_BASE": "hexagonal_kb.db",
        "HAKGAL_DATABASE_PERFORMANCE": "hakgal_performance.db",
        "HAKGAL_STATE_FILE": "exporter-state.json",
    }
    return {name: str(Path(directory, file)) for name, file in files.items()}


def demo(config: Config) -> int:
    """Make the databases, simulate activity in a process of its own, and serve.

    In this process, our reads would drop the simulator's locks (POSIX). It ends with
    its input, so also when we are killed.
    """
    knowledge_base, performance = config.knowledge_base, config.performance
    if not (knowledge_base and performance):
        raise ConfigError(["demo: got none for a database, want both to be files"])
    web = read(config.web_config_file, {}) if config.web_config_file else None
    scheme = "https" if web and web.tls else "http"
    create(knowledge_base, performance, facts=1000)
    command = [sys.executable, "-m", "exporter", "simulate", "--until-eof"]
    command += [f"--database.knowledge-base={knowledge_base}"]
    command += [f"--database.performance={performance}"]
    for address in config.listen_addresses:
        url = f"{scheme}://{'localhost' if address.startswith(':') else ''}{address}"
        print(f"metrics: {url}{config.telemetry_path}   overview: {url}/")
    print(f"databases: {knowledge_base}, {performance}")
    print("Ctrl-C ends it.", flush=True)
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as simulator:
        return serve(config, lambda: simulator.poll() is None)
