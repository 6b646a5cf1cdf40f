"""The libraries: a file each, with `columns(workload) -> {name: () -> Column}` and `double()`, the
context in which float64 is float64. Each runs in a process of its own."""
