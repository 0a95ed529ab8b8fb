"""Say what is wrong before the service does, and how to mend it."""

import os
import sqlite3
import ssl
import stat
import time
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import NamedTuple

from exporter.collectors import TABLE_COLLECTORS
from exporter.commands.healthcheck import ask_health
from exporter.config import Config
from exporter.counting.checkpoint import Checkpoint
from exporter.counting.state import Counts, Reading, State
from exporter.counting.table import Table
from exporter.database.file import DatabaseFile
from exporter.database.reader import Database
from exporter.database.schema import Layout, Schema
from exporter.errors import ConfigError, DatabaseError, ServerError
from exporter.web.server import listen_on_all

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
        tables = [
            (collector, table)
            for key, collector in TABLE_COLLECTORS.items()
            if (table := collector.table(config)).database == name
            and key in config.collectors
        ]
        look = partial(_tables, tables)
        try:
            yield from Database(name, path).read(look, time.monotonic() + READ_SECONDS)
        except DatabaseError as error:
            yield Finding(False, str(error))
        else:
            yield from _owner(path)


def _tables(
    tables: list[tuple[ModuleType, Table]],
    db: sqlite3.Connection,
    file: DatabaseFile,
) -> list[Finding]:
    """Say what each table that is there gives, and what it lacks."""
    schema = Schema(name for _, table in tables for name in table.sources)
    findings: list[Finding] = []
    for collector, table in tables:
        layout = schema.find(db, table.sources)
        for is_ok, text in _table(collector, table, layout):
            findings.append(Finding(is_ok, f"{file.path}: {text}"))
        if len(table.sources) > 1 and all(
            schema.find(db, (source,)) for source in table.sources
        ):
            findings.append(Finding(True, f"{file.path}: {_counts(db, table)}"))
    return findings


def _table(
    collector: ModuleType, table: Table, layout: Layout | None
) -> Iterator[tuple[bool, str]]:
    metrics, bound = _gives(collector, table), table.bind(layout)
    if layout is None:
        yield True, f"no {bound.lacks[0]}: no {', '.join(metrics)}"
        return
    if layout.objection:
        yield False, f"cannot read {layout.name}: {layout.objection}"
        return
    given = _gives(collector, bound)
    yield True, f"table {layout.name} ({', '.join(layout.columns)})"
    yield True, f"{layout.name} gives {', '.join(given) or 'nothing'}"
    if bound.lacks:
        absent = ", ".join(name for name in metrics if name not in given)
        lacks = f"{layout.name} lacks {', '.join(bound.lacks)}"
        yield True, f"{lacks}: no {absent}" if absent else lacks


def _gives(collector: ModuleType, table: Table) -> list[str]:
    """Return the metrics of a table with these columns."""
    state = State(Counts.zero(table)) if table.is_followed else None
    families = collector.families(Reading(table, state))
    return [f.name + ("_total" if f.type == "counter" else "") for f in families]


def _counts(db: sqlite3.Connection, table: Table) -> str:
    counts = []
    for name in table.sources:
        (rows,) = db.execute(f"SELECT COUNT(*) FROM {name}").fetchone()
        counts.append(f"{rows} rows in {name}")
    return ", ".join(counts)


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
    for place, mode in ((folder, os.W_OK | os.X_OK), (path, os.R_OK)):
        if place.exists() and not os.access(place, mode):
            text = f"state file {path}: user {os.geteuid()} cannot write to {place};"
            text += " change its owner, or choose another --state.file"
            yield Finding(False, text)
            return
    try:
        Checkpoint(path).read()
    except FileNotFoundError:
        pass
    except (OSError, ValueError) as error:
        hint = "restore it, or counting starts anew"
        yield Finding(False, f"state file {path}: {error}; {hint}")
        return
    yield Finding(True, f"state file {path}")


def _web_config(path: Path | None) -> Iterator[Finding]:
    if path is None:
        return
    # Not at the top: without a file, healthy checks need none of it.
    from exporter.web.config import read

    try:
        web = read(path, {})
    except ConfigError as error:
        yield from (Finding(False, problem) for problem in error.problems)
        return
    tls = "TLS" if web.tls else "no TLS"
    if web.tls and web.tls.verify_mode is ssl.CERT_REQUIRED:
        tls += " with client certificates"
    count = len(web.users) or "no"
    yield Finding(True, f"{path}: {tls}, {count} user{'' if count == 1 else 's'}")
    if web.tls:
        yield _certificate(web.files["cert_file"], web.files["key_file"])
        yield from _key(web.files["key_file"])


def _certificate(file: Path, key: Path) -> Finding:
    try:
        seconds = _valid_until(file, key) - time.time()
    except ssl.SSLCertVerificationError as error:
        return Finding(False, f"{file}: {error.verify_message}; renew it")
    days = int(seconds / DAY_SECONDS)
    return Finding(True, f"{file}: valid for {days} more days")


def _valid_until(certificate: Path, key: Path) -> float:
    """Return the moment at which a server's certificate ends, in Unix time.

    Found out by shaking hands with ourselves: nothing else in the standard library
    tells it.

    Raises:
        ssl.SSLCertVerificationError: it does not hold now, or not for servers.
    """
    ours = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ours.load_cert_chain(certificate, key)
    theirs = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    theirs.check_hostname = False
    theirs.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    theirs.load_verify_locations(certificate)
    to_us, to_them = ssl.MemoryBIO(), ssl.MemoryBIO()
    client = theirs.wrap_bio(to_them, to_us)
    server = ours.wrap_bio(to_us, to_them, server_side=True)
    for end in (client, server, client):
        with suppress(ssl.SSLWantReadError):
            end.do_handshake()
    seen = client.getpeercert() or {}
    return ssl.cert_time_to_seconds(str(seen["notAfter"]))


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
            if ask_health(address, config.web_config_file) is None:
                yield Finding(True, f"an exporter is running already on {address}")
            else:
                yield Finding(False, str(error))
