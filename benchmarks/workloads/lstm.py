from benchmarks.network import Dense, Last, Lstm
from benchmarks.workload import Training

WORKLOAD = Training(
    "LSTM 128, 64 steps, batch 32, Adam",
    network=(Lstm(128), Last(), Dense(10)),
    shape=(64, 128),
    batch=32,
    optimizer="adam",
    steps=20,
)
