"""The documents: links lead somewhere, examples work.

``docs/migration.md`` is tried by tests/commands; `make compose-test` runs Docker's
lines.
"""

import json
import re
import shutil
import ssl
import subprocess
import sys
from argparse import Namespace
from pathlib import Path

import pytest

from exporter.config import load
from exporter.web.config import read
from tests.certificates import Authority
from tests.contract.metrics import table_in
from tests.docs.reading import FILES, blocks, prose
from tests.servers import ROOT, Servers

FOLDERS = "exporter|tests|prometheus|alertmanager|grafana|docs"
README = (ROOT / "README.md").read_text()
DEPLOYMENT = (ROOT / "docs" / "deployment.md").read_text()
PROTECT = DEPLOYMENT.partition("\n## Encrypt and protect it\n")[2].partition("\n## ")[0]
MAKING, SETTING = blocks(PROTECT, "sh")


def anchors(file: Path) -> set[str]:
    """Return the anchors of the headings, as GitHub makes them."""
    headings = re.findall(r"(?m)^#+ (.*)$", prose(file.read_text()))
    plain = (re.sub(r"[^\w\- ]", "", heading).lower() for heading in headings)
    return {heading.replace(" ", "-") for heading in plain}


@pytest.mark.parametrize("file", FILES, ids=lambda f: str(f.relative_to(ROOT)))
def test_links_and_names_lead_to_files_and_headings(file: Path) -> None:
    for name in re.findall(rf"`((?:{FOLDERS})/[\w./-]+)`", file.read_text()):
        assert (ROOT / name).exists() or "NAME" in name, name
    shown = re.sub("(?s)<!--.*?-->", "", file.read_text())
    for target in re.findall(r"\]\(([^)\s]+)\)", shown):
        if target.startswith(("http://", "https://")):
            continue
        path, _, anchor = target.partition("#")
        linked = (file.parent / path).resolve() if path else file
        assert linked.exists(), target
        assert not anchor or anchor in anchors(linked), target


def test_files_of_the_readme_exist() -> None:
    for where, _ in table_in("README.md", "Files"):
        first, *others = re.findall(r"`([^`]+)`", where)
        paths = [first, *(Path(first).parent / name for name in others)]
        assert [path for path in paths if not (ROOT / path).exists()] == []


def test_tasks_of_the_documents_exist() -> None:
    help_text = subprocess.run(
        ["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout
    tasks = set(re.findall(r"(?m)^ +([a-z-]+) ", help_text))
    for file in FILES:
        shell = "\n".join(blocks(file.read_text(), "sh"))
        named = re.findall(r"`make ([a-z-]+)", file.read_text())
        named += re.findall(r"(?m)^make ([a-z-]+)", shell)
        assert set(named) <= tasks, file.name


@pytest.mark.parametrize("file", ["docs/metrics.md", "docs/runbooks.md"])
def test_queries_are_promql(file: str, servers: Servers, tmp_path: Path) -> None:
    queries = blocks((ROOT / file).read_text(), "promql")
    rules = [{"record": "a:b:c", "expr": query} for query in queries]
    path = tmp_path / "rules.yml"
    path.write_text(json.dumps({"groups": [{"name": "asked", "rules": rules}]}))

    code, output = servers.run("promtool", "check", "rules", "--lint=none", path)

    assert code == 0, output
    assert queries
    assert f"{len(queries)} rules found" in output


def test_configuration_file_of_the_documentation_is_accepted(tmp_path: Path) -> None:
    (text,) = blocks((ROOT / "docs" / "configuration.md").read_text(), "yaml")
    file = tmp_path / "exporter.yml"
    file.write_text(text)

    config = load(Namespace(**{"config.file": str(file)}), {})

    assert config.listen_addresses == ("127.0.0.1:8000",)
    assert "system" not in config.collectors
    assert config.query_buckets[-1] == 5.0


def test_check_of_the_readme_is_content(folder: Path, free_port: int) -> None:
    (block,) = (
        block for block in blocks(README, "sh") if "hakgal-exporter check" in block
    )
    script = block.partition(" check ")[0].replace("/srv/hakgal", str(folder))
    command = f"{sys.executable} -m exporter"
    script = script.replace(".venv/bin/hakgal-exporter", command).replace("~", "$HOME")
    address = f"HAKGAL_WEB_LISTEN_ADDRESS=127.0.0.1:{free_port}"

    done = subprocess.run(
        ["env", address, f"HOME={folder}", "sh", "-euc", f"{script} check"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )

    assert done.returncode == 0, done.stdout + done.stderr
    assert f"state file {folder}/hakgal-state.json" in done.stdout


# docs/deployment.md, "Encrypt and protect it"


@pytest.fixture
def made(tmp_path: Path) -> tuple[Path, str]:
    """Make certificate and hash by the commands; return the folder and the hash."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not on this machine: install Debian's package openssl")
    script = (
        MAKING.replace("-g hakgal", "")
        .replace("chgrp hakgal", "ls")
        .replace("/etc/hakgal-exporter", str(tmp_path))
        .replace("/opt/hakgal-exporter/bin/python", sys.executable)
        .replace("getpass.getpass()", '"secret"')
    )
    done = subprocess.run(["sh", "-ec", script], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return tmp_path, done.stdout.splitlines()[-1]


@pytest.mark.parametrize("text", blocks(PROTECT, "yaml"), ids=["users", "clients"])
def test_configuration_works_with_what_the_commands_make(
    text: str, made: tuple[Path, str]
) -> None:
    folder, hashed = made
    Authority(folder, "clients")
    file = folder / "web.yml"
    file.write_text(re.sub(r"\$2y\$\S+", hashed, text))

    config = read(file, {})

    assert config.tls
    assert set(config.users.values()) <= {hashed}
    is_needed = config.tls.verify_mode is ssl.CERT_REQUIRED
    assert bool(config.users) is not is_needed
    variables = dict(line.split("=", 1) for line in SETTING.splitlines())
    assert load(Namespace(), variables).web_config_file
