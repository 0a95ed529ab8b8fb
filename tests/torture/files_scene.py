"""What the faults of files have in common: an exporter's process, and who judges it.

A ``Trial`` of ``tests.faults`` knows what was committed and compares it with each page.
A scene adds what must hold while a fault lasts: a page in time that says which
collectors fail, and nothing changed beside the databases.
"""

import os
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.faults.store import SIDE_FILES, Store
from tests.faults.target import Asking, Page
from tests.torture import process_scene
from tests.torture.report import Effort, Found

TIMEOUT_SECONDS = 2.0  # on a machine with more to do than it can
GRACE_SECONDS = 0.5  # for this process, which has to read the page, on a busy machine

Content = dict[str, bytes]


class Scene(process_scene.Scene):
    """One exporter and its databases, over all tries of a fault."""

    def __init__(self, effort: Effort) -> None:
        super().__init__(effort)
        # False where SQLite itself reads other rows than were written, so that nobody
        # could count right; what was counted wrong is then put there.
        self.is_readable = True
        self.misled: Counter[str] = Counter()

    @contextmanager
    def attempt(self, what: str) -> Iterator[None]:
        """Play one try, then compare all counters with all rows."""
        if not self.is_readable:
            self.trial.start_over()
        self.is_readable = True
        self.trial.clock.tick()  # it is no other table's second
        with self.one_try(what):
            yield
            self.trial.settle()

    def look(
        self, *failing: str, timeout: float = TIMEOUT_SECONDS, strict: bool = True
    ) -> Page | None:
        """Scrape amid a fault: in time, these collectors fail, no file is touched.

        Not ``strict``: whether they fail is not known, nor what they can read.
        """
        before = traces(self.trial.folder)
        page = self.trial.scrape(
            asking=Asking(timeout_seconds=timeout), is_quiet=strict
        )
        if traces(self.trial.folder) != before:
            changed = before ^ traces(self.trial.folder)
            self.trial.performance.harm.append(f"files are touched: {sorted(changed)}")
        if page is None:
            self.target.crashes.append("no page")
            self.target.check()
        elif page.ended - page.started > timeout + GRACE_SECONDS:
            seconds = page.ended - page.started
            self.target.crashes.append(f"a page after {seconds:.1f} s of {timeout}")
        if page and strict and (found := failed(page)) != set(failing):
            self.target.crashes.append(f"failing: {found}, not {set(failing)}")
        return page

    def finish(self) -> Found:
        """Stop the exporter, and return what was found over all tries."""
        if self.target.is_up:
            self.trial.end(signal.SIGTERM)
        self.note_process("at its end")
        return self.found

    def note_trial(self, what: str) -> None:
        """Note what was lost or doubled, unless SQLite did not know better."""
        if not self.is_readable:
            self.misled["tried"] += 1
            for name in ("lost", "misread", "doubled"):
                self.misled[name] += self.trial.tally.pop(name, 0)
        super().note_trial(what)


def failed(page: Page) -> set[str]:
    """Return the collectors that failed, but for those that do not read rows."""
    success = page.samples["hakgal_exporter_collector_success"]
    return {name for (name,), value in success.items() if not value} - {"storage"}


def collectors(store: Store) -> tuple[str, ...]:
    """Return the collectors that read a database."""
    return tuple(table.spec.collector for table in store.tables.values())


def traces(folder: Path) -> set[tuple[object, ...]]:
    """Return what can be seen of a folder's files: owner, mode, size, time, inode."""
    return {
        (entry.name, *_trace(entry.stat(follow_symlinks=False)))
        for entry in os.scandir(folder)
        if entry.name not in ("exporter.log", "state")
    }


def take(store: Store) -> Content:
    """Close the application, and return the bytes of its files, the side files too."""
    store.close()
    return read_files(store.path)


def take_crashed(store: Store) -> Content:
    """Return the bytes as a crash of the application leaves them, and put them there.

    In WAL mode, and with all rows that were written since the log was folded in it.
    """
    assert store.is_open
    content = read_files(store.path)
    store.close()
    put_files(store.path, content)
    return content


def read_files(path: Path) -> Content:
    """Return the bytes of a database and of its side files, by suffix.

    This process must have no connection: reading drops its locks.
    """
    names = {suffix: Path(f"{path}{suffix}") for suffix in ("", *SIDE_FILES)}
    return {s: name.read_bytes() for s, name in names.items() if name.exists()}


def put_files(path: Path, content: Content) -> None:
    """Write files in place, and remove those that are not among them."""
    for suffix in ("", *SIDE_FILES):
        file = Path(f"{path}{suffix}")
        if suffix in content:
            with open(file, "r+b" if file.exists() else "wb") as opened:
                opened.write(content[suffix])
                opened.truncate()
        elif file.is_dir():
            shutil.rmtree(file)
        else:
            file.unlink(missing_ok=True)


def _trace(stat: os.stat_result) -> tuple[int, ...]:
    owner = stat.st_uid, stat.st_gid, stat.st_mode
    return (*owner, stat.st_size, stat.st_mtime_ns, stat.st_ino)
