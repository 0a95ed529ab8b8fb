"""Serve metrics until a stop signal."""

import argparse
import logging
import os
import sys
from collections.abc import Callable

from exporter import __version__
from exporter.commands import Stop, logs
from exporter.config import Config, add_flags, load, unknown_variables
from exporter.counting.checkpoint import Checkpoint
from exporter.scrape import Exporter
from exporter.web import Server
from exporter.web.access import Access
from exporter.web.pages import Pages

POLL_SECONDS = 0.5
CLOSE_SECONDS = 5.0
SWITCH_SECONDS = 0.0005  # with Python's default of 5 ms, the first fold delays scrapes

logger = logging.getLogger(__name__)


def serve(parser: argparse.ArgumentParser, words: list[str]) -> int:
    """Serve the metrics of a HAK/GAL knowledge base for Prometheus."""
    add_flags(parser)
    return run(load(parser.parse_args(words), os.environ))


def run(config: Config, is_needed: Callable[[], bool] = lambda: True) -> int:
    """Serve until stopped and return 0, or until no longer needed and return 1.

    Raises:
        ConfigError: the web configuration file cannot be used.
        ServerError: the exporter cannot listen on an address.
        StateError: the state file cannot be used.
    """
    stop = Stop()
    sys.setswitchinterval(SWITCH_SECONDS)
    logs.configure(config.log_level, config.log_format)
    access = Access(config.web_config_file) if config.web_config_file else None
    checkpoint = Checkpoint(config.state_file)
    checkpoint.claim()
    exporter = Exporter(config, checkpoint)
    pages = Pages(exporter, config.telemetry_path, config.max_requests)
    server = Server(pages, config.listen_addresses, access)
    logger.info("starting", extra={"fields": {"version": __version__}})
    for name in unknown_variables(os.environ):
        logger.warning("unknown setting", extra={"fields": {"variable": name}})
    exporter.start()
    server.start()
    while not (is_told := stop.wait(POLL_SECONDS)) and is_needed():
        pass
    server.stop()
    # A last, empty scrape saves a checkpoint of what was read since the previous one.
    exporter.collect(CLOSE_SECONDS, frozenset())
    logger.info("stopped")
    return 0 if is_told else 1
