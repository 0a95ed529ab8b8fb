"""A scene: one kind of harm, tried many times on one stage."""

import random
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.torture.report import Found
from tests.torture.stage import Stage
from tests.torture.victim import PROGRAM

Say = Callable[[str], object]

MOST_FAILING = 5  # tries; more would say the same, slowly
MOST_STORY = 25  # lines


@dataclass(frozen=True)
class Scene:
    """A function that plays one try, and how often it is called at share 1.

    Its docstring is what the table prints; it may return how many tries it was.
    ``setting`` is what has to be so before the exporter starts;
    ``excused`` are words of errors in its log that are the scene's own.
    """

    group: str
    play: Callable[[Stage, int], int | None]
    tries: int
    setting: Callable[[Stage], object] | None = None
    excused: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        return self.play.__name__.replace("_", " ")

    @property
    def sentence(self) -> str:
        return (self.play.__doc__ or "").splitlines()[0].rstrip(".")

    def run(
        self,
        folder: Path,
        seed: int,
        tries: int,
        say: Say = print,
        program: tuple[str, ...] = PROGRAM,
    ) -> Found:
        """Return what was found, after it was said how to play it again."""
        # Of its own seed, so that it does the same alone.
        stage = Stage(folder, random.Random(f"{seed} {self.name}"), program)
        stage.excused = self.excused
        try:
            if self.setting:
                self.setting(stage)
            with stage:
                self._play(stage, seed, tries, say)
        except Exception:  # one that cannot be played must not hide the others
            stage.victim.crashes.append(traceback.format_exc())
            stage.collect()
            say("\n".join(stage.found.notes[-3:]))
        return stage.found

    def _play(self, stage: Stage, seed: int, tries: int, say: Say) -> None:
        stage.settle()
        failing = 0
        for number in range(tries):
            notes = len(stage.found.notes)
            with stage.attempt():
                count = self.play(stage, number)
                stage.found.counts["tries"] += 1 if count is None else count
            if new := stage.found.notes[notes:]:
                failing += 1
                replay = f"--only '{self.name}' --seed {seed} --rounds {number + 1}"
                lines = (*stage.story[-MOST_STORY:], *new)
                say("\n  ".join((f"try {number}; again: {replay}", *lines)))
            if failing == MOST_FAILING:
                break
        stage.finish()
