"""The least time that a training step, a prediction or an update can take on this machine, with any library.

A matrix product, or a convolution, takes the longer of two times: its arithmetic divided by the best rate of products,
and its bytes divided by the bandwidth of the memory. It reads its operands once and writes its result once. Of causal
attention the half is counted that is not masked. A recurrence reads its kernel once, as if it stayed in a cache. The
optimizer's update takes its bytes divided by the bandwidth. The limit is the sum of these times. A prediction has the
products of the forward pass and no update. Everything between the products, the optimizer's arithmetic, and the way of
the batches to the device count as free. So no library can reach the whole limit.
"""

import math
from typing import NamedTuple

from benchmarks.machine import Machine
from benchmarks.network import Attention, Conv, Dense, Lstm, parameters, uses
from benchmarks.workload import Inference, Training, Update, Workload

FLOAT = 4
#: Numbers that an update moves per parameter. It reads gradient, parameter and slots, and writes parameter and slots.
TRAFFIC = {"sgd": 3, "momentum": 5, "adam": 7}


class Limit(NamedTuple):
    """The limit of one training step of all models, one prediction or one update."""

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


def limit(workload: Workload, machine: Machine) -> Limit:
    """The work that cannot be avoided, and how long it takes."""
    match workload:
        case Update():
            count = sum(map(math.prod, workload.shapes))
            update = TRAFFIC["adam"] * count
            return _limit([], count, update, update, machine)
        case Inference():
            count, between = _sizes(workload)
            return _limit(_forward(workload), count, 0, count + between, machine)
        case Training():
            count, between = (workload.models * size for size in _sizes(workload))
            update = TRAFFIC[workload.optimizer] * count
            first, *others = _forward(workload)
            # Forward, and the gradients of both operands, except that of the data.
            return _limit(workload.models * (2 * [first] + 3 * others), count, update, update + between, machine)


def _limit(products, count, update, working_set, machine):
    """Of products, each (flops, bytes). The rest are numbers: of parameters, moved by the update, and used again."""
    bandwidth, update = machine.bandwidth(FLOAT * working_set), FLOAT * update
    seconds = sum(max(flops / machine.flops, moved / bandwidth) for flops, moved in products) + update / bandwidth
    flops, moved = (round(sum(product[i] for product in products)) for i in (0, 1))
    return Limit(flops, moved + update, count, seconds)


def _sizes(workload):
    """How many numbers the parameters are, and what lies between the layers for one example."""
    given = parameters(workload.network, workload.shape, workload.dtype)
    between = sum(math.prod(use.after) for use in uses(workload.network, workload.shape))
    return sum(leaf.size for own in given for leaf in own.values()), between


def _forward(workload):
    """(flops, bytes) of each product of the forward pass."""
    layers = uses(workload.network, workload.shape)
    return [(product.flops, moved) for use in layers for product, moved in _products(use, workload.batch)]


def _products(use, batch):
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
