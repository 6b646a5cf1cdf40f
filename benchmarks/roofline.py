"""The least time that a training step can take on this machine, with any library.

A matrix product, or a convolution, takes the longer of two times: its arithmetic divided by the best rate of products,
and its bytes divided by the bandwidth of the memory. It reads its operands once and writes its result once. The
optimizer's update takes its bytes divided by the bandwidth. The limit is the sum of these times. Everything between the
products, and the optimizer's arithmetic, counts as free. So no library can reach the whole limit.
"""

import math
from typing import NamedTuple

from benchmarks.machine import Machine
from benchmarks.network import BatchNorm, Conv, Dense, uses
from benchmarks.workload import Training

FLOAT = 4
#: Numbers that an update moves per parameter. It reads gradient, parameter and slots, and writes parameter and slots.
TRAFFIC = {"sgd": 3, "momentum": 5, "adam": 7}


class Limit(NamedTuple):
    """The limit of one training step."""

    flops: int
    moved: int  #: bytes
    parameters: int
    seconds: float


def limit(workload: Training, machine: Machine) -> Limit:
    """The work that a step cannot avoid, and how long it takes."""
    products = list(_products(workload))
    parameters = sum(_parameters(use) for use in uses(workload.network, workload.shape))
    update = FLOAT * TRAFFIC[workload.optimizer] * parameters
    working_set = update + FLOAT * sum(math.prod(use.after) for use in uses(workload.network, workload.shape))
    bandwidth = machine.bandwidth(working_set)
    seconds = sum(max(flops / machine.flops, moved / bandwidth) for flops, moved in products) + update / bandwidth
    flops, moved = (sum(column) for column in zip(*products, strict=True))
    return Limit(flops, moved + update, parameters, seconds)


def _products(workload):
    """(flops, bytes) of each product: forward, kernel gradient and, except in the first layer, input gradient."""
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
