from benchmarks.network import Dense, Relu
from benchmarks.workload import Training

WORKLOAD = Training(
    "MLP 64-64-10, batch 32, Adam",
    network=(Dense(64), Relu(), Dense(10)),
    shape=(64,),
    batch=32,
    optimizer="adam",
    steps=1000,
)
