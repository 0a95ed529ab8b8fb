"""The state file: whole or not at all, durable, and never a crash."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import pytest

from exporter.counting.checkpoint import VERSION, Checkpoint
from exporter.errors import StateError
from tests.databases import Files, beside
from tests.exporters import Page, first_page, other_user, read_state

RESETS = "hakgal_exporter_resets_total"
HITS = "hakgal_cache_hits_total"
TABLES = ("facts", "audit_log", "query_times", "cache_events")
COUNTERS = ("fact", "audit", "query", "cache", "exporter_m", "exporter_r", "exporter_l")


@pytest.fixture
def state(tmp_path: Path) -> Path:
    """Return a state file, of tables with rows of all kinds."""
    with Files(tmp_path) as files:
        for label in ("add_fact", 'ä€𝄞"\\\n', None, "x" * 200):
            files.add_query(0.1 + 0.2, label)
            files.add_audit(label or "none")
        for value in (None, -1, "x", 9e999, 1.7e308, 1.7e308, 5e-324):
            files.add_fact(confidence=value)
            files.add_cache(response_time=value)
        first_page(tmp_path)
        files.performance.recreate("query_times")
        for row in (3, 9):  # missed are those between
            files.add_query(id=row)
            first_page(tmp_path)
    return tmp_path / "exporter-state.json"


def add_hit(folder: Path) -> None:
    with Files(folder) as files:
        files.add_cache(1, 0.5)


def counters(page: Page) -> list[str]:
    """Return what a page says of the rows that were counted."""
    wanted = tuple(f"hakgal_{name}" for name in COUNTERS)
    return [line for line in page.text.splitlines() if line.startswith(wanted)]


def lost(page: Page) -> dict[str, float]:
    return page.by("table", RESETS, reason="state_lost")


def test_everything_that_is_shown_outlives_a_first_page(
    state: Path, tmp_path: Path
) -> None:
    before = counters(first_page(tmp_path))
    assert len(before) > 100
    assert counters(first_page(tmp_path)) == before


def test_file_is_replaced_and_a_link_to_it_stays_one(
    state: Path, tmp_path: Path
) -> None:
    (elsewhere := tmp_path / "elsewhere").mkdir()
    real = state.rename(elsewhere / state.name)
    state.symlink_to(real)
    os.utime(real, (1000, 1000))
    page = first_page(tmp_path)
    assert page("hakgal_exporter_checkpoint_timestamp_seconds") == 1000
    inode = real.stat().st_ino
    add_hit(tmp_path)
    assert first_page(tmp_path)(HITS) == first_page(tmp_path)(HITS) == 5
    assert real.stat().st_ino != inode
    assert state.is_symlink()


def test_tables_that_are_switched_off_stay(state: Path, tmp_path: Path) -> None:
    kept = read_state(tmp_path)
    add_hit(tmp_path)
    assert first_page(tmp_path, collectors=frozenset({"cache"}))(HITS) == 5
    after = read_state(tmp_path)
    assert after.pop("cache_events") != kept.pop("cache_events")
    assert after == kept


def test_changed_buckets_begin_anew_and_say_so(state: Path, tmp_path: Path) -> None:
    before = first_page(tmp_path)
    page = first_page(tmp_path, query_buckets=(0.1, 7.0))
    resets = dict.fromkeys(TABLES, 0) | {"query_times": 1}
    assert page.by("table", RESETS, reason="buckets_changed") == resets
    assert page.sum("hakgal_query_duration_seconds_count") == 0
    missed = "hakgal_exporter_missed_rows_total"
    assert page.sum(missed) == before.sum(missed) > 0


def test_damage_anywhere_is_noticed_and_kept(state: Path) -> None:
    whole = state.read_bytes()
    damaged = [whole[:length] for length in range(0, len(whole) - 1, 7)]
    for position in range(0, whole.index(b"\n"), 5):
        flipped = bytes([whole[position] ^ 0x20])
        damaged.append(whole[:position] + flipped + whole[position + 1 :])
    for content in damaged:
        state.write_bytes(content)
        Checkpoint(state).load([])
        assert not state.exists()
        assert beside(state, ".damaged").read_bytes() == content


@pytest.mark.parametrize(
    "document",
    [
        [],
        {"version": VERSION - 1, "tables": {}},
        {"version": VERSION, "tables": {"query_times": {"cursor": 7}}},
    ],
    ids=["shape", "version", "fields"],
)
def test_nonsense_is_put_aside_and_counting_begins_anew(
    state: Path, tmp_path: Path, document: object, caplog: pytest.LogCaptureFixture
) -> None:
    line = json.dumps(document).encode()
    state.write_bytes(line + b"\n%08x\n" % crc32(line))  # as if it were ours
    page = first_page(tmp_path)
    assert lost(page) == dict.fromkeys(TABLES, 1)
    assert page("hakgal_facts_added_total") == 7  # no id is missing: read again
    assert page.sum("hakgal_query_duration_seconds_count") == 0  # from now on
    assert beside(state, ".damaged").exists()
    assert caplog.records[0].levelname == "WARNING"
    assert lost(first_page(tmp_path)) == dict.fromkeys(TABLES, 1)


def temporary_is(target: str) -> Callable[[Path], None]:
    """Let the new file be a device, which fails at some step of the writing."""
    return lambda path: beside(path, ".tmp").symlink_to(target)


@pytest.mark.parametrize(
    ("prepare", "reason"),
    [
        (lambda path: beside(path, ".tmp").mkdir(), "Is a directory"),
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
    with pytest.raises(StateError, match=f"{reason}.*; counters stop"):
        Checkpoint(state).save({}, {})
    assert state.read_bytes() == before


def test_file_that_cannot_be_read_is_an_error_and_no_damage(open_folder: Path) -> None:
    (path := open_folder / "state.json").write_text("whole")
    path.chmod(0)
    open_folder.chmod(0o777)
    reason = r"Permission denied: .*json'; make it readable"
    with other_user(), pytest.raises(StateError, match=reason):
        Checkpoint(path).load([])
    assert path.read_text() == "whole"
