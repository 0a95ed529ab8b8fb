"""What somebody can ask of ``hakgal-exporter``, a file a command."""

import os
import queue
import signal

_STOP_SIGNALS = ("SIGINT", "SIGTERM")
# Unheeded, a habit of reloading would end us. With its terminal, it goes all the same.
_STRAY_SIGNALS = ("SIGHUP", "SIGUSR1", "SIGUSR2")


class Stop:
    """Notices when this process is told to stop: SIGINT, SIGTERM, a closed terminal."""

    def __init__(self) -> None:
        # Unlike an event, a queue of this kind may be used by a handler at any moment.
        self._signals = queue.SimpleQueue[int]()
        for name in {*_STRAY_SIGNALS, *_STOP_SIGNALS}.intersection(dir(signal)):
            is_heeded = name in _STOP_SIGNALS or (name == "SIGHUP" and os.isatty(0))
            told = (lambda number, _: self._signals.put(number)) if is_heeded else None
            signal.signal(getattr(signal, name), told or signal.SIG_IGN)

    def wait(self, seconds: float) -> bool:
        """Return at once if told to stop, else after this time; say which."""
        try:
            self._signals.get(timeout=seconds)
        except queue.Empty:
            return False
        for name in _STOP_SIGNALS:  # a second one would be Python's own, violent end
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        return True
