"""The steps in docs/deployment.md, tried as they are written there."""

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
from tests.servers import ROOT

SECTION = re.search(
    r"\n## Encrypt and protect it\n(.*?)\n## ",
    (ROOT / "docs" / "deployment.md").read_text(),
    re.DOTALL,
)
assert SECTION
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", SECTION[1], re.DOTALL)
MAKING, SETTING = (text for kind, text in BLOCKS if kind == "sh")
CONFIGURATIONS = [text for kind, text in BLOCKS if kind == "yaml"]


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
    done = subprocess.run(
        ["sh", "-ec", script], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    return tmp_path, done.stdout.splitlines()[-1]


@pytest.mark.parametrize("text", CONFIGURATIONS, ids=["users", "clients"])
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


def test_settings_are_settings() -> None:
    variables = dict(line.split("=", 1) for line in SETTING.splitlines())

    assert load(Namespace(), variables).web_config_file
