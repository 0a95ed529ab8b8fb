"""The command ``hakgal-exporter`` and its subcommands; also ``python -m exporter``."""

import argparse
import sys
from collections.abc import Sequence
from importlib import import_module
from importlib.util import find_spec

from exporter import __version__
from exporter.errors import ConfigError, ExporterError

COMMANDS = ("demo", "simulate", "check", "backfill", "healthcheck")
DEPENDENCIES = ("prometheus_client", "psutil", "tornado", "yaml")
HELP = """\
Without a command, it serves metrics. The commands:
  demo         create databases, simulate HAK/GAL's activity and serve metrics
  simulate     write simulated activity into databases
  check        check the configuration, the databases and the addresses
  backfill     export the old monitor's history as OpenMetrics, for promtool
  healthcheck  check whether a running exporter is healthy

'hakgal-exporter COMMAND --help' lists a command's flags."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 on failure, 2 on bad settings."""
    try:
        return _run(list(sys.argv[1:] if arguments is None else arguments))
    except ConfigError as error:
        for problem in error.problems:
            print(f"hakgal-exporter: {problem}", file=sys.stderr)
        return 2
    except ExporterError as error:
        print(f"hakgal-exporter: {error}", file=sys.stderr)
        return 1
    except ModuleNotFoundError as error:
        if error.name not in DEPENDENCIES:
            raise
        missing = ", ".join(name for name in DEPENDENCIES if not find_spec(name))
        print(
            f"hakgal-exporter: not installed: {missing}; run pip install without"
            " --no-deps, which is enough only for exporter.recorder",
            file=sys.stderr,
        )
        return 1


def _run(words: list[str]) -> int:
    name = words.pop(0) if words and words[0] in COMMANDS else ""
    # A command is a function and a module of the same name.
    module = {"": "serve", "demo": "simulate"}.get(name, name)
    command = getattr(import_module(f"exporter.commands.{module}"), name or "serve")
    parser = argparse.ArgumentParser(
        prog=f"hakgal-exporter {name}".strip(),
        description=(command.__doc__ or "").partition("\n")[0],
        epilog=None if name else HELP,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    version = f"hakgal-exporter {__version__}"
    parser.add_argument("--version", action="version", version=version)
    return int(command(parser, words))


if __name__ == "__main__":
    sys.exit(main())
