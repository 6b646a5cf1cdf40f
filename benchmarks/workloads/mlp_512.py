from benchmarks.network import Dense, Relu
from benchmarks.workload import Training

WORKLOAD = Training(
    "MLP 784-4×512-10, batch 128, Adam",
    network=(*4 * (Dense(512), Relu()), Dense(10)),
    shape=(784,),
    batch=128,
    optimizer="adam",
    steps=100,
)
