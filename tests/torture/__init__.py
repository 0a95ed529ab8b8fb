"""The torture: try to break each promise, as somebody who wants to, and tell how often.

    python -m tests.torture                    all of it, a quarter of an hour
    python -m tests.torture --share 0.1        fewer tries of each scene
    python -m tests.torture --only network     what has these words in group or name
    python -m tests.torture --only history --rounds 1000 --seed 2611

One victim (``victim``, the exporter's process), one ledger of what must come out
(``ledger``; ``rows`` says what is written, ``store`` writes it, ``judge`` compares) and
one table (``report``). On a ``stage`` with all of these, a ``scene`` is played many
times; each other module holds scenes.
"""
