"""The fault test: rounds of writes, prunes, VACUUM, replaced files and kill -9.

Each round writes, lets something befall a database and the exporter, and compares what
a page shows with what was committed: every row counted once or, where it was pruned
unread, missed once, and no counter lower than on any page before. What the promise
leaves over where tables are swapped is counted apart.

    python -m tests.faults --rounds 1000 --seed 1

``rows`` says what is written and what it must become, ``ledger`` keeps what was
committed, ``store`` is HAK/GAL's side, ``target`` the exporter's process, ``trial``
brings them together, ``data_faults`` and ``process_faults`` are what befalls, ``run``
plays and reports.
"""
