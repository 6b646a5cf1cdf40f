"""The clock: every workload in every library, side by side, beside what the machine can do. `python -m benchmarks`."""
