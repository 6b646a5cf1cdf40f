"""How long a training step must take on this machine, whatever the library.

The limit is the sum over its products of matrices, convolutions included, and over Adam's update, of the longer of two
times: arithmetic over the best rate of products, and bytes over the bandwidth of the memory. A product reads its
operands once and writes its result once; what stands between the products is thought to cost nothing, and so is the
optimizer's arithmetic. So no library can reach the whole limit.
"""

import math
from typing import NamedTuple

from benchmarks.machine import Machine
from benchmarks.network import BatchNorm, Conv, Dense, uses
from benchmarks.workload import Training

FLOAT = 4
#: Numbers that an update reads and writes for each parameter: gradient, parameter and slots; parameter and slots.
TRAFFIC = {"sgd": 3, "momentum": 5, "adam": 7}


class Limit(NamedTuple):
    """Of one training step."""

    flops: int
    moved: int  #: bytes
    parameters: int
    seconds: float


def limit(workload: Training, machine: Machine) -> Limit:
    """What a step cannot do without, and how long that takes."""
    products = list(_products(workload))
    parameters = sum(_parameters(use) for use in uses(workload.network, workload.shape))
    update = FLOAT * TRAFFIC[workload.optimizer] * parameters
    working_set = update + FLOAT * sum(math.prod(use.after) for use in uses(workload.network, workload.shape))
    bandwidth = machine.bandwidth(working_set)
    seconds = sum(max(flops / machine.flops, moved / bandwidth) for flops, moved in products) + update / bandwidth
    flops, moved = (sum(column) for column in zip(*products, strict=True))
    return Limit(flops, moved + update, parameters, seconds)


def _products(workload):
    """(flops, bytes) of each product: forward, kernel gradient, and input gradient but for the first layer."""
    first = True
    for use in uses(workload.network, workload.shape):
        weights = _kernel(use)
        if not weights:
            continue
        flops = 2 * workload.batch * math.prod(use.after[:-1]) * weights
        moved = FLOAT * (weights + workload.batch * (math.prod(use.before) + math.prod(use.after)))
        yield from [(flops, moved)] * (2 if first else 3)
        first = False


def _kernel(use):
    match use.layer:
        case Dense(features):
            return use.before[-1] * features
        case Conv(features, size):
            return size**2 * use.before[-1] * features
    return 0


def _parameters(use):
    match use.layer:
        case Dense(features) | Conv(features, _, _, True):
            return _kernel(use) + features
        case BatchNorm():
            return 2 * use.after[-1]
    return _kernel(use)
