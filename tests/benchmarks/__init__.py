"""The product side by side with its peers and limits: `python -m tests.benchmarks`."""
