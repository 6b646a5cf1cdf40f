from benchmarks.workload import Update

WORKLOADS = (
    Update("Adam, 200 leaves of 64 × 64 and 64", 100 * ((64, 64), (64,)), updates=50),
    Update("Adam, one leaf of 50 million", ((50_000_000,),), updates=1),
)
