from benchmarks.workload import Inference
from benchmarks.workloads import lenet, mlp_256

WORKLOADS = tuple(
    Inference(f"{name}, prediction, batch {batch}", of.WORKLOAD.network, of.WORKLOAD.shape, batch, calls)
    for name, of, calls in [("MLP 784-256-128-10", mlp_256, 200), ("LeNet-like CNN", lenet, 10)]
    for batch in (1, 256)
)
