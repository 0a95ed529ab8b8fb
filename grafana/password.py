"""Make the password that Grafana's `admin` has at first, unless it was made before.

``python password.py MADE GIVEN``: what is in the file GIVEN, or 24 random bytes where
that is empty. MADE appears with its whole content or not at all, because Grafana would
take an empty one for none.
"""

import os
import secrets
import sys
from pathlib import Path


def make(made: Path, given: Path) -> bool:
    """Return whether the password was made; its owner alone may read it.

    Raises:
        OSError: the given file cannot be read, or nothing can be written.
    """
    if made.exists():
        return False
    password = given.read_text().strip() or secrets.token_urlsafe(24)
    new = made.with_name(made.name + ".new")
    new.unlink(missing_ok=True)  # of an attempt that was cut off
    with open(os.open(new, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o400), "w") as file:
        file.write(password)
        file.flush()
        os.fsync(file.fileno())
    os.replace(new, made)
    return True


if __name__ == "__main__":
    is_new = make(Path(sys.argv[1]), Path(sys.argv[2]))
    print("The password is made." if is_new else "The password is there from before.")
