"""The suite. Each file holds one workload as `WORKLOAD`, or several as `WORKLOADS`."""
