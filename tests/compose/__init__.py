"""The compose stacks, really started: `make compose-test`.

Not part of `make test`: .ci/docker runs them beside a Docker engine of their own.
"""
