"""One test module a collector, named as in ``exporter/collectors``."""
