"""The libraries, one file per library. A file has `columns(workload) -> {name: () -> Column}` and `double()`, the
context in which float64 is float64. Each library runs in its own process."""
