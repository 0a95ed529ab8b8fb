"""What can befall the files: all that ``files_*`` do to them."""

from tests.torture import (
    files_damage,
    files_disk,
    files_locks,
    files_rows,
    files_schema,
)

FAULTS = (
    *files_locks.FAULTS,
    *files_damage.FAULTS,
    *files_disk.FAULTS,
    *files_schema.FAULTS,
    *files_rows.FAULTS,
)
