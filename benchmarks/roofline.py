"""The least time that a training step can take on this machine, with any library.

A matrix product, or a convolution, takes the longer of two times: its arithmetic divided by the best rate of products,
and its bytes divided by the bandwidth of the memory. It reads its operands once and writes its result once. Of causal
attention the half is counted that is not masked. A recurrence reads its kernel once, as if it stayed in a cache. The
optimizer's update takes its bytes divided by the bandwidth. The limit is the sum of these times. Everything between the
products, and the optimizer's arithmetic, counts as free. So no library can reach the whole limit.
"""

import math
from typing import NamedTuple

from benchmarks.machine import Machine
from benchmarks.network import Attention, Conv, Dense, Lstm, parameters, uses
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


class Product(NamedTuple):
    """(m × k) by (k × n), as often as `times` says. Its two gradients are products of as many numbers."""

    m: int
    k: int
    n: int
    times: float = 1

    @property
    def flops(self) -> float:
        return 2 * self.m * self.k * self.n * self.times

    @property
    def moved(self) -> float:
        return FLOAT * (self.m * self.k + self.k * self.n + self.m * self.n) * self.times


def limit(workload: Training, machine: Machine) -> Limit:
    """The work that a step cannot avoid, and how long it takes."""
    products = list(_products(workload))
    given = parameters(workload.network, workload.shape, workload.dtype)
    count = sum(leaf.size for own in given for leaf in own.values())
    update = FLOAT * TRAFFIC[workload.optimizer] * count
    working_set = update + FLOAT * sum(math.prod(use.after) for use in uses(workload.network, workload.shape))
    bandwidth = machine.bandwidth(working_set)
    seconds = sum(max(flops / machine.flops, moved / bandwidth) for flops, moved in products) + update / bandwidth
    flops, moved = (round(sum(column)) for column in zip(*products, strict=True))
    return Limit(flops, moved + update, count, seconds)


def _products(workload):
    """(flops, bytes) of each product: forward, and the gradients of both operands, except that of the data."""
    first = True
    for use in uses(workload.network, workload.shape):
        for product, moved in _forward(use, workload.batch):
            yield from [(product.flops, moved)] * (2 if first else 3)
            first = False


def _forward(use, batch):
    """The products of one layer, with the bytes of each."""
    rows = batch * math.prod(use.after[:-1])
    match use.layer:
        case Dense(features):
            found = [Product(rows, use.before[-1], features)]
        case Conv(features, size):
            # Its operand is the image, not the windows.
            one = Product(rows, size**2 * use.before[-1], features)
            return [(one, FLOAT * (one.k * one.n + batch * (math.prod(use.before) + math.prod(use.after))))]
        case Lstm(features):
            found = [Product(rows, width, 4 * features) for width in (use.before[-1], features)]
        case Attention(heads):
            time, width = use.after
            looks = [Product(time, width // heads, time), Product(time, time, width // heads)]
            found = 4 * [Product(rows, width, width)] + [one._replace(times=batch * heads / 2) for one in looks]
        case _:
            found = []
    return [(product, product.moved) for product in found]
