"""One thread, one thing at a time: nothing that goes wrong in a call ends it."""

import gc
import logging
import threading
import weakref
from concurrent.futures import CancelledError, Future
from functools import partial

import pytest

from exporter.isolation import isolate
from exporter.worker import Worker

SECONDS = 10.0  # far more than anything here takes


class Result:
    """Something that can be referred to weakly."""


def occupy(worker: Worker) -> tuple[threading.Event, Future[bool]]:
    """Let the worker wait, and return the event that ends it."""
    started, end = threading.Event(), threading.Event()

    def wait() -> bool:
        started.set()
        return end.wait(SECONDS)

    future = worker.submit(wait)
    assert started.wait(SECONDS)
    return end, future


def test_call_returns_through_its_future() -> None:
    assert Worker("test").submit(lambda: 6 * 7).result(SECONDS) == 42


def test_calls_run_in_order_in_one_thread_of_that_name() -> None:
    worker, order = Worker("test-name"), list[tuple[int, str]]()

    def note(number: int) -> None:
        order.append((number, threading.current_thread().name))

    futures = [worker.submit(partial(note, number)) for number in range(50)]
    for future in futures:
        future.result(SECONDS)
    assert order == [(n, "test-name") for n in range(50)]


def test_thread_does_not_keep_the_process_from_ending() -> None:
    thread = Worker("test").submit(threading.current_thread).result(SECONDS)
    assert thread.daemon


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), KeyboardInterrupt(), SystemExit(3), MemoryError()],
    ids=repr,
)
def test_error_is_handed_on_and_the_thread_lives(error: BaseException) -> None:
    def fail() -> None:
        raise error

    worker = Worker("test")
    future = worker.submit(fail)
    assert future.exception(SECONDS) is error
    assert worker.submit(lambda: "alive").result(SECONDS) == "alive"


def test_cancelled_call_does_not_run() -> None:
    worker, ran = Worker("test"), list[str]()
    end, _ = occupy(worker)
    cancelled = worker.submit(lambda: ran.append("cancelled"))
    kept = worker.submit(lambda: ran.append("kept"))
    assert cancelled.cancel()
    end.set()
    kept.result(SECONDS)
    assert ran == ["kept"]
    with pytest.raises(CancelledError):
        cancelled.result(SECONDS)


def test_call_that_runs_cannot_be_cancelled_and_harms_nobody() -> None:
    worker = Worker("test")
    end, future = occupy(worker)
    assert not future.cancel()
    end.set()
    assert future.result(SECONDS) is True
    assert worker.submit(lambda: "alive").result(SECONDS) == "alive"


def test_last_result_is_not_kept_alive() -> None:
    is_idle = threading.Semaphore(0)
    worker = Worker("test", is_idle.release)
    future = worker.submit(Result)
    result = weakref.ref(future.result(SECONDS))
    del future
    is_idle.acquire()
    gc.collect()
    assert result() is None


def test_idle_runs_after_a_call_and_not_again_when_it_says_none() -> None:
    rounds, ran = list[str](), threading.Semaphore(0)

    def idle() -> None:
        rounds.append("idle")
        ran.release()

    worker = Worker("test", idle)
    for number in (1, 2, 3):
        worker.submit(lambda: rounds.append("call")).result(SECONDS)
        assert ran.acquire(timeout=SECONDS)
        assert rounds == ["call", "idle"] * number


def test_idle_runs_on_while_it_has_something_to_do() -> None:
    left, done = [3, 2, 1], threading.Event()

    def idle() -> float | None:
        if left:
            left.pop()
            return 0.0
        done.set()
        return None

    Worker("test", idle).submit(int)
    assert done.wait(SECONDS)
    assert left == []


def test_nothing_is_idle_before_the_first_call() -> None:
    ran = threading.Event()
    worker = Worker("test", ran.set)
    assert not ran.is_set()
    worker.submit(int)
    assert ran.wait(SECONDS)


def test_calls_come_before_more_idle_work() -> None:
    rounds, enough = list[int](), threading.Event()

    def idle() -> float | None:
        rounds.append(1)
        return None if enough.is_set() else 0.0

    worker = Worker("test", idle)
    end, _ = occupy(worker)
    futures = [worker.submit(lambda: len(rounds)) for _ in range(20)]
    end.set()
    before = {future.result(SECONDS) for future in futures}
    enough.set()
    assert len(before) == 1  # no idle round between calls that wait


def test_idle_work_that_fails_is_logged_and_comes_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    ran = threading.Semaphore(0)

    def idle() -> float | None:
        ran.release()
        raise ValueError("broken")

    worker = Worker("test", idle)
    for _ in (1, 2):
        worker.submit(int).result(SECONDS)
        assert ran.acquire(timeout=SECONDS)
    worker.submit(int).result(SECONDS)  # the second round has been logged by then
    records = [r for r in caplog.records if r.levelno == logging.ERROR]
    assert [record.message for record in records][:2] == ["idle work failed"] * 2
    assert "broken" in caplog.text


def test_isolated_call_gives_its_result_or_its_error() -> None:
    error = ValueError("x")

    def fail() -> None:
        raise error

    good, bad = isolate(lambda: 42), isolate(fail)
    assert (good.result, good.error) == (42, None)
    assert (bad.result, bad.error) == (None, error)
    assert 0 <= good.seconds < SECONDS


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit])
def test_end_of_the_process_is_not_isolated(error: type[BaseException]) -> None:
    def end() -> None:
        raise error

    with pytest.raises(error):
        isolate(end)


def test_thread_outlives_a_lack_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    failed = threading.Event()

    def fail(*_: object) -> None:
        failed.set()
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr("exporter.worker.answer", fail)
        worker = Worker("test")
        worker.submit(int)
        assert failed.wait(SECONDS)
    assert worker.submit(lambda: 42).result(SECONDS) == 42
