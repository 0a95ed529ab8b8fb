"""Rounds of writes, prunes, replaced files and kill -9: all of ``tests.faults``."""

from tests.faults.data_faults import DATA_FAULTS
from tests.faults.process_faults import PROCESS_FAULTS
from tests.faults.run import Run
from tests.torture.report import Effort, Fault, Found

ROUNDS = 600
KINDS = len(DATA_FAULTS), len(PROCESS_FAULTS)


def play(effort: Effort) -> Found:
    """Play rounds; each is a data fault with a process fault."""
    found = Found()
    said: list[str] = []
    with Run(effort.folder, effort.rng.randrange(1 << 30), said.append) as run:
        run.play(effort.times(ROUNDS))
    total = run.total
    found.tried = total["tried"]
    found.lost = total["lost"] + total["fell"] + total["misread"]
    found.doubled, found.harmed = total["doubled"], total["harmed"]
    found.crashed = total["crashed"]
    if run.failed:
        found.notes = said
    return found


NAME = "{} kinds of fault to data, times {} to the exporter".format(*KINDS)
FAULTS = (Fault("rounds", NAME, play),)
