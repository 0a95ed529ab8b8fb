"""What befalls the exporter: killed and stopped at all moments, scraped amid writes."""

import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from tests.faults.trial import Trial


@dataclass(frozen=True)
class ProcessFault:
    """Something that befalls the exporter.

    ``disturb`` may go on while the data's fault does; it returns what ends it. ``amid``
    says whether the exporter may then read.
    """

    name: str
    weight: int
    disturb: Callable[[Trial], Callable[[], None] | None]
    amid: bool = False


def leave_alone(trial: Trial) -> None:
    """Let it run."""


def scrape_amid(trial: Trial) -> Callable[[], None]:
    """Scrape all the time, by one Prometheus or by two."""
    count = trial.rng.randint(1, 2)
    scrapings = [trial.begin_scraping(again=True) for _ in range(count)]
    return partial(trial.end_scraping, *scrapings)


def kill(trial: Trial) -> None:
    trial.end(signal.SIGKILL)


def kill_and_start(trial: Trial) -> None:
    trial.end(signal.SIGKILL)
    trial.start()


def kill_in_scrape(trial: Trial, number: signal.Signals = signal.SIGKILL) -> None:
    """Kill at a random moment of a scrape, most of which take 5 ms."""
    scraping = trial.begin_scraping()
    time.sleep(trial.rng.uniform(0, trial.rng.choice((0.008, 0.05))))
    trial.end(number)
    trial.end_scraping(scraping)


def kill_amid(trial: Trial) -> Callable[[], None]:
    """Kill at a random moment while it is scraped and others write."""
    scraping = trial.begin_scraping(again=True)
    delay = trial.rng.uniform(0, 0.3)
    timer = threading.Timer(delay, trial.target.end, [signal.SIGKILL])
    timer.start()

    def finish() -> None:
        timer.join()
        trial.note_end()
        trial.end_scraping(scraping)

    return finish


def kill_at_start(trial: Trial) -> None:
    """Kill it, and then again while it starts or reads for the first time."""
    trial.end(signal.SIGKILL)
    trial.start()
    time.sleep(trial.rng.uniform(0.1, 0.4))
    trial.end(signal.SIGKILL)


def leave_damage(trial: Trial) -> None:
    """Leave beside the state file what a crash while it is written may leave."""
    trial.end(signal.SIGKILL)
    state = trial.target.state
    whole = state.read_bytes()
    part = whole[: trial.rng.randrange(len(whole))]
    content = trial.rng.choice((b"", trial.rng.randbytes(1000), part, whole))
    state.with_name(state.name + ".tmp").write_bytes(content)


def stop(trial: Trial) -> None:
    trial.end(signal.SIGTERM)


def stop_in_scrape(trial: Trial) -> None:
    kill_in_scrape(trial, signal.SIGTERM)


PROCESS_FAULTS = (
    ProcessFault("left running", 3, leave_alone),
    ProcessFault("scraped amid writes", 3, scrape_amid, amid=True),
    ProcessFault("kill -9", 4, kill),
    ProcessFault("kill -9, started at once", 3, kill_and_start, amid=True),
    ProcessFault("kill -9 in a scrape", 6, kill_in_scrape),
    ProcessFault("kill -9 amid writes", 5, kill_amid, amid=True),
    ProcessFault("kill -9 at its start", 2, kill_at_start),
    ProcessFault("damaged temporary file", 2, leave_damage),
    ProcessFault("SIGTERM", 2, stop),
    ProcessFault("SIGTERM in a scrape", 2, stop_in_scrape),
)
