"""All that the network can do: to connections, in messages, to TLS, to log-ins."""

from tests.torture import connections, encryption, messages, passwords
from tests.torture.report import Fault

FAULTS: tuple[Fault, ...] = (
    *connections.FAULTS,
    *messages.FAULTS,
    *encryption.FAULTS,
    *passwords.FAULTS,
)
