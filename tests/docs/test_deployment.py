"""docs/deployment.md: what it says of Debian's packages and Kubernetes works."""

import re
import subprocess
from pathlib import Path

import yaml

from tests.docs.reading import blocks
from tests.servers import ROOT, Servers

TEXT = (ROOT / "docs" / "deployment.md").read_text()
INSTALLING, PROMETHEUS, ALERTMANAGER, _ = blocks(
    TEXT.partition("from Debian's packages\n\n")[2].partition("\n## ")[0], "sh"
)
CONFIG = yaml.safe_load((ROOT / "prometheus" / "prometheus.yml").read_text())
KUBERNETES = TEXT.partition("\n## Kubernetes\n")[2].partition("\n## ")[0]


def play(script: str) -> None:
    subprocess.run(["sh", "-euc", script], cwd=ROOT, check=True)


def test_files_are_where_debians_programs_read_them(
    servers: Servers, tmp_path: Path
) -> None:
    script = re.sub("(?m)^apt-get .*", "", INSTALLING)
    play(script.replace("/etc/", f"{tmp_path}/"))

    config = tmp_path / "prometheus" / "prometheus.yml"
    code, output = servers.run("promtool", "check", "config", config)
    assert code == 0, output
    rules = len([*(ROOT / "prometheus" / "rules").iterdir()])
    assert f"{rules} rule files found" in output
    file = tmp_path / "alertmanager" / "alertmanager.yml"
    code, output = servers.run("amtool", "check-config", file)
    assert code == 0, output
    assert "1 templates" in output
    assert f"--config.file=/etc/alertmanager/{file.name} " in ALERTMANAGER


def test_flags_for_debians_programs_are_known(servers: Servers) -> None:
    for name, settings in ("prometheus", PROMETHEUS), ("alertmanager", ALERTMANAGER):
        (flags,) = re.findall('(?m)^ARGS="(.*)"$', settings)
        code, output = servers.run(name, *flags.split(), "--help")
        assert code == 0, output
    for label in CONFIG["global"]["external_labels"].values():
        assert f"{label.strip('${}')}=http" in PROMETHEUS


def test_the_service_monitor_has_the_limits_of_the_scrape() -> None:
    (text,) = blocks(KUBERNETES, "yaml")
    spec = yaml.safe_load(text)["spec"]
    (endpoint,) = spec["endpoints"]
    job, common = CONFIG["scrape_configs"][0], CONFIG["global"]
    assert endpoint["interval"] == common["scrape_interval"]
    assert endpoint["scrapeTimeout"] == common["scrape_timeout"]
    assert endpoint["relabelings"][0]["replacement"] == job["job_name"]
    for limit in ("sample_limit", "label_limit", "body_size_limit"):
        name = re.sub("_(.)", lambda found: found[1].upper(), limit)
        assert spec[name] == job[limit]


def test_prometheus_rules_are_the_shipped_ones(
    servers: Servers, tmp_path: Path
) -> None:
    (script,) = blocks(KUBERNETES, "sh")
    made, file = tmp_path / "hakgal-rules.yml", tmp_path / "rules.yml"
    making = script.partition("kubectl")[0].replace(made.name, str(made))
    play(making)

    assert "externalLabels" not in made.read_text()
    rules = [rule for rule in yaml.safe_load_all(made.read_text()) if rule]
    for rule in rules:
        file.write_text(yaml.safe_dump(rule["spec"]))
        code, output = servers.run("promtool", "check", "rules", file)
        assert code == 0, output
        written = [one["expr"] for g in rule["spec"]["groups"] for one in g["rules"]]
        assert {*map(type, written)} == {str}, "Kubernetes takes no fraction"
    names = [rule["metadata"]["name"].removeprefix("hakgal-") for rule in rules]
    assert names == sorted(f.stem for f in (ROOT / "prometheus/rules").iterdir())
