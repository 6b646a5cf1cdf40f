from benchmarks.network import BatchNorm, Conv, Dense, MeanOverPlaces, Relu, Residual
from benchmarks.workload import Training


def block(features, stride):
    body = (
        Conv(features, 3, stride, bias=False), BatchNorm(), Relu(), Conv(features, 3, bias=False), BatchNorm(),
    )  # fmt: skip
    return Residual(body, (Conv(features, 1, stride, bias=False), BatchNorm()) if stride > 1 else ()), Relu()


WORKLOAD = Training(
    "ResNet-20, 32 × 32, batch 32, SGD with momentum",
    network=(
        Conv(16, 3, bias=False), BatchNorm(), Relu(),
        *block(16, 1), *block(16, 1), *block(16, 1),
        *block(32, 2), *block(32, 1), *block(32, 1),
        *block(64, 2), *block(64, 1), *block(64, 1),
        MeanOverPlaces(), Dense(10),
    ),
    shape=(32, 32, 3),
    batch=32,
    optimizer="momentum",
    steps=5,
)  # fmt: skip
