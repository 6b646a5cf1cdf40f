from benchmarks.workloads import mlp_64

WORKLOAD = mlp_64.WORKLOAD._replace(title="64 MLPs 64-64-10 at once, batch 32, Adam", models=64, steps=100)
