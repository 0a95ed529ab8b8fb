"""Tests of exporter/database."""
