"""The documents: links lead somewhere, examples work.

``docs/migration.md``, ``docs/runbooks.md``, ``docs/alerts.md`` and the TLS part of
``docs/deployment.md`` have tests of their own; `make compose-test` runs Docker's lines.
"""

import json
import os
import re
import shlex
import subprocess
from argparse import Namespace
from pathlib import Path

import pytest

from exporter.config import load
from tests.exporters import run
from tests.servers import ROOT, Servers

FILES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
NAMES = [str(file.relative_to(ROOT)) for file in FILES]
each_file = pytest.mark.parametrize("file", FILES, ids=NAMES)


def blocks(file: str, language: str) -> list[str]:
    """Return the code blocks of a language, without their indentation."""
    text = (ROOT / file).read_text()
    found = re.findall(rf"(?ms)^( *)```{language}\n(.*?)^ *```", text)
    return [re.sub(rf"(?m)^{indent}", "", block) for indent, block in found]


def anchors(file: Path) -> set[str]:
    """Return the anchors of the headings, as GitHub makes them."""
    prose = re.sub(r"(?ms)^ *```.*?^ *```", "", file.read_text())
    headings = re.findall(r"(?m)^#+ (.*)$", prose)
    plain = (re.sub(r"[^\w\- ]", "", heading).lower() for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@each_file
def test_links_lead_to_files_and_headings(file: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", file.read_text()):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (file.parent / path).resolve() if path else file
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


@each_file
def test_files_that_are_named_exist(file: Path) -> None:
    folders = "exporter|tests|prometheus|alertmanager|grafana|docs"
    for name in re.findall(rf"`((?:{folders})/[\w./-]+)`", file.read_text()):
        assert (ROOT / name).exists() or "NAME" in name, name


@pytest.mark.parametrize("file", ["README.md", "docs/metrics.md"])
def test_queries_are_promql(file: str, servers: Servers, tmp_path: Path) -> None:
    queries = blocks(file, "promql")
    assert queries
    rules = [{"record": "a:b:c", "expr": query} for query in queries]
    text = json.dumps({"groups": [{"name": "documented", "rules": rules}]})
    (tmp_path / "rules.yml").write_text(text)
    code, output = servers.run(
        "promtool", "check", "rules", "--lint=none", tmp_path / "rules.yml"
    )
    assert code == 0, output
    assert f"{len(queries)} rules found" in output


def test_the_configuration_file_of_the_documentation_is_accepted(
    tmp_path: Path,
) -> None:
    (text,) = blocks("docs/configuration.md", "yaml")
    file = tmp_path / "exporter.yml"
    file.write_text(text)
    config = load(Namespace(**{"config.file": str(file)}), {})
    assert config.listen_addresses == ("127.0.0.1:8000",)
    assert "system" not in config.collectors
    assert config.query_buckets[-1] == 5.0


def test_the_recorder_of_the_readme_records(folder: Path) -> None:
    (program,) = blocks("README.md", "python")
    (folder / "data").mkdir()
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = run(program=program, cwd=folder, **environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert (folder / "data" / "hakgal_performance.db").stat().st_size > 0


def test_the_check_of_the_readme_is_content(folder: Path, free_port: int) -> None:
    lines = [block for block in blocks("README.md", "sh") if "check" in block]
    command, _, _ = lines[0].replace("\\\n", "").partition("\n")
    text = command.replace("/srv/hakgal", str(folder))
    words = shlex.split(text.replace("/var/lib/hakgal-exporter", str(folder)))
    assert words[0] == ".venv/bin/hakgal-exporter"
    done = run(*words[1:], f"--web.listen-address=127.0.0.1:{free_port}")
    assert done.returncode == 0, done.stdout


def test_tasks_of_the_documents_exist() -> None:
    help_text = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    tasks = set(re.findall(r"(?m)^ +([a-z-]+) ", help_text))
    for file in FILES:
        shell = "\n".join(blocks(str(file.relative_to(ROOT)), "sh"))
        named = re.findall(r"`make ([a-z-]+)", file.read_text())
        named += re.findall(r"(?m)^make ([a-z-]+)", shell)
        assert set(named) <= tasks, file.name
