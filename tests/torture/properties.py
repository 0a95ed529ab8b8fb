"""Whatever befalls a table, in any order: the histories of the tests, many of them."""

import io
import traceback
from contextlib import redirect_stdout
from functools import partial
from unittest import mock

from tests.counting import test_recognition
from tests.torture.report import Effort, Fault, Found

HISTORIES = 1000  # of some 70 steps each


def play(scene: test_recognition.Scene, effort: Effort) -> Found:
    """Play histories of one kind; more than is left over is found."""
    found = Found(tried=effort.times(HISTORIES))
    number = mock.patch.object(test_recognition, "HISTORIES", found.tried)
    try:
        with number, redirect_stdout(io.StringIO()):
            test_recognition.test_each_row_counts_once(scene)
    except AssertionError:
        found.note("lost", traceback.format_exc())
    return found


FAULTS = tuple(
    Fault("properties", f"any order of faults: {scene.name}", partial(play, scene))
    for scene in test_recognition.SCENES
)
