"""One thread, one thing at a time: nothing that goes wrong in a call ends it."""

import threading
import time
from functools import partial

import pytest

from exporter.scrape.worker import Worker, isolate, wait

SECONDS = 10.0  # far more than anything here takes


def fail(error: BaseException) -> None:
    raise error


def occupy(worker: Worker) -> threading.Event:
    """Let the worker wait for an event."""
    started, end = threading.Event(), threading.Event()

    def hold() -> None:
        started.set()
        end.wait(SECONDS)

    worker.submit(hold)
    assert started.wait(SECONDS)
    return end


def test_calls_run_in_order_in_one_daemon_thread_of_that_name() -> None:
    worker, order = Worker("test-name"), list[tuple[int, threading.Thread]]()

    def note(number: int) -> int:
        order.append((number, threading.current_thread()))
        return number

    futures = [worker.submit(partial(note, number)) for number in range(50)]
    assert [future.result(SECONDS).result for future in futures] == [*range(50)]
    assert [number for number, _ in order] == [*range(50)]
    ((name, is_daemon),) = {(thread.name, thread.daemon) for _, thread in order}
    assert (name, is_daemon) == ("test-name", True)


@pytest.mark.parametrize("error", [ValueError("x"), MemoryError()], ids=repr)
def test_error_is_handed_on_and_the_thread_lives(error: BaseException) -> None:
    worker = Worker("test")
    assert worker.submit(partial(fail, error)).result(SECONDS).error is error
    assert worker.submit(lambda: "alive").result(SECONDS).result == "alive"


def test_whoever_is_too_slow_is_not_waited_for() -> None:
    worker, ran = Worker("test"), list[str]()
    end = occupy(worker)
    late = wait(worker.submit(lambda: ran.append("late")), 0.0)
    assert "no answer within 0.0 s; the disk may hang" in str(late.error)
    end.set()
    in_time = wait(worker.submit(lambda: 42), time.monotonic() + SECONDS)
    assert (in_time.result, in_time.error, ran) == (42, None, [])


def test_cancelled_call_does_not_run() -> None:
    worker, ran = Worker("test"), list[str]()
    end = occupy(worker)
    cancelled = worker.submit(lambda: ran.append("cancelled"))
    kept = worker.submit(lambda: ran.append("kept"))
    assert cancelled.cancel()
    end.set()
    kept.result(SECONDS)
    assert ran == ["kept"]


def test_idle_work_goes_on_until_it_says_none_and_calls_come_first() -> None:
    steps, done, left = list[str](), threading.Event(), [1, 2, 3]

    def idle() -> float | None:
        steps.append("idle")
        if left:
            left.pop()
            return 0.0
        done.set()
        return None

    worker = Worker("test", idle)
    assert not steps  # nothing is idle before the first call
    end = occupy(worker)
    for _ in range(3):
        worker.submit(lambda: steps.append("call"))
    end.set()
    assert done.wait(SECONDS)
    assert steps == ["call"] * 3 + ["idle"] * 4


@pytest.mark.parametrize("error", [ValueError("broken"), MemoryError()], ids=repr)
def test_idle_work_that_fails_comes_again_after_the_next_call(
    error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    ran = threading.Semaphore(0)

    def idle() -> float | None:
        ran.release()
        raise error

    worker = Worker("test", idle)
    for _ in (1, 2):
        worker.submit(int).result(SECONDS)
        assert ran.acquire(timeout=SECONDS)
    worker.submit(int).result(SECONDS)  # the second round has been logged by then
    assert [r.message for r in caplog.records][:2] == ["idle work failed"] * 2


def test_isolated_call_gives_its_result_or_its_error() -> None:
    error = ValueError("x")
    good, bad = isolate(lambda: 42), isolate(lambda: fail(error))
    assert (good.result, good.error) == (42, None)
    assert (bad.result, bad.error) == (None, error)
    assert 0 <= good.seconds < SECONDS
