"""Say what is wrong before the service does, and how to mend it."""

import os
import sqlite3
import ssl
import stat
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

from exporter.addresses import listen_on_all
from exporter.checkpoint import Checkpoint
from exporter.collectors import TABLE_COLLECTORS, TableCollector
from exporter.config import Config
from exporter.database import Database, Look
from exporter.errors import ConfigError, DatabaseError, ServerError
from exporter.fold import Counts, Table
from exporter.health import ask_health
from exporter.layout import Layout, Layouts, choose
from exporter.tail import Reading, State

READ_SECONDS = 5.0
DAY_SECONDS = 86400


class Finding(NamedTuple):
    """A line of the report."""

    is_ok: bool
    text: str


def check(config: Config) -> int:
    """Print what was looked at and what is wrong; return 0 or 2."""
    findings = [*_databases(config), *_state(config)]
    findings += [*_web_config(config.web_config_file), *_addresses(config)]
    for finding in findings:
        print(f"{'ok     ' if finding.is_ok else 'PROBLEM'}  {finding.text}")
    problems = sum(not finding.is_ok for finding in findings)
    print(f"{problems or 'no'} problem{'' if problems == 1 else 's'}")
    return 2 if problems else 0


def _databases(config: Config) -> Iterator[Finding]:
    for name, path in config.databases.items():
        collectors = [
            create(config)
            for collector, create in TABLE_COLLECTORS.items()
            if collector in config.collectors and create.database == name
        ]
        deadline = time.monotonic() + READ_SECONDS
        try:
            yield from Database(name, path).read(partial(_tables, collectors), deadline)
        except DatabaseError as error:
            yield Finding(False, str(error))
        else:
            yield from _owner(path)


def _tables(
    collectors: list[TableCollector], db: sqlite3.Connection, look: Look
) -> list[Finding]:
    """Say what each table that is there gives, and what it lacks."""
    names = [name for c in collectors for name in c.table.sources or (c.table.name,)]
    layouts = Layouts(tuple(names)).read(db)
    findings: list[Finding] = []
    for collector in collectors:
        sources = collector.table.sources or (collector.table.name,)
        layout = choose(db, layouts, sources)
        findings += _table(collector, layout, look.path)
        if sum(source in layouts for source in sources) > 1:
            findings.append(_counts(db, sources, look.path))
    return findings


def _table(
    collector: TableCollector, layout: Layout | None, path: str
) -> Iterator[Finding]:
    table = collector.table
    if layout is None:
        metrics = ", ".join(_gives(collector, table))
        text = f"no table {' or '.join(table.sources or (table.name,))}"
        yield Finding(True, f"{path}: {text}: no {metrics}")
        return
    if layout.objection:
        text = f"{path}: cannot read {layout.name}: {layout.objection}"
        yield Finding(False, f"{text}; give HAK/GAL its table back")
        return
    bound = table.bind(layout)
    yield Finding(True, f"{path}: table {layout.name} ({', '.join(layout.columns)})")
    gives = _gives(collector, bound)
    yield Finding(True, f"{path}: {layout.name} gives {', '.join(gives) or 'nothing'}")
    if bound.lacks:
        absent = [name for name in _gives(collector, table) if name not in gives]
        text = f"{path}: {layout.name} lacks {', '.join(bound.lacks)}"
        yield Finding(True, text + (f": no {', '.join(absent)}" if absent else ""))


def _gives(collector: TableCollector, table: Table) -> list[str]:
    """Return the metrics of a table with these columns."""
    state = State(Counts.zero(table)) if table.is_followed else None
    families = collector.families(state, Reading(State(Counts()), table, 0, None))
    return [f.name + ("_total" if f.type == "counter" else "") for f in families]


def _counts(db: sqlite3.Connection, sources: tuple[str, ...], path: str) -> Finding:
    counts = []
    for name in sources:
        (rows,) = db.execute(f"SELECT COUNT(*) FROM {name}").fetchone()
        counts.append(f"{rows} rows in {name}")
    return Finding(True, f"{path}: {', '.join(counts)}")


def _owner(path: Path) -> Iterator[Finding]:
    """Reading needs no rights on the folder: whoever may write there could do harm."""
    owner, user = path.stat().st_uid, os.geteuid()
    if owner != user and os.access(path.parent, os.W_OK) and user != 0:
        yield Finding(
            True,
            f"{path.parent}: this user ({user}) is not the databases' owner ({owner}),"
            " yet may write to their folder; reading does not need that",
        )


def _state(config: Config) -> Iterator[Finding]:
    path = config.state_file
    if path is None:
        yield Finding(True, "no state file: a restart counts anew")
        return
    folder = next(p for p in path.absolute().parents if p.is_dir())
    for place, mode in ((folder, os.W_OK | os.X_OK), (path, os.R_OK | os.W_OK)):
        if place.exists() and not os.access(place, mode):
            text = f"state file {path}: user {os.geteuid()} cannot write to {place};"
            text += " change its owner, or choose another --state.file"
            yield Finding(False, text)
            return
    problem = Checkpoint(path).verify()
    yield Finding(problem is None, problem or f"state file {path}")


def _web_config(path: Path | None) -> Iterator[Finding]:
    if path is None:
        return
    # Not at the top: without a file, healthy checks need none of it.
    from exporter.watch import Watch
    from exporter.web_config import read

    try:
        web = read(path, Watch())
    except ConfigError as error:
        yield from (Finding(False, problem) for problem in error.problems)
        return
    tls = "TLS" if web.tls else "no TLS"
    if web.tls and web.tls.needs_certificate:
        tls += " with client certificates"
    count = len(web.users) or "no"
    yield Finding(True, f"{path}: {tls}, {count} user{'' if count == 1 else 's'}")
    if web.tls:
        yield _certificate(web.tls.certificate_file, web.tls.key_file)
        yield from _key(web.tls.key_file)


def _certificate(file: Path, key: Path) -> Finding:
    from exporter.tls import valid_until

    try:
        seconds = valid_until(file, key) - time.time()
    except ssl.SSLCertVerificationError as error:
        return Finding(False, f"{file}: {error.verify_message}; renew it")
    days = int(seconds / DAY_SECONDS)
    return Finding(True, f"{file}: valid for {days} more days")


def _key(file: Path) -> Iterator[Finding]:
    if file.stat().st_mode & stat.S_IROTH:
        text = f"{file}: every user of this machine may read the key; chmod o= {file}"
        yield Finding(True, text)


def _addresses(config: Config) -> Iterator[Finding]:
    for address in config.listen_addresses:
        try:
            for listener in listen_on_all([address]):
                listener.close()
            yield Finding(True, f"can listen on {address}")
        except ServerError as error:
            if ask_health(address) is None:
                yield Finding(True, f"an exporter is running already on {address}")
            else:
                yield Finding(False, str(error))
