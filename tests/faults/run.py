"""Play the rounds, and report by kind of fault."""

import random
import signal
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Self

from tests.faults.data_faults import DATA_FAULTS, DataFault
from tests.faults.process_faults import PROCESS_FAULTS, ProcessFault
from tests.faults.trial import Trial, Unsettled

FAILURES = ("lost", "doubled", "fell", "misread", "crashed", "harmed")
COLUMNS = ("tried", "written", "thrown", "observed", "left over", *FAILURES)
STORY_ROUNDS = 3
MOST_TROUBLE = 20  # rounds that are told in full
PROGRESS_ROUNDS = 50

Print = Callable[[str], object]


class Run:
    """A number of rounds and what they found."""

    def __init__(self, folder: Path, seed: int, say: Print = print) -> None:
        self.rng = random.Random(seed)
        self.trial = Trial(folder, self.rng)
        self.counts: dict[str, Counter[str]] = {
            fault.name: Counter() for fault in (*DATA_FAULTS, *PROCESS_FAULTS)
        }
        self.total: Counter[str] = Counter()
        self._say = say
        self._stories: list[list[str]] = []
        self._told = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.trial.target.kill()
        for store in self.trial.stores:
            store.close()

    def play(self, rounds: int) -> None:
        """Play rounds, and say what goes wrong and how far it is."""
        started = time.monotonic()
        self.trial.settle()
        for number in range(1, rounds + 1):
            self._round(number)
            if number % PROGRESS_ROUNDS == 0:
                seconds = time.monotonic() - started
                found = ", ".join(f"{n} {self.total[n]}" for n in FAILURES)
                self._say(f"{number} rounds, {seconds:.0f} s: {found}")
        self._end()

    @property
    def failed(self) -> bool:
        """Whether anything was found."""
        return any(self.total[name] for name in FAILURES)

    def report(self) -> str:
        """Return what was found, by kind of fault."""
        lines = [_line("what befell the data", COLUMNS)]
        lines += [self._row(fault.name) for fault in DATA_FAULTS]
        lines += ["", _line("what befell the exporter", COLUMNS)]
        lines += [self._row(fault.name) for fault in PROCESS_FAULTS]
        numbers = [self.total[name] for name in COLUMNS]
        lines += ["", _line("all rounds", numbers)]
        slowest = max(store.slowest_seconds for store in self.trial.stores)
        lines.append(
            "left over: rows lost or doubled of the very second of a swap, with times"
            " before it, or without a time; thrown: with a file that nobody had read"
        )
        lines.append(f"slowest statement of the writer: {slowest:.2f} s")
        tally = self.trial.tally
        lines.append(
            f"{tally['pages']} pages compared; none whole before the end"
            f" {tally['cut off']} times; {self.trial.target.starts} starts"
        )
        return "\n".join(lines)

    def _row(self, name: str) -> str:
        return _line(name, [self.counts[name][column] for column in COLUMNS])

    def _round(self, number: int) -> None:
        trial = self.trial
        data, process = self._choose()
        trial.clock.tick()
        trial.story = [f"round {number}: {data.name}; {process.name}"]
        self._stories = [*self._stories[1 - STORY_ROUNDS :], trial.story]
        before = self._numbers()
        try:
            _befall(trial, data, process)
            trial.settle()
        except Unsettled as error:
            trial.target.crashes.append(f"shows not everything: {error}")
        for store in trial.stores:
            store.check_closed()
            if self.rng.random() < 0.3:
                store.close()
        found = self._numbers() - before
        found["tried"] = 1
        for counts in (self.counts[data.name], self.counts[process.name], self.total):
            counts.update(found)
        if any(found[name] for name in FAILURES):
            self._tell()

    def _choose(self) -> tuple[DataFault, ProcessFault]:
        data = self.rng.choices(DATA_FAULTS, [f.weight for f in DATA_FAULTS])[0]
        fitting = [f for f in PROCESS_FAULTS if not (f.amid and data.quiet)]
        return data, self.rng.choices(fitting, [f.weight for f in fitting])[0]

    def _numbers(self) -> Counter[str]:
        trial = self.trial
        numbers = Counter(trial.tally)
        numbers["written"] = sum(store.written for store in trial.stores)
        numbers["thrown"] = sum(store.discarded for store in trial.stores)
        numbers["harmed"] = sum(len(store.harm) for store in trial.stores)
        numbers["crashed"] = len(trial.target.crashes)
        return numbers

    def _tell(self) -> None:
        """Say what went wrong in this round and what came before."""
        trial = self.trial
        harm = [harm for store in trial.stores for harm in store.harm]
        self._told += 1
        if self._told <= MOST_TROUBLE:
            for story in self._stories:
                self._say("\n  ".join(story))
            for text in (*trial.trouble, *harm[-3:], *trial.target.crashes[-3:]):
                self._say(f"  difference: {text}")
        trial.trouble.clear()

    def _end(self) -> None:
        trial = self.trial
        if trial.target.is_up:
            trial.end(signal.SIGTERM)
        for store in trial.stores:
            store.close()
        errors = list(trial.target.errors())
        self.total["crashed"] += len(errors)
        for line in errors[:5]:
            self._say(f"in the exporter's log: {line}")


def _befall(trial: Trial, data: DataFault, process: ProcessFault) -> None:
    """Take the steps of one fault, with the other at one of its halts or after it."""
    halt = trial.rng.randint(0, 1)
    finish: Callable[[], None] | None = None
    disturbed = False
    for number, _ in enumerate(data.steps(trial)):
        if number == halt:
            trial.tell(f"- {process.name}")
            finish, disturbed = process.disturb(trial), True
    if not disturbed:
        trial.tell(f"- {process.name}")
        finish = process.disturb(trial)
    if finish:
        finish()


def _line(name: str, cells: tuple[str, ...] | list[int]) -> str:
    return f"{name:26}" + "".join(f"{cell:>10}" for cell in cells)
