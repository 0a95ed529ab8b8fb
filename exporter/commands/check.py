"""The command ``check``: find problems before the exporter runs."""

import argparse
import os
import stat
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from sqlite3 import Connection
from types import ModuleType

from exporter.collectors import TABLE_COLLECTORS
from exporter.commands.healthcheck import ask_health
from exporter.config import Config, add_flags, load, unknown_variables
from exporter.counting.checkpoint import Checkpoint
from exporter.counting.fold import time_sql
from exporter.counting.table import CLOCK_SECONDS, Counts, Reading, State, Table
from exporter.database import Database
from exporter.database.file import DatabaseFile
from exporter.database.schema import Schema
from exporter.errors import ConfigError, DatabaseError, ServerError
from exporter.web import listen_on_all
from exporter.web.access import Access

READ_SECONDS = 5.0
TIME_METRIC = "hakgal_last_event_timestamp_seconds"  # of every table with times
ZONES = range(1800, 14 * 3600 + 1, 1800)  # local time minus UTC, in seconds
Finding = tuple[bool, str]  # whether it is fine, and a line of the report
Findings = Iterator[Finding]
_user = getattr(os, "geteuid", lambda: 0)  # Windows has no user ids


def check(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Report what was found, what is wrong and how to fix it; exit code 0 or 2."""
    add_flags(parser)
    config = load(parser.parse_args(words), os.environ)
    findings = [*_databases(config), *_state(config.state_file), *_web(config)]
    for name, meant in unknown_variables(os.environ).items():
        findings.append((True, f"unknown setting {name}; did you mean {meant}?"))
    for is_ok, text in findings:
        print(f"{'ok     ' if is_ok else 'PROBLEM'}  {text}")
    problems = sum(not is_ok for is_ok, _ in findings)
    print(f"{problems or 'no'} problem{'' if problems == 1 else 's'}")
    return 2 if problems else 0


def _databases(config: Config) -> Findings:
    for name, path in config.databases.items():
        look = partial(_database, config, name)
        try:
            yield from Database(name, path).read(look, time.monotonic() + READ_SECONDS)
        except DatabaseError as error:
            yield False, str(error)


def _database(
    config: Config, name: str, db: Connection, file: DatabaseFile
) -> list[Finding]:
    path, user, owner = file.path, _user(), os.stat(file.path).st_uid
    mode = "wal" if file.is_immutable or file.shm_inode is not None else "delete"
    found = [(True, f"journal mode {mode}, owner {owner}")]
    if user not in (0, owner) and os.access(os.path.dirname(path), os.W_OK):
        found.append((True, f"user {user} can write to its folder, needlessly"))
    for key, collector in TABLE_COLLECTORS.items():
        table = collector.table(config)
        if key in config.collectors and table.database == name:
            found += _table(db, collector, table, path)
    return [(is_ok, f"{path}: {text}") for is_ok, text in found]


def _table(db: Connection, collector: ModuleType, table: Table, path: str) -> Findings:
    schema = Schema(table.sources)
    layout = schema.find(db, table.sources)
    metrics, bound = _gives(collector, table), table.bind(layout)
    if layout is None:
        hint = "; exporter.recorder adds it" if table.database == "performance" else ""
        yield True, f"no {bound.lacks[0]}: no {', '.join(metrics)}{hint}"
        return
    if layout.objection:
        yield False, f"cannot read {layout.name}: {layout.objection}"
        return
    given = _gives(collector, bound)
    yield True, f"table {layout.name} ({', '.join(layout.columns)})"
    yield True, f"{layout.name} provides {', '.join(given) or 'nothing'}"
    if bound.lacks:
        absent = ", ".join(one for one in metrics if one not in given) or TIME_METRIC
        yield True, f"{layout.name} lacks {', '.join(bound.lacks)}: no {absent}"
    if bound.time:
        yield _newest(db, bound, path)
    if len(table.sources) > 1 and all(schema.find(db, (s,)) for s in table.sources):
        for name in table.sources:
            (rows,) = db.execute(f"SELECT COUNT(*) FROM {name}").fetchone()
            yield True, f"{name} has {rows} rows"


def _gives(collector: ModuleType, table: Table) -> list[str]:
    """Return the metrics that a table with these columns provides."""
    state = State(Counts.zero(table)) if table.is_followed else None
    reading = Reading(table, state, 0, 0.0 if table.time else None, 0)
    families = [f for f in collector.families(reading) if f.samples]
    return [f.name + ("_total" if f.type == "counter" else "") for f in families]


def _newest(db: Connection, table: Table, path: str) -> Finding:
    """Check the newest row's time: it cannot be newer than the file that holds it."""
    times = f"SELECT {table.time}, {time_sql(table.time)} FROM {table.source}"
    row = db.execute(f"{times} ORDER BY rowid DESC LIMIT 1").fetchone()
    if not row or row[0] is None:
        lack = f"newest row has no time: no {TIME_METRIC}" if row else "no rows"
        return True, f"{table.source}: {lack}"
    newest, moment = f"newest row of {table.source} is from {row[0]!r:.40}", row[1]
    if moment is None:
        return False, f"{newest}, not a time; use CURRENT_TIMESTAMP or ISO 8601"
    files = [one for one in (path, f"{path}-wal") if os.path.exists(one)]
    ahead = moment - max(map(os.path.getmtime, files))
    is_future = ahead > CLOCK_SECONDS
    is_local = any(abs(abs(ahead) - zone) <= CLOCK_SECONDS for zone in ZONES)
    if is_future or is_local:
        newest += f", {ahead / 60:+.0f} min from the last write of its file:"
        newest += " looks like local time;" if is_local else ""
        newest += " HAK/GAL's times must be in UTC, or name their zone"
    return not is_future, newest


def _state(path: Path | None) -> Findings:
    if path is None:
        yield True, "no state file: a restart resets all tables"
        return
    file = Path(os.path.realpath(path))  # keeps a symbolic link
    name, user = f"state file {file}", _user()
    folder = next(parent for parent in file.parents if os.path.exists(parent))
    needs = {folder: os.W_OK | os.X_OK, file: os.R_OK}
    needs |= {Path(f"{file}{end}"): os.W_OK for end in (".lock", ".tmp")}
    for place, mode in needs.items():
        if os.path.exists(place) and not os.access(place, mode):
            verb = "read" if mode == os.R_OK else "write to"
            hint = "change its owner, or choose another --state.file"
            yield False, f"{name}: user {user} cannot {verb} {place}; {hint}"
            return
    try:
        Checkpoint(file).read()
        yield _owned(file, user)
    except FileNotFoundError:
        yield True, f"{name} does not exist yet"
    except (OSError, ValueError) as error:
        yield False, f"{name}: {error}; restore it, or all tables are reset"


def _owned(file: Path, user: int) -> Finding:
    """Check the owner: each save replaces the file by one of this user's."""
    owner, folder = file.stat().st_uid, file.parent.stat()
    if user == owner:
        return True, f"state file {file}"
    is_kept = folder.st_mode & stat.S_ISVTX and user not in (0, folder.st_uid)
    text = f"state file {file} belongs to user {owner}, not {user}"
    return not is_kept, f"{text}; run as that user, or change its owner"


def _web(config: Config) -> Findings:
    if path := config.web_config_file:
        try:
            web = Access(path).config
            yield True, f"{path}: {', '.join(sorted(web.protection)) or 'unprotected'}"
            key = web.files.get("key_file")
            if key and os.name == "posix" and key.stat().st_mode & stat.S_IROTH:
                yield True, f"{key}: every user can read this key; run chmod o= {key}"
        except ConfigError as error:
            yield from ((False, problem) for problem in error.problems)
    for address in config.listen_addresses:
        try:
            for listener in listen_on_all([address]):
                listener.close()
            yield True, f"can listen on {address}"
        except ServerError as error:
            is_ours = ask_health(address, config.web_config_file) is None
            running = f"an exporter is already running on {address}"
            yield is_ours, running if is_ours else str(error)
