"""The state file: whole or not at all, durable, and never a crash."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest

from exporter.counting.checkpoint import VERSION, Checkpoint
from exporter.errors import StateError
from tests.databases import Files
from tests.exporters import Page, make_config, make_exporter, read_state, scrape
from tests.users import open_folder, other_user

__all__ = ["open_folder"]  # a fixture

RESETS = "hakgal_exporter_resets_total"
TABLES = ("facts", "audit_log", "query_times", "cache_events")
CLAIM = """
import sys
from pathlib import Path
from exporter.counting.checkpoint import Checkpoint
checkpoint = Checkpoint(Path(sys.argv[1]))
checkpoint.claim()
print("claimed", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def state(files: Files, tmp_path: Path) -> Path:
    """Return a state file, of tables with rows of all kinds."""
    for label in ("add_fact", 'ä€𝄞"\\\n', None, "x" * 200):
        files.add_query(0.1 + 0.2, label)
        files.add_audit(label or "none")
    for value in (None, -1, "x", 9e999, 1.7e308, 1.7e308, 5e-324):
        files.add_fact(confidence=value)
        files.add_cache(response_time=value)
    restart(tmp_path)
    files.performance.recreate("query_times")
    for row in (3, 9):  # missed are those between
        files.add_query(id=row)
        restart(tmp_path)
    return tmp_path / "exporter-state.json"


def restart(folder: Path, **changes: object) -> Page:
    """Return the first page of a new exporter."""
    return scrape(make_exporter(make_config(folder, **changes)))


def counters(page: Page) -> list[str]:
    """Return what a page says of the rows that were counted."""
    names = (
        "fact",
        "audit",
        "query",
        "cache",
        "exporter_m",
        "exporter_r",
        "exporter_l",
    )
    wanted = tuple(f"hakgal_{name}" for name in names)
    return [line for line in page.text.splitlines() if line.startswith(wanted)]


def lost(page: Page) -> dict[str, float]:
    return page.by("table", RESETS, reason="state_lost")


def aside(path: Path) -> Path:
    return path.with_name(path.name + ".damaged")


def write(path: Path, line: bytes) -> None:
    """Write a line as if it were ours, with the right checksum."""
    path.write_bytes(line + b"\n%08x\n" % crc32(line))


def test_everything_that_is_shown_outlives_a_restart(
    state: Path, tmp_path: Path
) -> None:
    before = counters(restart(tmp_path))
    assert len(before) > 100
    for _ in range(2):
        assert counters(restart(tmp_path)) == before


def test_rest_of_an_interrupted_write_does_not_matter(
    state: Path, files: Files, tmp_path: Path
) -> None:
    rest = state.with_name(state.name + ".tmp")
    rest.write_bytes(state.read_bytes()[:100])
    files.add_cache(1, 0.5)
    page = restart(tmp_path)
    assert page("hakgal_cache_hits_total") == 5
    assert set(lost(page).values()) == {0}
    assert not rest.exists()


def test_file_is_replaced_and_a_link_to_it_stays_one(
    state: Path, files: Files, tmp_path: Path
) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    real = state.rename(elsewhere / state.name)
    state.symlink_to(real)
    with real.open("rb") as old:
        before = old.read()
        files.add_cache(1, 0.5)
        restart(tmp_path)
        old.seek(0)
        assert old.read() == before != real.read_bytes()
    assert state.is_symlink()
    assert restart(tmp_path)("hakgal_cache_hits_total") == 5


def test_time_of_the_last_save_is_known_after_a_restart(
    state: Path, tmp_path: Path
) -> None:
    os.utime(state, (1000, 1000))
    page = restart(tmp_path)
    assert page("hakgal_exporter_checkpoint_timestamp_seconds") == 1000


def test_tables_that_are_switched_off_stay(
    state: Path, files: Files, tmp_path: Path
) -> None:
    before = counters(restart(tmp_path))
    kept = read_state(tmp_path)
    files.add_audit("new")
    page = restart(tmp_path, collectors=frozenset({"audit"}))
    assert page("hakgal_audit_events_total", operation="new") == 1
    after = read_state(tmp_path)
    assert {n: kept[n] for n in TABLES if n != "audit_log"}.items() <= after.items()
    assert [line for line in before if "audit" not in line] == [
        line for line in counters(restart(tmp_path)) if "audit" not in line
    ]


def test_changed_buckets_begin_anew_and_say_so(state: Path, tmp_path: Path) -> None:
    before = restart(tmp_path)
    page = restart(tmp_path, query_buckets=(0.1, 7.0))
    assert page.by("table", RESETS, reason="buckets_changed") == {
        name: float(name == "query_times") for name in TABLES
    }
    assert page.sum("hakgal_query_duration_seconds_count") == 0
    for name in ("missed_rows", "rejected_rows", "label_overflows"):
        metric = f"hakgal_exporter_{name}_total"
        assert page.sum(metric) == before.sum(metric)


def test_damage_anywhere_is_noticed_and_kept(state: Path) -> None:
    whole = state.read_bytes()
    end = whole.index(b"\n")
    damaged = [whole[:length] for length in range(0, len(whole) - 1, 7)]
    for position in range(0, end, 5):
        flipped = bytes([whole[position] ^ 0x20])
        damaged.append(whole[:position] + flipped + whole[position + 1 :])
    for content in damaged:
        state.write_bytes(content)
        Checkpoint(state).load([])
        assert not state.exists()
        assert aside(state).read_bytes() == content


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"[]",
        b"null",
        b"{}",
        b"\xff",
        b'{"version":%d}' % VERSION,
        b'{"version":1,"tables":{}}',
        b'{"version":%d,"tables":7}' % VERSION,
        b'{"version":%d,"tables":{"query_times":7}}' % VERSION,
        b'{"version":%d,"tables":{"query_times":{}}}' % VERSION,
    ],
    ids=lambda line: line.decode("ascii", "replace"),
)
def test_nonsense_is_put_aside_and_counting_begins_anew(
    state: Path, tmp_path: Path, line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    write(state, line)
    page = restart(tmp_path)
    assert lost(page) == dict.fromkeys(TABLES, 1)
    assert page("hakgal_facts_added_total") == 7  # no id is missing: read again
    assert page.sum("hakgal_query_duration_seconds_count") == 0  # from now on
    assert aside(state).exists()
    assert caplog.records[0].levelname == "WARNING"
    assert set(lost(restart(tmp_path)).values()) == {1}


def test_missing_field_is_damage_of_all(state: Path, tmp_path: Path) -> None:
    document = json.loads(state.read_bytes().partition(b"\n")[0])
    del document["tables"]["query_times"]["cursor"]
    document["tables"]["query_times"].pop("known")
    write(state, json.dumps(document).encode())
    assert lost(restart(tmp_path)) == dict.fromkeys(TABLES, 1)


def temporary_is(target: str) -> Callable[[Path], None]:
    """Let the new file be a device, which fails at some step of the writing."""
    return lambda path: path.with_name(path.name + ".tmp").symlink_to(target)


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda path: path.with_name(path.name + ".tmp").mkdir(), "Is a directory"),
        (temporary_is("/dev/full"), "No space left on device"),
        (temporary_is("/dev/null"), "Invalid argument"),
    ],
    ids=["open", "write", "fsync"],
)
def test_failure_leaves_the_old_file(
    state: Path, prepare: Callable[[Path], None], reason: str
) -> None:
    before = state.read_bytes()
    prepare(state)
    checkpoint = Checkpoint(state)
    checkpoint.load([])
    with pytest.raises(StateError, match=f"{reason}.*; counters stand still"):
        checkpoint.save({}, {})
    assert state.read_bytes() == before


def test_second_exporter_is_refused_until_the_first_was_killed(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    with subprocess.Popen(
        [sys.executable, "-c", CLAIM, path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as first:
        assert first.stdout
        assert first.stdout.readline() == "claimed\n"
        with pytest.raises(StateError, match="another exporter uses it"):
            Checkpoint(path).claim()
        Checkpoint(path.with_name("other.json")).claim()
        first.kill()
        first.communicate()
        Checkpoint(path).claim()


def test_folder_is_made(tmp_path: Path) -> None:
    Checkpoint(tmp_path / "a" / "b" / "state.json").claim()
    assert (tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize("name", ["state.json", "folder/state.json"])
def test_folder_that_cannot_be_written_is_refused(open_folder: Path, name: str) -> None:
    open_folder.chmod(0o555)
    with (
        other_user(),
        pytest.raises(StateError, match=r"Permission denied: .*; make it writable"),
    ):
        Checkpoint(open_folder / name).claim()


def test_file_that_cannot_be_read_is_an_error_and_no_damage(open_folder: Path) -> None:
    (path := open_folder / "state.json").write_text("whole")
    path.chmod(0)
    open_folder.chmod(0o777)
    with (
        other_user(),
        pytest.raises(StateError, match=r"Permission denied: .*json; make it"),
    ):
        Checkpoint(path).load([])
    assert path.read_text() == "whole"
    path.unlink()
    path.mkdir()
    with pytest.raises(StateError, match="Is a directory"):
        Checkpoint(path).load([])
