"""What can befall the files: all that ``files_*`` do to them."""

from tests.torture import files_damage, files_locks

FAULTS = (*files_locks.FAULTS, *files_damage.FAULTS)
