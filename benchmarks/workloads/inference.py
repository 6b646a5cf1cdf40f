from benchmarks.workload import Inference
from benchmarks.workloads import gpt, lenet, lstm, mlp_64, mlp_256, mlp_512, resnet_20

#: Of each network: its name, and the calls that are timed together for one example and for 256.
NETWORKS = [
    ("MLP 64-64-10", mlp_64, 500, 500),
    ("MLP 784-256-128-10", mlp_256, 500, 200),
    ("MLP 784-4×512-10", mlp_512, 200, 50),
    ("LeNet-like CNN", lenet, 100, 10),
    ("ResNet-20", resnet_20, 50, 3),
    ("GPT", gpt, 50, 1),
    ("LSTM", lstm, 50, 10),
]
WORKLOADS = tuple(
    Inference(
        f"{name}, prediction, batch {batch}", of.WORKLOAD.network, of.WORKLOAD.shape, batch, calls,
        tolerance=of.WORKLOAD.tolerance,
    )
    for name, of, *both in NETWORKS
    for batch, calls in zip((1, 256), both, strict=True)
)  # fmt: skip
