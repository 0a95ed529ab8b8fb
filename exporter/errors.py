"""The exporter's exceptions.

Each message says what was attempted, on what, and what to do.
"""


class ExporterError(Exception):
    """Base of all exceptions that the exporter raises itself."""


class ConfigError(ExporterError):
    """One or more settings are wrong; ``problems`` holds one line for each."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class DatabaseError(ExporterError):
    """A database, or one of its tables, could not be read."""


class StateError(ExporterError):
    """The checkpoint could not be read or written."""


class ServerError(ExporterError):
    """A socket could not be opened."""
