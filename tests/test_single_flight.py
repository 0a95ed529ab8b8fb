"""Callers that wait for the same thing share one result, begun after they asked."""

import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor, wait

import pytest

from exporter.single_flight import SingleFlight
from tests.servers import wait_until

SECONDS = 10.0


class Maker:
    """Makes numbers, when it is let."""

    def __init__(self) -> None:
        self.flight: SingleFlight[int] = SingleFlight()
        self.made = 0
        self.go_on = threading.Semaphore(0)
        self.error: Exception | None = None
        self.pool = ThreadPoolExecutor(20)

    def make(self) -> int:
        self.made += 1
        number = self.made
        assert self.go_on.acquire(timeout=SECONDS)
        if self.error:
            raise self.error
        return number

    def ask(self, seconds: float = 2 * SECONDS) -> Future[int]:
        deadline = time.monotonic() + seconds
        return self.pool.submit(self.flight.get, self.make, deadline)

    def begin(self) -> Future[int]:
        """Ask, and wait until it is being made."""
        before = self.made
        asked = self.ask()
        wait_until(lambda: self.made > before, SECONDS)
        return asked

    def wait_in_line(self) -> Future[int]:
        """Ask, and wait until somebody is next in line."""
        asked = self.ask()
        wait_until(lambda: self.flight._next is not None, SECONDS)
        return asked


@pytest.fixture
def maker() -> Maker:
    return Maker()


def test_one_after_the_other_makes_its_own(maker: Maker) -> None:
    for number in (1, 2, 3):
        maker.go_on.release()
        assert maker.ask().result(SECONDS) == number


def test_who_asks_meanwhile_shares_the_next_one_never_the_running(maker: Maker) -> None:
    running = maker.begin()
    late = [maker.wait_in_line() for _ in range(8)]
    assert not wait([running, *late], timeout=0.05).done
    maker.go_on.release(2)
    assert running.result(SECONDS) == 1
    assert {asked.result(SECONDS) for asked in late} == {2}
    assert maker.made == 2


def test_error_is_shared_and_the_next_one_is_made_anew(maker: Maker) -> None:
    running = maker.begin()
    late = [maker.wait_in_line() for _ in range(2)]
    maker.error = OSError("broken")
    maker.go_on.release(2)
    for asked in (running, *late):
        with pytest.raises(OSError, match="broken"):
            asked.result(SECONDS)
    maker.error = None
    maker.go_on.release()
    assert maker.ask().result(SECONDS) == 3


def test_who_is_in_a_hurry_does_not_wait_for_the_one_in_line(maker: Maker) -> None:
    running, next_one = maker.begin(), maker.wait_in_line()
    hurried = maker.ask(seconds=SECONDS)
    wait_until(lambda: maker.made == 2, SECONDS)
    maker.go_on.release(3)
    results = [asked.result(SECONDS) for asked in (running, hurried, next_one)]
    assert sorted(results) == [1, 2, 3]


def test_who_has_time_does_not_share_what_was_made_in_a_hurry(maker: Maker) -> None:
    running = maker.begin()
    hurried = maker.ask(seconds=0.3 * SECONDS)
    wait_until(lambda: maker.flight._next is not None, SECONDS)
    patient = maker.ask(seconds=SECONDS)
    wait_until(lambda: maker.made == 2, SECONDS)
    maker.go_on.release(3)
    results = [asked.result(SECONDS) for asked in (running, patient, hurried)]
    assert sorted(results) == [1, 2, 3]


def test_turn_is_not_waited_for_longer_than_half_the_time(maker: Maker) -> None:
    running = maker.begin()
    impatient = maker.ask(seconds=0.2)
    wait_until(lambda: maker.made == 2, SECONDS)
    assert not running.done()
    maker.go_on.release(2)
    assert {running.result(SECONDS), impatient.result(SECONDS)} == {1, 2}
