"""Benchmarks, INQUIRE's metrics, and the harness that runs a benchmark under strategies. The agent cannot import it."""
