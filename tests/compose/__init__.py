"""The compose stacks, really started: ``make compose-test``, not ``make test``."""
