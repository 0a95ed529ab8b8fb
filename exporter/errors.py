"""What can go wrong, as one family tree.

Each message says what was attempted, on what, and what to do about it.
"""


class ExporterError(Exception):
    """Anything that the exporter raises on purpose."""


class ConfigError(ExporterError):
    """One or more settings are wrong.

    ``problems`` holds one line for each, all found at once.
    """

    def __init__(self, problems: list[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = problems


class DatabaseError(ExporterError):
    """A database, or one of its tables, could not be read."""


class StateError(ExporterError):
    """The checkpoint could not be read or written."""


class ServerError(ExporterError):
    """A socket could not be opened."""
