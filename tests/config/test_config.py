"""Settings: where they come from, which one wins, what is refused and how."""

import argparse
from pathlib import Path
from typing import Any

import pytest

from exporter.config import COLLECTORS, SETTINGS, Config, add_flags, load
from exporter.errors import ConfigError

WANTED = {setting.name: setting.kind.wanted for setting in SETTINGS}
# A value of each setting, as flag or variable and in YAML, and what it changes.
VALUES: dict[str, tuple[str, str, Any]] = {
    "database.knowledge-base": ("k b", "k b", {"knowledge_base": Path("k b")}),
    "database.performance": ("none", "'none'", {"performance": None}),
    "state.file": (" s.json ", "s.json", {"state_file": Path("s.json")}),
    "web.listen-address": (
        "[::1]:1, host:2 :3",
        "['[::1]:1', 'host:2', ':3']",
        {"listen_addresses": ("[::1]:1", "host:2", ":3")},
    ),
    "web.telemetry-path": ("/a/b-c", "/a/b-c", {"telemetry_path": "/a/b-c"}),
    "web.config.file": ("w.yml", "w.yml", {"web_config_file": Path("w.yml")}),
    "web.max-requests": (" 0", "0", {"max_requests": 0}),
    "query.buckets": ("1e-3, 2", "[1e-3, 2]", {"query_buckets": (0.001, 2)}),
    "label.limit": ("1", "'1'", {"label_limit": 1}),
    "log.level": ("WARN", "WARN", {"log_level": "warn"}),
    "log.format": ("json\n", '"json"', {"log_format": "json"}),
    **{
        f"collector.{name}": ("No", "no", {"collectors": {*COLLECTORS} - {name}})
        for name in COLLECTORS
    },
}
REFUSED = {
    "database.knowledge-base": ("a\0b", ""),
    "state.file": ("\0", "~nobody-of-this-name/x"),
    "web.listen-address": ("8000", "host", ":65536", "*:1", "http://x:1", "me@x:1"),
    "web.telemetry-path": ("metrics", "/-/ready", "/a?b", "/a b", "/ä", "/%41", ""),
    "web.max-requests": ("-1", "many", "1.5", "4_0", "٤", "1000000000", ""),
    "query.buckets": ("0", "-0.1", "nan", "inf", "1e999", "fast", "1 1", "3 2 1", ""),
    "log.level": ("verbose", ""),
    "log.format": ("xml", ""),
}


def write(folder: Path, text: str) -> str:
    """Write a configuration file and return its flag."""
    (folder / "exporter.yml").write_text(text)
    return f"--config.file={folder / 'exporter.yml'}"


def configure(*flags: str, **environment: str) -> Config:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    return load(parser.parse_args(flags), environment)


def problems(*flags: str, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        configure(*flags, **environment)
    return caught.value.problems


def changes(config: Config) -> dict[str, Any]:
    """Return what differs from the defaults."""
    defaults = vars(configure())
    return {n: v for n, v in vars(config).items() if v != defaults[n]}


@pytest.mark.parametrize("name", [s.name for s in SETTINGS if s.name != "config.file"])
def test_value_is_read_from_flag_variable_and_file(name: str, tmp_path: Path) -> None:
    text, yaml, expected = VALUES[name]
    flag = f"--no-{name}" if name.startswith("collector.") else f"--{name}={text}"
    assert changes(configure(flag)) == expected
    variable = "HAKGAL_" + name.upper().replace(".", "_").replace("-", "_")
    assert changes(configure(**{variable: text})) == expected
    assert changes(configure(write(tmp_path, f"{name}: {yaml}"))) == expected
    section, _, key = name.partition(".")
    nested = write(tmp_path, f"{section}:\n  {key}: {yaml}\n")
    assert changes(configure(nested)) == expected


def test_flag_beats_environment_beats_file_beats_default(tmp_path: Path) -> None:
    file, flag = write(tmp_path, "label.limit: 1"), "--label.limit=3"
    assert configure(file, flag, HAKGAL_LABEL_LIMIT="2").label_limit == 3
    assert configure(file, HAKGAL_LABEL_LIMIT="2").label_limit == 2
    assert configure(file, HAKGAL_CONFIG_FILE="not this").label_limit == 1
    assert configure(HAKGAL_CONFIG_FILE=file.partition("=")[2]).label_limit == 1


def test_repeated_listen_address_adds_up() -> None:
    flags = "--web.listen-address", ":1", "--web.listen-address=:2"
    assert configure(*flags).listen_addresses == (":1", ":2")


def test_tilde_is_the_home_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path, "database.performance: ~/p.db")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert configure("--config.file=~/exporter.yml").performance == tmp_path / "p.db"


def test_what_is_empty_changes_nothing_but_the_state_file(tmp_path: Path) -> None:
    off = {"state_file": None}
    assert changes(configure("--state.file=")) == off
    assert changes(configure(write(tmp_path, "state: {file: ''}"))) == off
    assert configure(**{s.environment: "" for s in SETTINGS}) == configure()
    for text in ("", "null", "web:\n  # nothing yet\nlog: {}\n"):
        assert configure(write(tmp_path, text)) == configure()


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_value_is_refused_with_its_place(name: str) -> None:
    for text in REFUSED[name]:
        refusal = f"got {text!r}, want {WANTED[name]}"
        assert problems(f"--{name}={text}") == [f"flag --{name}: {refusal}"]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("state: {file: }", ": state.file: got None, want a path, or "),
        ("label.limit: [4]", ": label.limit: got ['4'], want a whole number"),
        ("query.buckets: [1, .inf]", ": query.buckets: got '1 .inf', want increasing"),
        ("web.listen-address: []", ": web.listen-address: got '', want :PORT"),
        ("web: 5", ": unknown setting web; did you mean web."),
        ("database_path: p.db", ": the old monitor's file; see docs/migration.md"),
        ("~: 5", ": unknown setting None; did you mean "),
        ("- web", ": not a mapping, want a readable YAML file"),
        ("a: 1\nweb: {b: 2,\n c: 3, b: 4}", ": found a duplicate key in "),
        ("log: &log\n  level: *log", ": found unconstructable recursive node"),
        ("web:\n\tmax-requests: 1", ": while scanning for the next token found"),
    ],
)
def test_file_is_refused_with_the_place(
    text: str, problem: str, tmp_path: Path
) -> None:
    (found,) = problems(write(tmp_path, text))
    assert found.startswith(f"{tmp_path}/exporter.yml{problem}")


def test_file_that_cannot_be_read_is_refused(tmp_path: Path) -> None:
    reason = f"Is a directory: '{tmp_path}', want a readable YAML file"
    (problem,) = problems(f"--config.file={tmp_path}")
    assert problem.startswith(f"{tmp_path}: ")
    assert problem.endswith(reason)
    nobody = "--config.file=~nobody-of-this-name/x.yml"
    assert problems(nobody)[1].endswith(f", want {WANTED['config.file']}")


def test_none_is_a_name_but_for_databases() -> None:
    config = configure("--web.config.file=none", "--state.file=none")
    assert (config.web_config_file, config.state_file) == (Path("none"), Path("none"))


def test_none_for_both_databases_is_refused() -> None:
    both = "--database.knowledge-base=none", "--database.performance=none"
    assert problems(*both) == ["database: got none for both, want at least one file"]


def test_state_file_at_a_database_is_refused(tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to("real.db")
    state = str(tmp_path / "real.db")
    flags = f"--database.performance={tmp_path / 'link.db'}", f"--state.file={state}"
    assert problems(*flags) == [f"state.file: {state} is a database"]
