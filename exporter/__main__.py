"""The command ``hakgal-exporter`` and its subcommands; also ``python -m exporter``."""

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from exporter import __version__, config
from exporter.errors import ConfigError, ExporterError

DEPENDENCIES = ("prometheus_client", "psutil", "tornado", "yaml")
DESCRIPTION = "Prometheus exporter for the HAK/GAL knowledge base."
COMMANDS = """\
commands:
  (none)       serve metrics
  demo         make databases, simulate HAK/GAL's activity, serve metrics
  simulate     write simulated activity into given databases
  check        say what is wrong with the configuration and the databases
  backfill     write the old monitor's history as OpenMetrics, for promtool
  healthcheck  ask a running exporter whether it is healthy

'hakgal-exporter COMMAND --help' lists a command's flags."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command and return its exit code: 0, 1 on failure, 2 on wrong settings."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    commands: dict[str, Callable[[list[str]], int]] = {
        "demo": _demo,
        "simulate": _simulate,
        "check": _check,
        "backfill": _backfill,
        "healthcheck": _healthcheck,
    }
    command = commands[words.pop(0)] if words and words[0] in commands else _serve
    try:
        return command(words)
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
            f"hakgal-exporter: not installed: {missing}; with --no-deps there is only"
            " exporter.recorder, for the rest run pip install without it",
            file=sys.stderr,
        )
        return 1


def _serve(words: list[str]) -> int:
    parser = _parser("", DESCRIPTION, epilog=COMMANDS)
    parser.add_argument(
        "--version", action="version", version=f"hakgal-exporter {__version__}"
    )
    config.add_flags(parser)
    settings = config.load(parser.parse_args(words), os.environ)
    from exporter.commands.serve import serve

    return serve(settings)


def _demo(words: list[str]) -> int:
    parser = _parser("demo", "Make databases, simulate activity, serve metrics.")
    parser.add_argument(
        "--demo.directory",
        dest="directory",
        metavar="DIR",
        default=os.environ.get("HAKGAL_DEMO_DIRECTORY", "data"),
        help="Keep the databases and the state file here. Default: data.",
    )
    config.add_flags(parser)
    flags = parser.parse_args(words)
    from exporter.commands.simulate import default_files, demo

    return demo(config.load(flags, default_files(flags.directory) | os.environ))


def _simulate(words: list[str]) -> int:
    from exporter.commands.simulate import add_flags, simulate

    parser = _parser("simulate", "Write simulated activity into given databases.")
    add_flags(parser)
    return simulate(parser.parse_args(words))


def _check(words: list[str]) -> int:
    parser = _parser("check", "Say what is wrong with configuration and databases.")
    config.add_flags(parser)
    flags = parser.parse_args(words)
    from exporter.commands.check import check

    return check(config.load(flags, os.environ))


def _backfill(words: list[str]) -> int:
    from exporter.commands.backfill import EPILOG, add_flags, backfill, read_flags

    parser = _parser("backfill", "Write the old history as OpenMetrics text.", EPILOG)
    add_flags(parser)
    config.add_flags(parser)
    flags = parser.parse_args(words)
    request = read_flags(flags, os.environ)
    return backfill(config.load(flags, os.environ), request)


def _healthcheck(words: list[str]) -> int:
    parser = _parser("healthcheck", "Ask a running exporter whether it is healthy.")
    config.add_flags(parser)
    settings = config.load(parser.parse_args(words), os.environ)
    from exporter.commands.healthcheck import ask_health

    problem = ask_health(settings.listen_addresses[0], settings.web_config_file)
    print(problem or "healthy", file=sys.stderr if problem else sys.stdout)
    return 1 if problem else 0


def _parser(
    command: str, description: str, epilog: str = ""
) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(
        prog=f"hakgal-exporter {command}".strip(),
        description=description,
        epilog=epilog,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )


if __name__ == "__main__":
    sys.exit(main())
