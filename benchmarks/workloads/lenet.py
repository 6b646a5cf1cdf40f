from benchmarks.network import Conv, Dense, Flatten, MaxPool, Relu
from benchmarks.workload import Training

WORKLOAD = Training(
    "LeNet-like CNN, 28 × 28, batch 128, SGD",
    network=(
        Conv(32, 3), Relu(), MaxPool(2), Conv(64, 3), Relu(), MaxPool(2), Flatten(), Dense(128), Relu(), Dense(10),
    ),
    shape=(28, 28, 1),
    batch=128,
    optimizer="sgd",
    steps=10,
)  # fmt: skip
