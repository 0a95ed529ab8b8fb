"""The main job: serve metrics until told to stop."""

import logging
import os
import signal
import sys
from collections.abc import Callable

from exporter import __version__, logs
from exporter.config import Config
from exporter.counting.checkpoint import Checkpoint
from exporter.scrape import Exporter
from exporter.web.access import Access
from exporter.web.pages import Pages
from exporter.web.server import Server

STOP_SIGNALS = {signal.SIGINT, signal.SIGTERM}
# Sent by a habit of reloading or by mistake: there is nothing to reload, and unheeded
# they would end the process. Where a terminal hangs up, it goes with the terminal.
STRAY_SIGNALS = {signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2}
POLL_SECONDS = 0.5
CLOSE_SECONDS = 5.0
# A scrape beside the first fold waits for the interpreter at each of its steps; with
# Python's 5 ms these waits add up to more than the scrape.
SWITCH_SECONDS = 0.0005

logger = logging.getLogger(__name__)


def serve(config: Config, alive: Callable[[], bool] | None = None) -> int:
    """Serve until told to stop, or ``alive`` says no; return the exit code.

    SIGINT and SIGTERM stop it, and SIGHUP if it runs in a terminal.

    Raises:
        ConfigError: the web configuration file cannot be used.
        ServerError: an address cannot be listened on.
        StateError: the state file cannot be used.
    """
    # Blocked, the signals wait for us; every thread started from here inherits that.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS | STRAY_SIGNALS)
    sys.setswitchinterval(SWITCH_SECONDS)
    logs.configure(config.log_level, config.log_format)
    access = make_access(config)
    checkpoint = Checkpoint(config.state_file)
    checkpoint.claim()
    exporter = Exporter(config, checkpoint)
    pages = Pages(exporter, config.telemetry_path, config.max_requests)
    server = Server(pages, config.listen_addresses, access)
    logger.info("starting", extra={"fields": {"version": __version__}})
    exporter.start()
    server.start()
    stopped = wait_for_stop(alive)
    server.stop()
    # A last scrape, of nothing, makes durable what was read since the one before.
    exporter.collect(CLOSE_SECONDS, frozenset())
    logger.info("stopped")
    return 0 if stopped else 1


def make_access(config: Config) -> Access | None:
    """Return what a web configuration file asks for, None without one.

    Raises:
        ConfigError: the file cannot be used.
    """
    return Access(config.web_config_file) if config.web_config_file else None


def wait_for_stop(alive: Callable[[], bool] | None) -> bool:
    """Return True when told to stop, False once ``alive`` says no."""
    signals = STOP_SIGNALS | ({signal.SIGHUP} if os.isatty(0) else set())
    if alive is None:
        signal.sigwaitinfo(signals)
        return True
    while alive():
        if signal.sigtimedwait(signals, POLL_SECONDS):
            return True
    return False
