"""Benchmarks: each checks its answers before it reports a figure. `python -m benchmarks` runs them all."""
