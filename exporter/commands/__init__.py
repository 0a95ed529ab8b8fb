"""The commands of ``hakgal-exporter``, one file each."""

import os
import queue
import signal

_STOP_SIGNALS = ("SIGINT", "SIGTERM")
# Other programs reload on these: do not end. A closed terminal still stops us.
_STRAY_SIGNALS = ("SIGHUP", "SIGUSR1", "SIGUSR2")


class Stop:
    """Waits for a stop signal: SIGINT, SIGTERM, or the end of the terminal."""

    def __init__(self) -> None:
        # Unlike an Event, a SimpleQueue is safe to use in a signal handler.
        self._signals = queue.SimpleQueue[int]()
        for name in {*_STRAY_SIGNALS, *_STOP_SIGNALS}.intersection(dir(signal)):
            is_heeded = name in _STOP_SIGNALS or (name == "SIGHUP" and os.isatty(0))
            told = (lambda number, _: self._signals.put(number)) if is_heeded else None
            signal.signal(getattr(signal, name), told or signal.SIG_IGN)

    def wait(self, seconds: float) -> bool:
        """Wait for a stop signal, at most this time; return whether there was one."""
        try:
            self._signals.get(timeout=seconds)
        except queue.Empty:
            return False
        for name in _STOP_SIGNALS:  # ignore a second signal: it would kill us
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        return True
