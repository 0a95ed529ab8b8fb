"""What fails is logged when it begins, when its cause changes, and when it ends."""

import logging

import pytest

from exporter.errors import DatabaseError
from exporter.isolation import Failures


def test_failure_is_logged_when_it_or_its_cause_changes(
    caplog: pytest.LogCaptureFixture,
) -> None:
    failures = Failures()
    locked = "the file is locked"
    with caplog.at_level(logging.INFO, "exporter.isolation"):
        for error in (
            None,
            DatabaseError(locked),
            DatabaseError(locked),
            DatabaseError("no answer within 7.9 s"),
            DatabaseError("no answer within 8.0 s"),
            None,
            None,
            DatabaseError(locked),
        ):
            failures.note("performance", error)
    told = [(r.getMessage(), r.fields.get("error")) for r in caplog.records]  # type: ignore[attr-defined]
    assert told == [
        ("failing", locked),
        ("failing", "no answer within 7.9 s"),
        ("recovered", None),
        ("failing", locked),
    ]


def test_failures_of_several_parts_do_not_mix(caplog: pytest.LogCaptureFixture) -> None:
    failures = Failures()
    with caplog.at_level(logging.INFO, "exporter.isolation"):
        for name in ("facts", "queries", "facts"):
            failures.note(name, DatabaseError("broken"))
    told = [r.fields["what"] for r in caplog.records]  # type: ignore[attr-defined]
    assert told == ["facts", "queries"]
