"""The state file: whole or not at all, and never a crash."""

import errno
import json
import logging
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import fields, replace
from functools import partial
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from exporter.checkpoint import VERSION, Checkpoint
from exporter.errors import StateError
from exporter.fold import Counts, Exemplar, Series, Table
from exporter.identity import Fingerprints, Life
from exporter.tail import RESET_REASONS, State, Tail
from tests.users import open_folder, other_user

__all__ = ["open_folder"]  # a fixture

TABLE = Table(
    "query_times",
    lasting=("timestamp",),
    label="query_type",
    flag="success",
    value="query_time",
    buckets=(0.1, 1.0),
    known_labels=("add_fact",),
)
OTHER_TABLE = replace(TABLE, name="audit_log")
KNOWN = Fingerprints(3, (0, 1, 2**32 - 1), ((1, 7), (2, 2**32 - 1)))
# No field has its default, except those of a state that is not saved.
STATE = State(
    Counts(
        {
            ("add_fact", 0): Series([1, 2, 3, 4], 0.1 + 0.2),
            ("add_fact", 1): Series([0, 0, 0, 0], 0.0),
            ('ä€𝄞"\\\n\ufffd', 0): Series([2**70, 0, 0, 0], 1.7976931348623157e308),
            ('ä€𝄞"\\\n\ufffd', 1): Series([0, 0, 1, 0], float("inf")),
        },
        {"null": 1, "not_a_number": 2, "not_a_boolean": 3, "negative": 4}
        | {"infinite": 5},
        6,
    ),
    cursor=2**63 - 1,
    passed=2**64,
    rows=10,
    missed=2**64 - 10,
    newest=1767225600.25,
    file=(64512, 2**40),
    known=KNOWN,
    past=(Life(17, KNOWN, 1.5), Life(0, Fingerprints(), None)),
    resets={reason: number for number, reason in enumerate(RESET_REASONS, 1)},
)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state.json"


def save(path: Path, state: State = STATE, table: Table = TABLE) -> None:
    checkpoint = Checkpoint(path)
    checkpoint.load([table])
    checkpoint.save({table.name: table}, {table.name: state})


def load(path: Path, table: Table = TABLE) -> tuple[State | None, str]:
    states, reason = Checkpoint(path).load([table])
    return states.get(table.name), reason


def write(path: Path, line: bytes) -> None:
    """Write a line as if it were ours, with the right checksum."""
    path.write_bytes(line + b"\n%08x\n" % crc32(line))


def aside(path: Path) -> Path:
    return path.with_name(path.name + ".damaged")


def test_every_field_comes_back(path: Path) -> None:
    default = State(Counts())
    constant = {"complete", "reason"}
    for field in fields(State):
        is_default = getattr(STATE, field.name) == getattr(default, field.name)
        assert is_default == (field.name in constant), field.name
    save(path)
    assert load(path) == (STATE, "state_missing")


def test_state_of_a_new_table_comes_back(path: Path) -> None:
    state = State(Counts.zero(TABLE))
    save(path, state)
    assert load(path) == (state, "state_missing")


def test_exemplars_are_not_kept(path: Path) -> None:
    series = Series([1, 0, 0, 0], 0.05, {0: Exemplar(1, 0.05)})
    save(path, State(Counts({("add_fact", 0): series})))
    state, _ = load(path)
    assert state
    assert state.counts.series["add_fact", 0] == Series([1, 0, 0, 0], 0.05)


def test_labels_that_have_become_known_are_there_at_zero(path: Path) -> None:
    save(path)
    known = replace(TABLE, known_labels=("add_fact", "new"))
    state, _ = load(path, known)
    assert state
    assert state.counts.series["new", 1] == Series([0, 0, 0, 0])


def test_reasons_of_a_later_version_start_at_zero(path: Path) -> None:
    resets = {"file_replaced": 3}
    save(path, replace(STATE, resets=resets))
    state, _ = load(path)
    assert state
    assert state.resets == dict.fromkeys(RESET_REASONS, 0) | resets


def test_missing_file_is_no_damage(path: Path) -> None:
    assert load(path) == (None, "state_missing")
    assert Checkpoint(path).verify() is None
    assert list(path.parent.iterdir()) == []


def test_table_that_is_not_in_the_file_is_missing(path: Path) -> None:
    save(path)
    assert load(path, OTHER_TABLE) == (None, "state_missing")


def test_other_tables_are_kept(path: Path) -> None:
    save(path)
    save(path, State(Counts.zero(OTHER_TABLE), cursor=5), OTHER_TABLE)
    assert load(path)[0] == STATE
    other, _ = load(path, OTHER_TABLE)
    assert other
    assert other.cursor == 5


def test_time_of_the_last_save_is_known(path: Path) -> None:
    assert Checkpoint(path).saved_at is None
    checkpoint = Checkpoint(path)
    checkpoint.save({TABLE.name: TABLE}, {TABLE.name: STATE})
    assert checkpoint.saved_at == path.stat().st_mtime
    os.utime(path, (1000, 1000))
    checkpoint = Checkpoint(path)
    checkpoint.load([TABLE])
    assert checkpoint.saved_at == 1000


def test_nothing_else_is_left_in_the_folder(path: Path) -> None:
    for _ in range(3):
        save(path)
    assert os.listdir(path.parent) == [path.name]


def test_file_is_replaced_and_not_written_over(path: Path) -> None:
    save(path)
    with path.open("rb") as old:
        before = old.read()
        save(path, replace(STATE, cursor=1))
        old.seek(0)
        assert old.read() == before
        assert path.read_bytes() != before


def test_rest_of_an_interrupted_write_does_not_matter(path: Path) -> None:
    save(path)
    path.with_name(path.name + ".tmp").write_bytes(path.read_bytes()[:100])
    assert load(path)[0] == STATE
    save(path, replace(STATE, cursor=1))
    assert os.listdir(path.parent) == [path.name]


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
    path: Path, prepare: Callable[[Path], None], reason: str
) -> None:
    save(path)
    prepare(path)
    with pytest.raises(StateError, match=f"{reason}; counters stand still"):
        save(path, replace(STATE, cursor=1))
    assert load(path)[0] == STATE


def test_failing_rename_is_said(path: Path) -> None:
    checkpoint = Checkpoint(path)
    (path / "occupied").mkdir(parents=True)
    with pytest.raises(StateError, match="counters stand still"):
        checkpoint.save({TABLE.name: TABLE}, {TABLE.name: STATE})
    assert checkpoint.saved_at is None


@contextmanager
def file_size_limit(size: int) -> Iterator[None]:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("size", [0, 1, 100], ids=str)
def test_file_that_grows_too_large_leaves_the_old_one(path: Path, size: int) -> None:
    save(path)
    with (
        pytest.raises(StateError, match="File too large; counters stand still"),
        file_size_limit(size),
    ):
        save(path, replace(STATE, cursor=1))
    assert load(path)[0] == STATE
    save(path, replace(STATE, cursor=2))  # once there is room again


def test_folder_without_permission_leaves_the_old_file(open_folder: Path) -> None:
    path = open_folder / "state.json"
    save(path)
    open_folder.chmod(0o555)
    with other_user(), pytest.raises(StateError, match="Permission denied; counters"):
        save(path, replace(STATE, cursor=1))
    assert load(path)[0] == STATE


def test_damage_at_any_byte_is_noticed(path: Path) -> None:
    save(path)
    whole = path.read_bytes()
    for position in range(len(whole)):
        damaged = bytearray(whole)
        damaged[position] ^= 0x20
        path.write_bytes(damaged)
        state, reason = load(path)
        if state is None:
            assert reason == "state_damaged"
            assert aside(path).read_bytes() == damaged
        else:  # the line's end, or the case of a letter in the checksum
            assert (state, reason) == (STATE, "state_missing")
            assert position > whole.index(b"\n")


def test_truncation_at_any_length_is_noticed(path: Path) -> None:
    save(path)
    whole = path.read_bytes()
    for length in range(len(whole) - 1):
        path.write_bytes(whole[:length])
        assert load(path) == (None, "state_damaged")
        assert aside(path).read_bytes() == whole[:length]
    path.write_bytes(whole[:-1])
    assert load(path)[0] == STATE


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"", "Expecting value"),
        (b"[]", "list indices"),
        (b"null", "not subscriptable"),
        (b"{}", "version"),
        (b'{"version":%d}' % VERSION, "tables"),
        (b'{"version":0,"tables":{}}', f"has version 0, not {VERSION}"),
        (b'{"version":"1","tables":{}}', "has version 1, not 1"),
        (b'{"version":%d,"tables":7}' % VERSION, "not iterable"),
        (b'{"version":%d,"tables":{"query_times":7}}' % VERSION, "not subscriptable"),
        (b'{"version":%d,"tables":{"query_times":{}}}' % VERSION, ""),
        (b"\xff", "can't decode"),
    ],
    ids=lambda value: (
        value.decode("ascii", "replace") if isinstance(value, bytes) else ""
    ),
)
def test_nonsense_is_put_aside_with_its_reason(
    path: Path, line: bytes, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    write(path, line)
    problem = Checkpoint(path).verify()
    assert load(path) == (None, "state_damaged")
    assert not path.exists()
    assert aside(path).exists()
    (record,) = caplog.records
    assert record.levelno == logging.WARNING
    assert error in vars(record)["fields"]["error"]
    assert problem is None or (str(path) in problem and error in problem)


@pytest.mark.parametrize("field", ["cursor", "counts", "known", "series", "buckets"])
def test_missing_field_is_damage(path: Path, field: str) -> None:
    save(path)
    document = json.loads(path.read_bytes().partition(b"\n")[0])
    saved: dict[str, Any] = document["tables"][TABLE.name]
    saved.pop({"counts": "rejected"}.get(field, field))
    write(path, json.dumps(document).encode())
    assert load(path) == (None, "state_damaged")


def test_counting_goes_on_after_damage(path: Path) -> None:
    save(path)
    path.write_bytes(b"damaged")
    checkpoint = Checkpoint(path)
    checkpoint.load([TABLE])
    assert checkpoint.saved_at is None
    checkpoint.save({TABLE.name: TABLE}, {TABLE.name: Tail(TABLE).start("x")})
    assert sorted(os.listdir(path.parent)) == [path.name, aside(path).name]


def test_damaged_file_does_not_bring_back_other_tables(path: Path) -> None:
    """Of a file that is damaged in one table nothing is trusted."""
    save(path)
    document = json.loads(path.read_bytes().partition(b"\n")[0])
    document["tables"]["audit_log"] = {"cursor": 5}
    write(path, json.dumps(document).encode())
    checkpoint = Checkpoint(path)
    assert checkpoint.load([TABLE, OTHER_TABLE]) == ({}, "state_damaged")
    checkpoint.save({}, {})
    assert load(path) == (None, "state_missing")


def test_damaged_file_that_cannot_be_put_aside_is_an_error(path: Path) -> None:
    path.write_bytes(b"damaged")
    (aside(path) / "occupied").mkdir(parents=True)
    with pytest.raises(StateError, match=r"cannot use the state file .*: damaged, and"):
        load(path)
    assert path.read_bytes() == b"damaged"


def test_file_that_cannot_be_read_is_no_damage(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(_: Path) -> bytes:
        raise OSError(errno.EIO, "Input/output error")

    save(path)
    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", fail)
        with pytest.raises(StateError, match="Input/output error; make it readable"):
            load(path)
        assert "Input/output error" in str(Checkpoint(path).verify())
    assert load(path)[0] == STATE


def replace_by_a_copy(path: Path) -> None:
    copy = path.with_name("copy")
    copy.write_bytes(path.read_bytes())
    copy.replace(path)


@pytest.mark.parametrize(
    "change",
    [Path.unlink, partial(os.truncate, length=1), replace_by_a_copy],
    ids=["removed", "truncated", "replaced"],
)
def test_change_by_others_is_noticed(
    path: Path, change: Callable[[Path], None]
) -> None:
    checkpoint = Checkpoint(path)
    checkpoint.load([TABLE])
    found = [checkpoint.is_left_alone]
    checkpoint.save({TABLE.name: TABLE}, {TABLE.name: STATE})
    found.append(checkpoint.is_left_alone)
    change(path)
    found.append(checkpoint.is_left_alone)
    checkpoint.save({TABLE.name: TABLE}, {TABLE.name: STATE})
    found.append(checkpoint.is_left_alone)
    assert found == [True, True, False, True]


def test_whole_file_has_nothing_to_verify(path: Path) -> None:
    save(path)
    assert Checkpoint(path).verify() is None


def test_verifying_a_damaged_file_leaves_it_in_place(path: Path) -> None:
    path.write_bytes(b"damaged")
    problem = Checkpoint(path).verify() or ""
    assert problem.startswith(f"state file {path}: damaged, its checksum differs")
    assert path.read_bytes() == b"damaged"


def test_changed_buckets_begin_anew_and_say_so(path: Path) -> None:
    save(path)
    state, reason = load(path, replace(TABLE, buckets=(0.1, 0.5, 1.0)))
    assert state
    assert reason == "state_missing"
    assert state.counts.series == {
        ("add_fact", flag): Series([0, 0, 0, 0, 0]) for flag in (0, 1)
    }
    assert state.resets["buckets_changed"] == STATE.resets["buckets_changed"] + 1
    assert (state.cursor, state.known) == (STATE.cursor, STATE.known)
    assert state.counts.rejected == STATE.counts.rejected


CLAIM = """
import sys
from pathlib import Path
from exporter.checkpoint import Checkpoint
checkpoint = Checkpoint(Path(sys.argv[1]))
checkpoint.claim()
print("claimed", flush=True)
sys.stdin.read()
"""


def test_second_exporter_is_refused_until_the_first_has_ended(path: Path) -> None:
    command = [sys.executable, "-c", CLAIM, str(path)]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as first:
        assert first.stdout
        assert first.stdout.readline() == "claimed\n"
        with pytest.raises(StateError, match="another exporter uses it; give each its"):
            Checkpoint(path).claim()
        first.kill()
        first.communicate()
        Checkpoint(path).claim()


def test_other_state_file_in_the_same_folder_is_not_refused(path: Path) -> None:
    Checkpoint(path).claim()
    Checkpoint(path.with_name("other.json")).claim()
    with pytest.raises(StateError, match="another exporter uses it"):
        Checkpoint(path).claim()


def test_folder_is_made(path: Path) -> None:
    Checkpoint(path.with_name("a") / "b" / path.name).claim()
    assert path.with_name("a").is_dir()


def test_directory_in_the_file_s_place_is_refused_and_left(path: Path) -> None:
    (path / "precious").mkdir(parents=True)
    with pytest.raises(StateError, match="it is a folder"):
        Checkpoint(path).claim()
    assert (path / "precious").is_dir()


@pytest.mark.parametrize("name", ["state.json", "folder/state.json"])
def test_folder_that_cannot_be_written_is_refused(open_folder: Path, name: str) -> None:
    open_folder.chmod(0o555)
    with (
        other_user(),
        pytest.raises(StateError, match="Permission denied; make the folder writable"),
    ):
        Checkpoint(open_folder / name).claim()


@pytest.mark.parametrize("mode", [0o000, 0o200, 0o400], ids=oct)
def test_file_that_cannot_be_read_or_written_is_refused(
    open_folder: Path, mode: int
) -> None:
    save(path := open_folder / "state.json")
    path.chmod(mode)
    open_folder.chmod(0o777)
    with other_user(), pytest.raises(StateError, match="Permission denied"):
        Checkpoint(path).claim()
