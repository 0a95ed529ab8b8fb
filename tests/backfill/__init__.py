"""The command ``backfill``, alone and with what it is made for: real Prometheus."""
