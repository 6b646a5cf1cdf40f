"""The suite: a workload a file, each `WORKLOAD`, or several as `WORKLOADS`."""
