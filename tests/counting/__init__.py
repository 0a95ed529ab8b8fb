"""Tests of exporter/counting."""
