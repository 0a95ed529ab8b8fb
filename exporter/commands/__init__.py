"""What somebody can ask of ``hakgal-exporter``, a file a command."""

import os
import queue
import signal

# Unheeded, a habit of reloading would end us. With its terminal, it goes all the same.
_STRAY_SIGNALS = ("SIGHUP", "SIGUSR1", "SIGUSR2")


class Stop:
    """Notices when this process is told to stop: SIGINT, SIGTERM, a closed terminal."""

    def __init__(self) -> None:
        # A signal may interrupt this thread anywhere; unlike an event, a queue of this
        # kind takes that.
        self._signals = queue.SimpleQueue[int]()
        heeded = {"SIGINT", "SIGTERM", *(["SIGHUP"] if os.isatty(0) else [])}
        for name in {*_STRAY_SIGNALS, *heeded}.intersection(dir(signal)):
            handler = self._note if name in heeded else signal.SIG_IGN
            signal.signal(getattr(signal, name), handler)

    def _note(self, number: int, _: object) -> None:
        self._signals.put(number)

    def wait(self, seconds: float) -> bool:
        """Return at once if told to stop, else after this time; say which."""
        try:
            return bool(self._signals.get(timeout=seconds))
        except queue.Empty:
            return False
