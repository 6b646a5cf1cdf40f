"""Benchmarks: every workload in every library, compared with what the machine can do. Run `python -m benchmarks`."""
