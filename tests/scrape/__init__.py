"""Tests of exporter/scrape."""
