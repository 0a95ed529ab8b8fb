"""Whatever befalls a table, in any order: the state machines of the tests, for long."""

import traceback
from functools import partial
from unittest import mock

from hypothesis import seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.test_properties import MACHINES, SETTINGS, Machine
from tests.torture.report import Effort, Fault, Found

EXAMPLES = 700  # of up to 40 steps each


def play(machine: type[Machine], effort: Effort) -> Found:
    """Let a machine take steps by chance; what fails is made as short as can be."""
    found = Found(tried=effort.times(EXAMPLES))
    more = settings(SETTINGS, max_examples=found.tried, database=None)
    begun = seed(effort.rng.getrandbits(32))(machine)
    try:
        # Nobody pulls the plug here, and disks are slow.
        with mock.patch("os.fsync"):
            run_state_machine_as_test(begun, settings=more)
    except Exception:  # a difference from the model, whichever way
        found.note("lost", traceback.format_exc())
    return found


def _name(machine: type[Machine]) -> str:
    spread = "a second apart" if machine.spread else "in one second"
    return f"any order of faults, {machine.table.name}, {spread}"


FAULTS = tuple(
    Fault("properties", _name(machine), partial(play, machine)) for machine in MACHINES
)
