"""What somebody can ask of ``hakgal-exporter``, a file a command."""

import os
import queue
import signal
from contextlib import suppress

# Sent by a habit of reloading or by mistake: there is nothing to reload, and unheeded
# they would end the process. Where a terminal hangs up, it goes with the terminal.
_STRAY_SIGNALS = ("SIGHUP", "SIGUSR1", "SIGUSR2")


class Stop:
    """Notices when this process is told to stop: SIGINT, SIGTERM, a closed terminal."""

    def __init__(self) -> None:
        # A signal may interrupt this thread anywhere; unlike an event, a queue of this
        # kind takes that.
        self._signals = queue.SimpleQueue[int]()
        self._is_told = False
        for name in ("SIGINT", "SIGTERM", *_STRAY_SIGNALS):
            if number := getattr(signal, name, None):
                is_stray = name in _STRAY_SIGNALS
                if is_stray and not (name == "SIGHUP" and os.isatty(0)):
                    signal.signal(number, signal.SIG_IGN)
                else:
                    signal.signal(number, lambda number, _: self._signals.put(number))

    def wait(self, seconds: float) -> bool:
        """Return at once if told to stop, else after this time; say which."""
        with suppress(queue.Empty):
            self._is_told = self._is_told or bool(self._signals.get(timeout=seconds))
        return self._is_told
