"""Settings: where they come from, which one wins, what is refused and how."""

import argparse
import dataclasses
import subprocess
import sys
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from exporter.config import COLLECTORS, SETTINGS, Config, add_flags, load
from exporter.errors import ConfigError
from exporter.settings import parse_address

ADDRESSES = ":PORT, HOST:PORT or [IPV6]:PORT with a port up to 65535"
BUCKETS = "finite numbers above 0, each above the one before (+Inf is added by itself)"
URL_PATH = "/ and then letters, digits or any of /._~-, but not /-/healthy or /-/ready"
WEB_KEYS = "web.listen-address, web.telemetry-path, web.config.file, web.max-requests"
SECTIONS = "database, state, web, collector, query, label, log"

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
    parser = argparse.ArgumentParser("hakgal-exporter")
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
    config = configure()
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.label_limit = 1  # type: ignore[misc]
    assert hash(config) == hash(configure())


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
    Case("database.performance", "p.db", "'p.db'", {"performance": Path("p.db")}),
    Case("state.file", "s.json", "s.json", {"state_file": Path("s.json")}),
    Case(
        "web.listen-address",
        "[::1]:1, host:2 :3",
        "['[::1]:1', 'host:2', ':3']",
        {"listen_addresses": ("[::1]:1", "host:2", ":3")},
    ),
    Case("web.telemetry-path", "/a/b-c", "/a/b-c", {"telemetry_path": "/a/b-c"}),
    Case("web.config.file", "w.yml", "w.yml", {"web_config_file": Path("w.yml")}),
    Case("web.max-requests", "0", "0", {"max_requests": 0}),
    *(
        Case(f"collector.{name}", "No", "no", {"collectors": {*COLLECTORS} - {name}})
        for name in COLLECTORS
    ),
    Case("query.buckets", "1e-3, 2", "[1e-3, 2]", {"query_buckets": (0.001, 2)}),
    Case("label.limit", "1", "1", {"label_limit": 1}),
    Case("log.level", "WARN", "WARN", {"log_level": "warn"}),
    Case("log.format", "json", '"json"', {"log_format": "json"}),
]
each_setting = pytest.mark.parametrize("case", CASES, ids=[case.name for case in CASES])


def test_no_setting_is_left_untried() -> None:
    assert ["config.file", *(c.name for c in CASES)] == [s.name for s in SETTINGS]


@each_setting
def test_flag_is_read(case: Case) -> None:
    assert changes(configure(case.flag)) == case.expected


@each_setting
def test_environment_twin_is_read(case: Case) -> None:
    assert changes(configure(**{case.twin: case.text})) == case.expected
    assert case.twin in [setting.environment for setting in SETTINGS]


@each_setting
def test_dotted_key_is_read(case: Case, write_file: WriteFile) -> None:
    path = write_file(f"{case.name}: {case.yaml}\n")
    assert changes(configure("--config.file", path)) == case.expected


@each_setting
def test_nested_key_is_read(case: Case, write_file: WriteFile) -> None:
    section, _, key = case.name.partition(".")
    path = write_file(f"{section}:\n  {key}: {case.yaml}\n")
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


def test_section_in_a_section_is_opened(write_file: WriteFile) -> None:
    path = write_file("web:\n  config:\n    file: w.yml\n")
    assert changes(configure("--config.file", path)) == {
        "web_config_file": Path("w.yml")
    }


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


def test_single_value_in_file_is_a_list_of_one(write_file: WriteFile) -> None:
    path = write_file("web.listen-address: ':1'\nquery.buckets: 3")
    config = configure("--config.file", path)
    assert (config.listen_addresses, config.query_buckets) == ((":1",), (3,))


@pytest.mark.parametrize(
    ("arguments", "environment", "on_file"),
    [
        pytest.param(["--state.file="], {}, "", id="flag"),
        pytest.param([], {"HAKGAL_STATE_FILE": ""}, "state.file: x", id="environment"),
        pytest.param([], {}, "state: {file: ''}", id="file"),
    ],
)
def test_empty_state_file_switches_it_off(
    arguments: list[str],
    environment: Mapping[str, str],
    on_file: str,
    write_file: WriteFile,
) -> None:
    path = write_file(on_file)
    config = configure("--config.file", path, *arguments, **environment)
    assert config.state_file is None


@pytest.mark.parametrize("name", ["knowledge_base", "performance"])
def test_none_leaves_a_database_out(name: str) -> None:
    config = configure(f"--database.{name.replace('_', '-')}=none")
    assert getattr(config, name) is None
    assert list(config.databases) == sorted({"knowledge_base", "performance"} - {name})


def test_none_for_both_databases_is_refused() -> None:
    assert problems(
        "--database.knowledge-base=none", HAKGAL_DATABASE_PERFORMANCE="none"
    ) == [
        "environment variable HAKGAL_DATABASE_PERFORMANCE: got none for both"
        " databases, want at least one"
    ]


def test_other_empty_variables_count_as_unset() -> None:
    empty = {s.environment: "" for s in SETTINGS if s.name != "state.file"}
    assert configure(**empty) == configure()


def test_variables_of_the_application_are_ignored() -> None:
    assert configure(HAKGAL_API_KEY="x", HAKGAL_DEMO_DIRECTORY="y") == configure()


@pytest.mark.parametrize(
    "text", ["", "# nothing\n", "---\n", "null", "web:\n  # nothing yet\nlog: {}\n"]
)
def test_file_without_settings_changes_nothing(
    text: str, write_file: WriteFile
) -> None:
    assert configure("--config.file", write_file(text)) == configure()


def test_flags_before_a_subcommand_are_kept() -> None:
    parser = argparse.ArgumentParser()
    add_flags(parser)
    add_flags(parser.add_subparsers().add_parser("demo"))
    arguments = ["--log.level=debug", "--label.limit=2", "demo", "--label.limit=3"]
    config = load(parser.parse_args(arguments), {})
    assert changes(config) == {"log_level": "debug", "label_limit": 3}


@pytest.mark.parametrize("wrong", ["--log.lev=debug", "--no-such", "--web.max=3"])
def test_unknown_or_shortened_flag_exits_with_2(
    wrong: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as caught:
        parse_flags([wrong])
    assert caught.value.code == 2
    assert wrong in capsys.readouterr().err


def test_help_shows_each_setting_with_its_default(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit):
        parse_flags(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    for setting in SETTINGS:
        assert f"--{setting.name}" in shown
        assert f"{setting.help} Default: {setting.default or 'none'}." in shown
        assert setting.help.endswith(".")


@pytest.mark.parametrize(("with_file", "loaded"), [(False, "False"), (True, "True")])
def test_yaml_library_is_loaded_only_for_a_file(
    with_file: bool, loaded: str, write_file: WriteFile
) -> None:
    program = (
        "import argparse, sys; from exporter.config import add_flags, load;"
        "parser = argparse.ArgumentParser(); add_flags(parser);"
        "load(parser.parse_args(), {}); print('yaml' in sys.modules)"
    )
    flags = [f"--config.file={write_file('')}"] if with_file else []
    command = [sys.executable, "-c", program, *flags]
    assert subprocess.check_output(command, text=True).strip() == loaded


def refused(name: str, got: str, wanted: str) -> Any:
    return pytest.param(name, got, wanted, id=f"{name}={got}")


REFUSED_TEXTS = [
    ("database.knowledge-base", "a\0b", "a path, or none"),
    ("state.file", "\0", "a path, or empty text for none"),
    *(
        ("web.listen-address", text, ADDRESSES)
        for text in (
            *("8000", "host", ":", ":65536", "::1:8000", "[::1]", "[]:1", "*:1"),
            *("http://x:1", "x:1/y", "x:y", ":-1", ":8_0", ":\u0663"),
        )
    ),
    *(
        ("web.telemetry-path", text, URL_PATH)
        for text in (
            *("metrics", "/-/healthy", "/-/ready", "/a?b", "/a#b", "/a b", "/ä"),
            *("/%41", "/a\n"),
        )
    ),
    *(
        ("web.max-requests", text, "a whole number from 0")
        for text in ("-1", "many", "1.5", "4_0", "٤", " 1", "1000000000")
    ),
    *(("label.limit", text, "a whole number from 1") for text in ("0", "-1", "1e2")),
    *(
        ("query.buckets", text, BUCKETS)
        for text in ("0", "-0.1", "nan", "inf", "1e999", "1e-999", "fast", "true")
    ),
    ("log.level", "verbose", "debug, info, warn or error"),
    ("log.format", "xml", "logfmt or json"),
]
each_refused_text = pytest.mark.parametrize(
    ("name", "text", "wanted"),
    REFUSED_TEXTS,
    ids=[f"{name}={text!r}" for name, text, _ in REFUSED_TEXTS],
)


@each_refused_text
def test_flag_with_wrong_value_is_refused(name: str, text: str, wanted: str) -> None:
    assert problems(f"--{name}={text}") == [
        f"flag --{name}: got {text!r}, want {wanted}"
    ]


@each_refused_text
def test_variable_with_wrong_value_is_refused(
    name: str, text: str, wanted: str
) -> None:
    twin = Case(name, text, "", {}).twin
    assert problems(**{twin: text}) == [
        f"environment variable {twin}: got {text!r}, want {wanted}"
    ]


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("database.performance", "a path, or none"),
        ("web.listen-address", ADDRESSES),
        ("web.telemetry-path", URL_PATH),
        ("web.max-requests", "a whole number from 0"),
        ("query.buckets", BUCKETS),
        ("label.limit", "a whole number from 1"),
        ("log.level", "debug, info, warn or error"),
    ],
)
def test_empty_flag_is_refused(name: str, wanted: str) -> None:
    assert problems(f"--{name}=") == [f"flag --{name}: got '', want {wanted}"]


def test_switch_with_wrong_value_is_refused() -> None:
    assert problems(HAKGAL_COLLECTOR_FACTS="maybe") == [
        "environment variable HAKGAL_COLLECTOR_FACTS: got 'maybe', want true or false"
    ]


@pytest.mark.parametrize(
    ("buckets", "got"),
    [("1 1", ["1 after 1"]), ("3 2 1", ["2 after 3", "1 after 2"])],
)
def test_buckets_that_do_not_increase_are_refused(buckets: str, got: list[str]) -> None:
    where = "flag --query.buckets"
    assert problems("--query.buckets", buckets) == [
        f"{where}: got {text}, want {BUCKETS}" for text in got
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("database.performance: true", "got boolean 'true', want a path, or none"),
        ("database.performance: 5", "got number '5', want a path, or none"),
        ("database.performance:", "got nothing, want a path, or none"),
        (
            "database.performance: 2025-01-01",
            "got timestamp '2025-01-01', want a path, or none",
        ),
        ("database.performance: [a]", "got a list, want a path, or none"),
        ("database.performance: {}", "got a mapping, want a path, or none"),
        ("database.performance: ''", "got '', want a path, or none"),
        ("state.file: null", "got nothing, want a path, or empty text for none"),
        ("web.listen-address: 8000", f"got number '8000', want {ADDRESSES}"),
        ("web.listen-address: [[]]", f"got a list, want {ADDRESSES}"),
        ("web.listen-address: []", f"got '', want {ADDRESSES}"),
        ("web.telemetry-path: 1", f"got number '1', want {URL_PATH}"),
        ("web.max-requests: '40'", "got text '40', want a whole number from 0"),
        ("web.max-requests: forty", "got 'forty', want a whole number from 0"),
        ("web.max-requests: true", "got 'true', want a whole number from 0"),
        ("web.max-requests: 4.0", "got '4.0', want a whole number from 0"),
        ("web.max-requests: [4]", "got a list, want a whole number from 0"),
        ("collector.audit: 'no'", "got text 'no', want true or false"),
        ("collector.audit: 2", "got '2', want true or false"),
        ("query.buckets: []", f"got '', want {BUCKETS}"),
        ("query.buckets: [1, .inf]", f"got '.inf', want {BUCKETS}"),
        ("query.buckets: [1, ~]", f"got nothing, want {BUCKETS}"),
        ("query.buckets: [2, 1]", f"got 1 after 2, want {BUCKETS}"),
        ("log.level: off", "got boolean 'off', want debug, info, warn or error"),
    ],
)
def test_wrong_value_in_file_is_refused_with_its_line(
    text: str, message: str, write_file: WriteFile
) -> None:
    path = write_file(f"# first line\n{text}\n")
    name = text.partition(":")[0]
    assert problems("--config.file", path) == [f"{path}:2: {name}: {message}"]


@pytest.mark.parametrize(
    ("text", "name", "hint"),
    [
        ("web: {max_requests: 1}", "web.max_requests", "'web.max-requests'?"),
        ("max-requests: 1", "max-requests", "'web.max-requests'?"),
        ("databse: {performance: x}", "databse.performance", "'database.performance'?"),
        ("web.x: 1", "web.x", WEB_KEYS),
        ("web: {x: {y: z}}", "web.x.y", WEB_KEYS),
        ("config.file: x", "config.file", "'web.config.file'?"),
        ("5: 1", "5", SECTIONS),
    ],
)
def test_unknown_key_is_refused_with_a_hint(
    text: str, name: str, hint: str, write_file: WriteFile
) -> None:
    path = write_file(f"# first line\n{text}")
    advice = f"did you mean {hint}" if hint.endswith("?") else f"want one of {hint}"
    assert problems("--config.file", path) == [
        f"{path}:2: got unknown key {name!r}, {advice}"
    ]


@pytest.mark.parametrize(
    ("key", "got"), [("[web]", "a list"), ('"a\\nb"', "text 'a\\nb'")]
)
def test_key_that_is_no_name_is_refused(
    key: str, got: str, write_file: WriteFile
) -> None:
    path = write_file(f"{key}: 1")
    expected = f"{path}:1: got {got} as a key, want a name"
    assert problems("--config.file", path) == [expected]


@pytest.mark.parametrize(
    "text",
    [
        "label.limit: 1\nlabel.limit: 2",
        "label.limit: 1\nlabel: {limit: 2}",
        "label.limit: wrong\n'label.limit': 2",
        "label: {limit: 1,\n  limit: 1}",
    ],
)
def test_key_given_twice_is_refused(text: str, write_file: WriteFile) -> None:
    path = write_file(text)
    expected = f"{path}:2: label.limit: got again, want it in line 1 only"
    assert expected in problems("--config.file", path)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("web: {}\nweb: {}", ":2: web: got again, want it in line 1 only"),
        ("web: 5", ":1: web: got number '5', want a mapping"),
        ("collector: [facts]", ":1: collector: got a list, want a mapping"),
        ("- web", ": got a list, want a mapping"),
        ("web", ": got text 'web', want a mapping"),
    ],
)
def test_wrong_shape_of_file_is_refused(
    text: str, message: str, write_file: WriteFile
) -> None:
    path = write_file(text)
    assert problems("--config.file", path) == [f"{path}{message}"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        pytest.param(
            b"web:\n\tmax-requests: 1",
            ":2: not YAML (while scanning for the next token, found character"
            " '\\t' that cannot start any token), want a mapping",
            id="tab",
        ),
        pytest.param(
            b"a: 1\n---\nb: 1",
            ":2: not YAML (expected a single document in the stream, but found another"
            " document), want a mapping",
            id="two documents",
        ),
        pytest.param(
            b"web: \xff",
            ": not YAML (unacceptable character #x00ff: invalid start byte in"
            ' "<byte string>", position 5), want a mapping',
            id="not UTF-8",
        ),
    ],
)
def test_broken_yaml_is_refused_with_its_line(
    content: bytes, message: str, tmp_path: Path
) -> None:
    path = tmp_path / "broken.yml"
    path.write_bytes(content)
    assert problems("--config.file", path) == [f"{path}{message}"]


def test_endless_nesting_is_refused(write_file: WriteFile) -> None:
    path = write_file("[" * 20_000)
    (problem,) = problems("--config.file", path)
    assert problem.startswith(f"{path}: not YAML (maximum recursion depth exceeded")


def test_mapping_that_contains_itself_is_refused(write_file: WriteFile) -> None:
    path = write_file("log: &log\n  log: *log\n")
    assert problems("--config.file", path) == [
        f"{path}:2: got unknown key 'log.log.log', did you mean 'log.level'?"
    ]


@pytest.mark.parametrize(
    ("name", "reason"),
    [("missing.yml", "No such file or directory"), (".", "Is a directory")],
)
def test_file_that_cannot_be_read_is_refused(
    name: str, reason: str, tmp_path: Path
) -> None:
    path = str(tmp_path / name)
    message = f"got {path!r} ({reason}), want a file that can be read"
    assert problems("--config.file", path) == [f"flag --config.file: {message}"]
    assert problems(HAKGAL_CONFIG_FILE=path) == [
        f"environment variable HAKGAL_CONFIG_FILE: {message}"
    ]


def test_configuration_of_the_old_monitor_is_refused_readably(
    write_file: WriteFile,
) -> None:
    path = write_file(
        """{
  "database_path": "data/hakgal_performance.db",
  "monitoring_interval": 1.0,
  "alert_thresholds": {"query_latency_ms": 100, "cpu_percent": 80},
  "prometheus": {"host": "0.0.0.0", "port": 8000},
  "logging": {"level": "INFO", "format": "%(asctime)s %(message)s"}
}"""
    )
    assert problems("--config.file", path) == [
        f"flag --config.file: got '{path}', the old monitor's configuration, want a"
        " YAML file; docs/migration.md says what to put where"
    ]


def test_all_collectors_off_is_refused() -> None:
    assert problems(*(f"--no-collector.{name}" for name in COLLECTORS)) == [
        "collector: got all off, want at least one of "
        "facts, audit, queries, cache, storage, system"
    ]


def test_collectors_switched_in_all_sources_add_up(write_file: WriteFile) -> None:
    path = write_file("collector: {facts: false, audit: false, cache: false}")
    flags = ["--config.file", path, "--collector.facts", "--no-collector.system"]
    config = configure(*flags, HAKGAL_COLLECTOR_AUDIT="1", HAKGAL_COLLECTOR_FACTS="0")
    assert config.collectors == {"facts", "audit", "queries", "storage"}


@pytest.mark.parametrize("performance", ["x.db", "./x.db", "folder/../x.db", "link"])
def test_one_file_for_both_databases_is_refused(
    performance: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("link").symlink_to("x.db")
    flags = ["--database.knowledge-base=x.db", "--database.performance", performance]
    assert problems(*flags) == [
        f"flag --database.performance: got {str(Path(performance))!r}, a file of"
        " database.knowledge-base ('x.db'), want another one"
    ]


@pytest.mark.parametrize("suffix", ["", "-wal", "-shm", "-journal"])
@pytest.mark.parametrize("database", ["knowledge-base", "performance"])
def test_state_file_at_a_file_of_a_database_is_refused(
    database: str, suffix: str, tmp_path: Path
) -> None:
    # A link, because SQLite keeps the side files where it points to.
    (tmp_path / "link.db").symlink_to("real.db")
    link, state = str(tmp_path / "link.db"), str(tmp_path / f"real.db{suffix}")
    assert problems(f"--database.{database}", link, HAKGAL_STATE_FILE=state) == [
        f"environment variable HAKGAL_STATE_FILE: got {state!r}, a file of"
        f" database.{database} ({link!r}), want another one"
    ]


def test_state_file_at_the_configuration_file_is_refused(write_file: WriteFile) -> None:
    path = str(write_file(""))
    assert problems("--config.file", path, "--state.file", path) == [
        f"flag --state.file: got {path!r}, a file of config.file ({path!r}),"
        " want another one"
    ]


def test_all_mistakes_are_reported_at_once(write_file: WriteFile) -> None:
    path = write_file("label: {limit: none}\nquery.buckets: [1, '2', yes]\nfoo: 1\n")
    flags = ["--config.file", path, "--web.listen-address=x", "--web.listen-address=y"]
    same = ["--database.performance=data/hexagonal_kb.db"]
    assert problems(*flags, *same, HAKGAL_LOG_LEVEL="loud") == [
        f"{path}:2: query.buckets: got text '2', want {BUCKETS}",
        f"{path}:3: got unknown key 'foo', want one of {SECTIONS}",
        f"{path}:1: label.limit: got 'none', want a whole number from 1",
        f"{path}:2: query.buckets: got 'yes', want {BUCKETS}",
        "environment variable HAKGAL_LOG_LEVEL: got 'loud',"
        " want debug, info, warn or error",
        f"flag --web.listen-address: got 'x', want {ADDRESSES}",
        f"flag --web.listen-address: got 'y', want {ADDRESSES}",
        "flag --database.performance: got 'data/hexagonal_kb.db', a file of"
        " database.knowledge-base ('data/hexagonal_kb.db'), want another one",
    ]


def test_value_that_another_beats_is_checked_too(write_file: WriteFile) -> None:
    path = write_file("label.limit: 0")
    expected = [f"{path}:1: label.limit: got '0', want a whole number from 1"]
    assert problems("--config.file", path, "--label.limit=5") == expected
