"""Descriptions of what can be measured, without any library. Those of the suite are in the folder `workloads`."""

from collections.abc import Callable
from typing import Literal, NamedTuple, TypeAlias

import numpy as np

from benchmarks.network import Embedding, Network, Shape, output_shape

#: Batches that a library steps through, again and again.
BATCHES = 32
#: Number of steps on the first batch, or of values, that are compared between columns.
CHECKED = 5


class Training(NamedTuple):
    """Training steps of a classifier of examples, or of their positions, with the mean softmax cross-entropy; the time
    of one step."""

    title: str
    network: Network
    shape: Shape  #: of one example
    batch: int
    optimizer: str  #: "adam" (rate 1e-3), "sgd" (0.01) or "momentum" (0.01, 0.9)
    steps: int  #: timed together
    dtype: str = "float32"
    tolerance: float = 1e-9  #: by how much the losses of the first steps may differ, in float64
    models: int = 1  #: trained at the same time on the same batches, each from parameters of its own
    fed: Literal["device", "host"] = "device"  #: whether the batches lie on the device or are NumPy arrays


class Inference(NamedTuple):
    """A prediction of an untrained network, from an array on the device to an array on the device."""

    title: str
    network: Network
    shape: Shape
    batch: int
    calls: int  #: timed together
    dtype: str = "float32"
    tolerance: float = 1e-9


class Update(NamedTuple):
    """Adam's update alone, under `jit` and called from Python, of parameters and gradients of these shapes."""

    title: str
    shapes: tuple[Shape, ...]
    updates: int  #: timed together
    dtype: str = "float32"
    tolerance: float = 1e-9


class Convolution(NamedTuple):
    """One pass of a convolution with `size // 2` zeros on each side of the image: y, dx or dW."""

    title: str
    side: int
    channels: int
    features: int
    size: int
    stride: int
    batch: int
    result: Literal["y", "dx", "dW"]
    calls: int  #: timed together
    dtype: str = "float32"
    tolerance: float = 1e-9


Workload: TypeAlias = Training | Inference | Update


def batches(workload: Training) -> tuple[np.ndarray, np.ndarray]:
    """Random examples, words in int32 if the network embeds them, and labels in int32 for each output; BATCHES · batch
    rows."""
    random = np.random.default_rng(1)
    rows = BATCHES * workload.batch
    *places, classes = output_shape(workload.network, workload.shape)
    if isinstance(workload.network[0], Embedding):
        x = random.integers(0, workload.network[0].words, (rows, *workload.shape)).astype(np.int32)
    else:
        x = random.normal(size=(rows, *workload.shape)).astype(workload.dtype)
    return x, random.integers(0, classes, (rows, *places)).astype(np.int32)


def operands(workload: Convolution) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """x, the kernel (height, width, in, out) and dy."""
    random = np.random.default_rng(3)
    side, channels, features, size, stride, batch = workload[1:7]
    places = -(-side // stride)
    shapes = (batch, side, side, channels), (size, size, channels, features), (batch, places, places, features)
    x, kernel, dy = (random.normal(size=shape).astype(workload.dtype) for shape in shapes)
    return x, kernel, dy


def leaves(workload: Update) -> list[tuple[np.ndarray, np.ndarray]]:
    """Parameters and gradients."""
    random = np.random.default_rng(2)

    def draw(shape):
        return (random.standard_normal(shape, np.float32) / 100).astype(workload.dtype)

    return [(draw(shape), draw(shape)) for shape in workload.shapes]


class Column(NamedTuple):
    """One way in which a library does a workload, built and warm."""

    #: What must be equal in all columns, for example the losses of the first steps on the first batch. It is called in
    #: float64. In float32 a ReLU whose input is 0 up to rounding may be open in one library and shut in another.
    check: Callable[[], list[float]]
    run: Callable[[], None]  #: does all of it once, and waits for the end
    count: int  #: steps, calls or updates in one run
