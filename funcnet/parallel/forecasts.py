"""What a training step costs on devices that need not be here, read from the program that is compiled for them."""

import re
from typing import Any, NamedTuple

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from funcnet.checks import check_choice, check_kind
from funcnet.errors import OutOfMemoryError
from funcnet.made import leading
from funcnet.parallel.chips import Chip, chip_of, topology
from funcnet.parallel.layout import layout
from funcnet.parallel.mesh import mesh
from funcnet.parallel.placement import check_rows, shardings
from funcnet.parallel.programs import Collective, costs_of
from funcnet.parallel.rules import Rules, replicate
from funcnet.parallel.step import program_of
from funcnet.rendering import text_table
from funcnet.training import create_state, train_step
from funcnet.training.loop import ENGINES
from funcnet.trees import equal_rows, is_whole, shapes
from funcnet.types import Batch, Layer, LossFn, Optimizer, Whole

__all__ = ["Forecast", "forecast"]


class Forecast(NamedTuple):
    """What one device of a training step needs and does, by its compiled program. `str(forecast)` is a table."""

    devices: int
    kind: str  #: of each device, as jax names it
    chip: Chip | None  #: what such a device can do, or `None` where that is not known
    argument_bytes: int  #: of its part of the state and of the batch
    temporary_bytes: int  #: of what lies between the passes, and in between
    new_bytes: int  #: of results that do not take the place of arguments
    flops: float  #: floating-point operations in a step
    bytes: float  #: read from and written to its memory in a step
    collectives: tuple[Collective, ...]  #: what it exchanges with the others in a step

    @property
    def memory(self) -> int:
        """The bytes that a device needs."""
        return self.argument_bytes + self.temporary_bytes + self.new_bytes

    @property
    def fits(self) -> bool | None:
        """Whether a device has so many bytes; `None` where that is not known."""
        return None if self.chip is None else self.memory <= self.chip.memory

    @property
    def sent_bytes(self) -> float:
        """The bytes that a device sends to the others in a step."""
        return sum(collective.bytes for collective in self.collectives)

    @property
    def times(self) -> dict[str, float]:
        """The seconds that operations, memory and links each need at least; empty where nothing is known of the chip.

        The longest is the roofline of the step: it may take longer, but not less. Where the links are the longest, more
        devices do not make the training faster.
        """
        if self.chip is None:
            return {}
        return {
            "operations": self.flops / self.chip.flops,
            "memory": self.bytes / self.chip.bandwidth,
            "links": self.sent_bytes / self.chip.links,
        }

    @property
    def seconds(self) -> float | None:
        """The roofline of the step, or `None` where nothing is known of the chip."""
        return max(self.times.values(), default=None)

    def __str__(self) -> str:
        name = self.kind if self.chip is None else f"{self.chip} ({self.kind})"
        rows = [(f"{self.devices} × {name}", "each"), *self._memory()]
        times = {what: f"{1e6 * seconds:,.1f} µs" for what, seconds in self.times.items()}
        rows.append(("operations", f"{self.flops:,.0f}"))
        rows.append(("bytes read and written", f"{self.bytes:,.0f}"))
        rows += [(f"{one.kind}, {one.times} in a step: bytes sent", f"{one.bytes:,.0f}") for one in self.collectives]
        rows += [(f"time at least, by {what}", time) for what, time in times.items()]
        return text_table(rows, right=1)

    def _memory(self):
        yield "state and batch, bytes", f"{self.argument_bytes:,}"
        yield "in between, bytes", f"{self.temporary_bytes:,}"
        if self.chip is not None:
            yield f"of {self.chip.memory / 2**30:,.0f} GiB of memory", f"{self.memory / self.chip.memory:.2%}"


def forecast(
    model: Layer,
    loss: LossFn,
    optimizer: Optimizer,
    batch: Batch,
    *,
    engine: str = "autodiff",
    devices: str | Mesh = "v5e:2x2",
    rules: Rules | None = None,
    flat: bool | None = None,
    data: str = "data",
    penalty: Any = None,
) -> Forecast:
    """What a training step costs on devices that need not be here: does it fit, what does each do, what do they send?

    The step is compiled for the devices, and not run. It is the one that `parallel.compile_step` runs with the same
    layout. So the bytes are exact. The times are rooflines, which no program beats: operations by the chip's products
    in bfloat16, bytes by its memory, and bytes sent by its links.

    Args:
        model, loss, optimizer: as for `training.fit`.
        batch: `(x, target)`, `(x, target, where)` or `(x, target, where, weights)` of the whole batch, arrays or
            shapes. Nothing is read of them but shapes and dtypes.
        engine: `"autodiff"` or `"backprop"`.
        devices: the name of a topology as `parallel.topology` takes it, whose devices divide the rows; or a mesh, of
            devices that are here or of `parallel.topology`.
        rules: where the parameters lie; by default whole on every device.
        flat, data: as for `parallel.layout`.
        penalty: `params -> scalar` added to the loss.

    Raises:
        OutOfMemoryError: the compiler finds that the step does not fit.
        ConfigError: no such engine or topology, or rules that do not fit.
        ShapeError: the rows of the batch cannot be divided evenly.
        MissingExtraError: a topology without libtpu; see `parallel.topology`.

    References: Williams, Waterman, Patterson, "Roofline: An Insightful Visual Performance Model for Multicore
    Architectures", CACM 2009. Patarasuk, Yuan, "Bandwidth optimal all-reduce algorithms for clusters of workstations",
    JPDC 2009, for the bytes that a ring sends.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> x, target = jax.ShapeDtypeStruct((32, 64), jnp.float32), jax.ShapeDtypeStruct((32,), jnp.int32)
    >>> found = fn.parallel.forecast(
    ...     fn.models.mlp((64, 10)), fn.losses.softmax_cross_entropy, fn.optimizers.sgd(0.1), (x, target),
    ...     engine="backprop", devices=fn.parallel.mesh(devices=jax.devices()[:1]))
    >>> found.devices, found.fits, found.collectives
    (1, None, ())
    """
    with leading("forecast"):
        check_choice("engine", engine, tuple(ENGINES))
        check_kind("devices", devices, str | Mesh, "the name of a topology, or a mesh of parallel.mesh(…)")
        over = mesh(devices=topology(devices)) if isinstance(devices, str) else devices
        batch = shapes(batch)
        rows = equal_rows(batch, "batches of graphs run on one device")
        check_rows("forecast", "rows", rows, over.shape[data], data)
        chosen = [(".*", replicate())] if rules is None else rules
        laid = layout(over, chosen, data=data, flat=flat)
        gradient = laid.gradient(ENGINES[engine](model, loss, penalty=penalty))
        state = jax.eval_shape(lambda key: create_state(model, optimizer, key, batch[0]), jax.random.key(0))
        placed = jax.tree.map(_placed, state, shardings(state, over, chosen))
        step = program_of(train_step(gradient, optimizer), laid)
        compiled = _compiled(step.lower(placed, _divided(batch, over, data)))
    memory, costs, device = compiled.memory_analysis(), costs_of(compiled, over.size), over.devices.flat[0]
    return Forecast(
        over.size, device.device_kind, chip_of(device), memory.argument_size_in_bytes, memory.temp_size_in_bytes,
        memory.output_size_in_bytes - memory.alias_size_in_bytes, costs.flops, costs.bytes, costs.collectives,
    )  # fmt: skip


def _placed(leaf, sharding):
    return jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=sharding)


def _divided(batch, over, data):
    """The shapes of a batch, with its rows along the axis `data`."""
    rows, everywhere = (NamedSharding(over, spec) for spec in (PartitionSpec(data), PartitionSpec()))

    def place(leaf):
        return Whole(_placed(leaf.array, everywhere)) if is_whole(leaf) else _placed(leaf, rows)

    return jax.tree.map(place, batch, is_leaf=is_whole)


def _compiled(lowered):
    """The program, or an error that says how much memory it would need."""
    try:
        return lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if "RESOURCE_EXHAUSTED" not in str(error):
            raise
        needed, there = (f"{size}iB" for size in re.findall(r"\b[\d.]+[KMGT]\b", str(error))[:2])
        fix = "take a smaller batch, rules that split the parameters, or layers.recompute"
        raise OutOfMemoryError(
            f"expected a step that fits into the {there} of a device, got one of {needed}; {fix}."
        ) from None
