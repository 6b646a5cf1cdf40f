from benchmarks.network import Dense, Relu
from benchmarks.workload import Training

WORKLOAD = Training(
    "MLP 784-256-128-10, batch 128, Adam",
    network=(Dense(256), Relu(), Dense(128), Relu(), Dense(10)),
    shape=(784,),
    batch=128,
    optimizer="adam",
    steps=500,
)
