"""Every call of the exporter to the system: count it, kill there, or let it fail.

``calls.c`` is loaded before the C library. Unlike strace, which counts each thread's
calls by themselves, it numbers those of the whole process, so that one number after
the other is one step of a scrape after the other.
"""

import mmap
import shutil
import struct
import subprocess
from enum import IntEnum, IntFlag
from pathlib import Path

MOST_CALLS = 4096
HEAD, CALL = struct.Struct("=6I"), struct.Struct("=I12s")


class Kind(IntFlag):
    """What a call is about."""

    STATE = 1
    SOCKET = 2
    DATABASE = 4


class Action(IntEnum):
    """What befalls a call; ``SLOW`` is for ``error`` milliseconds, from there on."""

    WATCH = 0
    KILL = 1
    KILL_HALFWAY = 2
    FAIL = 3
    FAIL_FROM_THERE_ON = 4
    SLOW = 5


class Calls:
    """What the exporter asks of the system, while it is watched."""

    def __init__(self, folder: Path) -> None:
        library, control = folder / "calls.so", folder / "calls"
        source = Path(__file__).with_name("calls.c")
        options = ["-shared", "-fPIC", "-O1", "-Wall", "-Werror"]
        subprocess.run([_compiler(), *options, "-o", library, source], check=True)
        control.write_bytes(bytes(HEAD.size + MOST_CALLS * CALL.size))
        with control.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self.numbers: dict[Kind, int] = {}  # of calls of these kinds in a scrape
        self.environment = {"LD_PRELOAD": str(library), "TORTURE_CALLS": str(control)}

    def watch(
        self,
        kinds: Kind,
        at: int = 0,
        action: Action = Action.WATCH,
        error: int = 0,
    ) -> None:
        """Count calls from now on, and let something befall the one with a number."""
        HEAD.pack_into(self._memory, 0, 0, at, action, error, 0, 0)
        HEAD.pack_into(self._memory, 0, kinds, at, action, error, 0, 0)

    def rest(self) -> bool:
        """Count no more; say whether what was to befall a call has done so."""
        _, _, _, _, count, done = HEAD.unpack_from(self._memory)
        HEAD.pack_into(self._memory, 0, 0, 0, 0, 0, count, done)
        return bool(done)

    def made(self, kinds: Kind) -> list[str]:
        """The calls that were made, up to the last or the one that killed."""
        count = min(HEAD.unpack_from(self._memory)[4], MOST_CALLS)
        places = (HEAD.size + n * CALL.size for n in range(count))
        found = (CALL.unpack_from(self._memory, place) for place in places)
        return [name.rstrip(b"\0").decode() for kind, name in found if kind & kinds]


def _compiler() -> str:
    """Return a C compiler, which root gets on Debian if there is none."""
    if not shutil.which("cc"):
        packages = "--no-install-recommends gcc libc6-dev"
        install = f"apt-get update -qq && apt-get install -qq -y {packages}"
        subprocess.run(["sh", "-c", install], check=True, stdin=subprocess.DEVNULL)
    return "cc"
