"""Tests; a package, so that they share helpers by their full names."""
