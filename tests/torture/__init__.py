"""The torture: try to break each promise, as somebody who wants to, and tell how often.

    python -m tests.torture                    all of it, minutes
    python -m tests.torture --share 0.1        fewer tries of each
    python -m tests.torture --only network     what has a word in its name or group

It prints a table: what was tried, how often, and what was lost, doubled, harmed or
crashed by it, which is to be nothing. ``report`` says what these mean; each other
module is a group of faults.
"""
