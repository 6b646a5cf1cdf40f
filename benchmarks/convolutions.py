"""The convolutions of ResNet-20, one by one, in funcnet and in torch.

    python -m benchmarks.convolutions

Each has three passes: y, its gradient dx by the image, and dW by the kernel. They are called from Python, in processes
that keep the memory they have freed, as the loop of a training does.
"""

import os

from benchmarks import report
from benchmarks.compare import compare
from benchmarks.worker import Worker
from benchmarks.workload import Convolution

BATCH = 32
#: Of each shape: the side of the image, channels, features, the side of the kernel, the stride, and how often
#: ResNet-20 has it.
SHAPES = [
    (32, 3, 16, 3, 1, 1),
    (32, 16, 16, 3, 1, 6),
    (32, 16, 32, 3, 2, 1),
    (32, 16, 32, 1, 2, 1),
    (16, 32, 32, 3, 1, 5),
    (16, 32, 64, 3, 2, 1),
    (16, 32, 64, 1, 2, 1),
    (8, 64, 64, 3, 1, 5),
]


#: The C library reads this when a process starts.
KEEP_MEMORY = "glibc.malloc.mmap_threshold=1073741824:glibc.malloc.trim_threshold=2147483648"


def main(rounds: int = 15) -> None:
    os.environ["GLIBC_TUNABLES"] = KEEP_MEMORY
    workers = [Worker("funcnet"), Worker("torch")]
    rows, sums = [], {}
    for side, channels, features, size, stride, often in SHAPES:
        for result in ("y", "dx", "dW"):
            if (channels, result) == (3, "dx"):
                continue  # nobody asks for that of the data
            title = f"{size} × {size} / {stride}, {channels} → {features}, {side} × {side}"
            workload = Convolution(title, side, channels, features, size, stride, BATCH, result, calls=50)
            by_hand, autodiff, torch = (times.median for times in compare(workload, workers, rounds))
            arithmetic = 2 * BATCH * (-(-side // stride)) ** 2 * size**2 * channels * features
            for name, taken in (("by hand", by_hand), ("autodiff", autodiff), ("torch", torch)):
                sums[name] = sums.get(name, 0) + often * taken
            rows.append([
                title, str(often), result, *map(report.duration, (by_hand, autodiff, torch)),
                f"{torch / by_hand:.2f}", *(f"{arithmetic / taken / 1e9:.0f}" for taken in (by_hand, torch)),
            ])  # fmt: skip
            print(*rows[-1], flush=True)
    for worker in workers:
        worker.stop()
    headings = ["shape", "times", "", "by hand", "autodiff", "torch", "torch / by hand", "GFLOP/s by hand", "of torch"]
    print(f"\n{report.table(headings, rows)}\n")
    print("all of them:", ", ".join(f"{name} {report.duration(taken)}" for name, taken in sums.items()))


if __name__ == "__main__":
    main()
