"""Prometheus exporter for the HAK/GAL knowledge base."""

__version__ = "0.1.0"
