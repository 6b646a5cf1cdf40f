from benchmarks.workloads import mlp_256

WORKLOAD = mlp_256.WORKLOAD._replace(title="MLP 784-256-128-10, batch 128, Adam, fed from NumPy", fed="host", steps=200)
