"""Settings: where they come from, which one wins, what is refused and how."""

import argparse
import dataclasses
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from exporter.config import COLLECTORS, SETTINGS, Config, add_flags, load
from exporter.config import unknown_variables as unknown
from exporter.config.settings import parse_address
from exporter.errors import ConfigError
from tests.exporters import run

WANTED = {setting.name: setting.kind.wanted for setting in SETTINGS}
WriteFile = Callable[[str], Path]


@pytest.fixture
def write_file(tmp_path: Path) -> WriteFile:
    """Return a function that writes a configuration file and gives its path."""
    path = tmp_path / "exporter.yml"

    def write(text: str) -> Path:
        path.write_text(text)
        return path

    return write


def parse_flags(arguments: Iterable[object]) -> argparse.Namespace:
    parser = argparse.ArgumentParser("hakgal-exporter", allow_abbrev=False)
    add_flags(parser)
    return parser.parse_args([str(argument) for argument in arguments])


def configure(*arguments: object, **environment: str) -> Config:
    return load(parse_flags(arguments), environment)


def problems(*arguments: object, **environment: str) -> list[str]:
    with pytest.raises(ConfigError) as caught:
        configure(*arguments, **environment)
    return caught.value.problems


def changes(config: Config) -> dict[str, Any]:
    """Return what differs from the defaults."""
    defaults = vars(configure())
    return {n: v for n, v in vars(config).items() if v != defaults[n]}


def test_without_any_source_the_defaults_hold() -> None:
    assert configure() == Config(
        knowledge_base=Path("data/hexagonal_kb.db"),
        performance=Path("data/hakgal_performance.db"),
        state_file=Path("data/exporter-state.json"),
        listen_addresses=(":8000",),
        telemetry_path="/metrics",
        web_config_file=None,
        max_requests=40,
        collectors=frozenset(COLLECTORS),
        query_buckets=(
            *(0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.5),
            *(1.0, 2.5, 5.0, 10.0),
        ),
        label_limit=100,
        log_level="info",
        log_format="logfmt",
    )


def test_configuration_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        configure().label_limit = 1  # type: ignore[misc]


class Case(NamedTuple):
    """A value of a setting other than its default, and what it changes."""

    name: str
    text: str
    yaml: str
    expected: dict[str, Any]

    @property
    def twin(self) -> str:
        return "HAKGAL_" + self.name.upper().replace(".", "_").replace("-", "_")

    @property
    def flag(self) -> str:
        is_switch = self.name.startswith("collector.")
        return f"--no-{self.name}" if is_switch else f"--{self.name}={self.text}"


CASES = [
    Case("database.knowledge-base", "k b", "k b", {"knowledge_base": Path("k b")}),
    Case("database.performance", "none", "'none'", {"performance": None}),
    Case("state.file", " s.json ", "s.json", {"state_file": Path("s.json")}),
    Case(
        "web.listen-address",
        "[::1]:1, host:2 :3",
        "['[::1]:1', 'host:2', ':3']",
        {"listen_addresses": ("[::1]:1", "host:2", ":3")},
    ),
    Case("web.telemetry-path", "/a/b-c", "/a/b-c", {"telemetry_path": "/a/b-c"}),
    Case("web.config.file", "w.yml", "w.yml", {"web_config_file": Path("w.yml")}),
    Case("web.max-requests", " 0", "0", {"max_requests": 0}),
    Case("query.buckets", "1e-3, 2", "[1e-3, 2]", {"query_buckets": (0.001, 2)}),
    Case("label.limit", "1", "'1'", {"label_limit": 1}),
    Case("log.level", "WARN", "WARN", {"log_level": "warn"}),
    Case("log.format", "json\n", '"json"', {"log_format": "json"}),
    *(
        Case(f"collector.{name}", "No", "no", {"collectors": {*COLLECTORS} - {name}})
        for name in COLLECTORS
    ),
]
each_setting = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def test_no_setting_is_left_untried() -> None:
    assert ["config.file", *(c.name for c in CASES)] == [s.name for s in SETTINGS]


@each_setting
def test_value_is_read_from_flag_variable_and_file(
    case: Case, write_file: WriteFile
) -> None:
    assert changes(configure(case.flag)) == case.expected
    assert changes(configure(**{case.twin: case.text})) == case.expected
    path = write_file(f"{case.name}: {case.yaml}\n")
    assert changes(configure("--config.file", path)) == case.expected
    section, _, key = case.name.partition(".")
    write_file(f"{section}:\n  {key}: {case.yaml}\n")
    assert changes(configure(HAKGAL_CONFIG_FILE=str(path))) == case.expected


@each_setting
def test_flag_beats_environment_beats_file(case: Case, write_file: WriteFile) -> None:
    default = next(s.default for s in SETTINGS if s.name == case.name)
    is_switch = case.name.startswith("collector.")
    usual_flag = f"--{case.name}" + ("" if is_switch else f"={default}")
    file_flag = f"--config.file={write_file(f'{case.name}: {case.yaml}')}"
    if default:  # an empty variable counts as unset
        assert configure(file_flag, **{case.twin: default}) == configure()
    assert configure(file_flag, usual_flag) == configure()
    assert configure(usual_flag, **{case.twin: case.text}) == configure()
    assert changes(configure(case.flag, **{case.twin: default})) == case.expected


def test_file_named_by_flag_beats_file_named_in_environment(
    write_file: WriteFile,
) -> None:
    path = write_file("label.limit: 7")
    assert configure("--config.file", path, HAKGAL_CONFIG_FILE="no").label_limit == 7
    assert configure("--config.file=", HAKGAL_CONFIG_FILE=str(path)) == configure()


def test_tilde_is_the_home_folder(
    write_file: WriteFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_file("database.performance: ~/p.db")
    monkeypatch.setenv("HOME", str(path.parent))

    config = configure("--config.file=~/exporter.yml", "--state.file=~/s.json")

    assert (config.performance, config.state_file) == (
        path.parent / "p.db",
        path.parent / "s.json",
    )


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (":8000", ("", 8000)),
        ("127.0.0.1:8000", ("127.0.0.1", 8000)),
        ("[::]:0", ("::", 0)),
        ("[fe80::1%eth0]:8000", ("fe80::1%eth0", 8000)),
        ("local-host.example:65535", ("local-host.example", 65535)),
    ],
)
def test_address_is_split(text: str, expected: tuple[str, int]) -> None:
    assert parse_address(text) == expected


def test_repeated_listen_address_adds_up() -> None:
    flags = ["--web.listen-address", ":1", "--web.listen-address=:2"]
    assert configure(*flags).listen_addresses == (":1", ":2")


def test_collectors_switched_in_all_sources_add_up(write_file: WriteFile) -> None:
    path = write_file("collector: {facts: false, audit: false, cache: false}")
    flags = ["--config.file", path, "--collector.facts", "--no-collector.system"]
    config = configure(*flags, HAKGAL_COLLECTOR_AUDIT="1", HAKGAL_COLLECTOR_FACTS="0")
    assert config.collectors == {"facts", "audit", "queries", "storage"}


def test_empty_state_file_switches_it_off(write_file: WriteFile) -> None:
    assert configure("--state.file=").state_file is None
    assert configure("--config.file", write_file("state: {file: ''}")) == configure(
        HAKGAL_STATE_FILE=""
    )


def test_other_empty_variables_count_as_unset() -> None:
    empty = {s.environment: "" for s in SETTINGS if s.name != "state.file"}
    assert configure(**empty) == configure()


def test_unknown_variables_are_told_with_what_may_be_meant() -> None:
    of_kubernetes = ("SERVICE_HOST", "SERVICE_PORT_HTTP", "PORT", "PORT_8000_TCP_ADDR")
    others = ["HAKGAL_DEMO_DIRECTORY", "HAKGAL_BACKFILL_START", "HOME", "HAKGAL_PORT"]
    others += [f"HAKGAL_EXPORTER_{name}" for name in of_kubernetes]

    assert unknown([*others, "HAKGAL_STATE_FILE", "HAKGAL_WEB_LISTEN_ADRESS"]) == {
        "HAKGAL_WEB_LISTEN_ADRESS": "HAKGAL_WEB_LISTEN_ADDRESS"
    }


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "null", "web:\n  # nothing yet\nlog: {}\n"]
)
def test_file_without_settings_changes_nothing(
    text: str, write_file: WriteFile
) -> None:
    assert configure("--config.file", write_file(text)) == configure()


@pytest.mark.parametrize("wrong", ["--log.lev=debug", "--no-such", "--web.max=3"])
def test_unknown_or_shortened_flag_exits_with_2(
    wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_flags([wrong])
    assert caught.value.code == 2
    assert wrong in capsys.readouterr().err


def test_yaml_library_is_loaded_only_for_a_file(write_file: WriteFile) -> None:
    program = (
        "import sys, exporter.__main__ as m; m.main(); print('yaml' in sys.modules)"
    )
    ask = "healthcheck", "--web.listen-address=127.0.0.1:1"
    assert run(*ask, program=program).stdout == "False\n"
    file = f"--config.file={write_file('')}"
    assert run(*ask, file, program=program).stdout == "True\n"


REFUSED = {
    "database.knowledge-base": ("a\0b", ""),
    "state.file": ("\0", "~nobody-of-this-name/x"),
    "web.listen-address": (
        *("8000", "host", ":", ":65536", "[::1]", "http://x:1", "x:1/y", "x:y"),
        *(":-1", ":8_0", ":\u0663", "me@x:1", ""),
    ),
    "web.telemetry-path": (
        *("metrics", "/-/healthy", "/-/ready", "/a?b", "/a#b", "/a b", "/ä", "/%41"),
        "",
    ),
    "web.max-requests": ("-1", "many", "1.5", "4_0", "٤", "1000000000", ""),
    "query.buckets": (
        *("0", "-0.1", "nan", "inf", "1e999", "1e-999", "fast", "1 1", "3 2 1", ""),
    ),
    "log.level": ("verbose", ""),
    "log.format": ("xml", ""),
}


@pytest.mark.parametrize("name", REFUSED)
def test_wrong_value_is_refused_with_its_place(name: str) -> None:
    twin = Case(name, "", "", {}).twin
    for text in REFUSED[name]:
        refusal = f"got {text!r}, want {WANTED[name]}"
        assert problems(f"--{name}={text}") == [f"flag --{name}: {refusal}"]
        if text:
            where = f"environment variable {twin}"
            assert problems(**{twin: text}) == [f"{where}: {refusal}"]


@pytest.mark.parametrize(
    ("text", "got"),
    [
        ("database.performance:", "nothing"),
        ("database.performance: [a]", "a list"),
        ("database.performance: ''", "''"),
        ("state.file: null", "nothing"),
        ("web.listen-address: [[]]", "'[]'"),
        ("web.listen-address: []", "''"),
        ("web.max-requests: true", "'true'"),
        ("web.max-requests: [4]", "a list"),
        ("collector.audit: 2", "'2'"),
        ("query.buckets: [1, .inf]", "'1 .inf'"),
        ("query.buckets: [1, ~]", "'1 None'"),
        ("log.level: off", "'off'"),
    ],
)
def test_wrong_value_in_file_is_refused_with_its_place(
    text: str, got: str, write_file: WriteFile
) -> None:
    path, name = write_file(text), text.partition(":")[0]
    assert problems("--config.file", path) == [
        f"{path}: {name}: got {got}, want {WANTED[name]}"
    ]


@pytest.mark.parametrize(
    ("text", "name", "meant"),
    [
        ("web: {max_requests: 1}", "web.max_requests", "web.max-requests"),
        ("max-requests: 1", "max-requests", "web.max-requests"),
        ("databse: {performance: x}", "databse.performance", "database.performance"),
        ("web: {max: {requests: z}}", "web.max.requests", "web.max-requests"),
        ("config.file: x", "config.file", "web.config.file"),
        ("database.performance: {a: b}", "database.performance.a", "database."),
        ("web: 5", "web", "web."),
    ],
)
def test_unknown_key_is_refused_with_what_may_be_meant(
    text: str, name: str, meant: str, write_file: WriteFile
) -> None:
    path = write_file(text)
    (problem,) = problems("--config.file", path)
    wanted = f"want a setting, such as {meant}"
    assert problem.startswith(f"{path}: {name}: got an unknown key, {wanted}")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"- web", ": no mapping, want a YAML"),
        (b"web", ": no mapping, want a YAML"),
        (b"label.limit: 1\nlabel.limit: 2", ":1: found 'label.limit' twice, want a"),
        (b"a: 1\nweb: {b: 2,\n c: 3, b: 4}", ":2: found 'b' twice, want a YAML"),
        (b"[web]: {}", ":1: found unhashable key, want a YAML"),
        (b"log: &log\n  level: *log", ":1: found unconstructable recursive node, want"),
        (b"web:\n\tmax-requests: 1", ":2: found character '\\t' that cannot"),
        (b"a: 1\n---\nb: 1", ":2: but found another document, want a YAML"),
        (b"web: \xff", ": unacceptable character #x00ff: invalid start byte"),
        (b"[" * 20_000, ": maximum recursion depth exceeded"),
    ],
)
def test_file_of_another_shape_is_refused(
    content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "broken.yml"
    path.write_bytes(content)
    (problem,) = problems("--config.file", path)
    assert problem.startswith(f"{path}{message}")


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing.yml", "No such file or directory"), (".", "Is a directory")],
)
def test_file_that_cannot_be_read_is_refused(
    name: str, reason: str, tmp_path: Path
) -> None:
    path = tmp_path / name
    expected = f"{path}: {reason}, want a YAML file that can be read"
    assert problems("--config.file", path) == [expected]


def test_configuration_of_the_old_monitor_is_told_where_to_look(
    write_file: WriteFile,
) -> None:
    path = write_file(
        """{
  "database_path": "data/hakgal_performance.db",
  "monitoring_interval": 1.0,
  "alert_thresholds": {"query_latency_ms": 100, "cpu_percent": 80},
  "prometheus": {"host": "0.0.0.0", "port": 8000}
}"""
    )
    assert problems("--config.file", path) == [
        f"{path}: got the old monitor's file; see docs/migration.md"
    ]


def test_none_for_both_databases_is_refused() -> None:
    both = {f"HAKGAL_DATABASE_{n}": "none" for n in ("KNOWLEDGE_BASE", "PERFORMANCE")}
    assert problems(**both) == ["database: got none for both, want at least one"]


@pytest.mark.parametrize("database", ["knowledge-base", "performance"])
def test_state_file_at_a_database_is_refused(database: str, tmp_path: Path) -> None:
    (tmp_path / "link.db").symlink_to("real.db")
    link, state = str(tmp_path / "link.db"), str(tmp_path / "real.db")
    assert problems(f"--database.{database}", link, HAKGAL_STATE_FILE=state) == [
        f"state.file: got {state!r}, a database, want a file of its own"
    ]


def test_all_mistakes_are_reported_at_once(write_file: WriteFile) -> None:
    path = write_file("label: {limit: none}\nquery.buckets: [1, yes]\nfoo: 1\n")
    flags = ["--config.file", path, "--label.limit=5", "--web.max-requests=x"]
    assert problems(*flags, HAKGAL_LOG_LEVEL="loud") == [
        f"{path}: label.limit: got 'none', want {WANTED['label.limit']}",
        f"{path}: query.buckets: got '1 yes', want {WANTED['query.buckets']}",
        f"{path}: foo: got an unknown key, want a setting, such as log.format",
        "environment variable HAKGAL_LOG_LEVEL: got 'loud', want debug, info, warn or"
        " error",
        f"flag --web.max-requests: got 'x', want {WANTED['web.max-requests']}",
    ]
