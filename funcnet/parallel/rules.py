"""Rules: which parameter is split over which axes of the mesh.

A rule is a pair (pattern, partition). The pattern is a regular expression that must match the whole path of a leaf,
such as `2/kernel`, or a function of the path. The first rule that matches a leaf decides. The partition is

- `replicate()`: the leaf is whole on every device,
- `fsdp("data")`: split along its largest dimension that divides evenly, and whole if it is small,
- a `jax.sharding.PartitionSpec`, which names an axis of the mesh, or `None`, for each dimension.

These are errors: a leaf without a rule, a rule without a leaf, and a dimension that does not divide evenly.
"""

import math
import re
from collections.abc import Sequence
from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

import jax
from jax.sharding import PartitionSpec

from funcnet.checks import check_count, check_kind, check_multiple, describe
from funcnet.errors import ConfigError
from funcnet.made import leading
from funcnet.parallel.mesh import axis_size
from funcnet.trees import Select, check_matches, flatten_with_paths, selector
from funcnet.types import Layer, Params

__all__ = ["FSDP", "Partition", "Rules", "check_rules", "fsdp", "replicate", "specs", "spell_spec", "tensor_parallel"]


class FSDP(NamedTuple):
    """What `fsdp` returns."""

    axis: str
    min_bytes: int
    spec: PartitionSpec  #: dimensions that are split already


Partition: TypeAlias = PartitionSpec | FSDP
Rules: TypeAlias = Sequence[tuple[Select, Partition]]


def replicate() -> PartitionSpec:
    """Whole on every device.

    >>> import funcnet as fn
    >>> rules = [(".*", fn.parallel.replicate())]  # data parallel
    """
    return PartitionSpec()


def fsdp(axis: str = "data", *, min_bytes: int = 2**20, spec: PartitionSpec | None = None) -> FSDP:
    """Fully sharded: a leaf is split over `axis` along its largest dimension that divides evenly.

    If `axis` is the one over which batches are divided, no device holds more than its part of the parameters and of the
    optimizer's slots. The compiler gathers a layer's parameters where the layer runs.

    Args:
        axis: of the mesh.
        min_bytes: smaller leaves are whole on every device, because moving them costs more than keeping them.
        spec: dimensions that are already split over other axes, for example `PartitionSpec(None, "model")`. If no other
            dimension divides evenly, one of these is split further.

    Raises:
        ConfigError: an argument of the wrong kind.

    References: Rajbhandari, Rasley, Ruwase, He, "ZeRO: Memory Optimizations Toward Training Trillion Parameter
    Models", SC 2020.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> mesh = fn.parallel.mesh()
    >>> params = {"kernel": jnp.zeros((8, 64)), "bias": jnp.zeros(64)}
    >>> fn.parallel.specs(params, mesh, [(".*", fn.parallel.fsdp(min_bytes=1024))])
    {'bias': P(), 'kernel': P(None, 'data')}
    """
    with leading("fsdp"):
        check_kind("axis", axis, str, "the name of an axis of the mesh")
        check_count("min_bytes", min_bytes, 0)
    return FSDP(axis, int(min_bytes), spec or PartitionSpec())


def tensor_parallel(
    model: Layer, x: Any, mesh: Any, *, axis: str = "model", otherwise: Partition | None = None
) -> list[tuple[str, Partition]]:
    """Rules that split the features of a model over an axis of the mesh, one rule per leaf.

    The kernels (…, in, out) take turns along the model. One is split by its outputs, so that each device computes a
    part of the features. The next is split by its inputs, so that it takes this part where it lies, and the sum over
    the devices makes the features whole again. Biases, norms and depthwise kernels are split as the features are.
    Attention has both within: queries, keys and values are split by outputs, so by heads, and its last kernel by
    inputs. Tables of embeddings are split by rows. What does not divide is not split. Where a model branches, the rules
    are a guess at what is fast. The results are the same in any case.

    Args:
        model: a layer.
        x: an example batch or a `jax.ShapeDtypeStruct`.
        mesh: of `mesh(data=…, model=…)`.
        axis: of the mesh.
        otherwise: the partition of what is not split, `replicate()` by default. `fsdp(…)` also splits the other leaves,
            along another dimension.

    Raises:
        ConfigError: the mesh has no such axis.

    References: Shoeybi et al., "Megatron-LM: Training Multi-Billion Parameter Language Models Using Model
    Parallelism", 2019, section 3.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> mesh = fn.parallel.mesh(model=1)
    >>> model, x = fn.models.mlp((8, 2)), jax.ShapeDtypeStruct((1, 4), jnp.float32)
    >>> rules = dict(fn.parallel.tensor_parallel(model, x, mesh))
    >>> rules["0/kernel"], rules["2/kernel"], rules["2/bias"]
    (P(None, 'model'), P('model', None), P())
    """
    size = axis_size("tensor_parallel", mesh, axis)
    otherwise = replicate() if otherwise is None else otherwise
    params, _ = jax.eval_shape(model.init, jax.random.key(0), x)
    rules, split = [], False  # whether the features are split over the axis here
    for _, layer in groupby(flatten_with_paths(params), key=lambda item: item[0].rpartition("/")[0]):
        shapes = {path: leaf.shape for path, leaf in layer}
        parts, split = _parts(shapes, split, size)
        for path, dimension in parts.items():
            rules.append((re.escape(path), _over(otherwise, _part(shapes[path], dimension, axis, size))))
    return rules


def _parts(shapes, split, size):
    """path -> the dimension of a layer's leaf that is split, or `None`; and whether its outputs are split."""
    names = {path: path.rpartition("/")[2] for path in shapes}
    if "out_kernel" in names.values():  # attention
        return {path: {"out_kernel": -2, "out_bias": None}.get(name, -1) for path, name in names.items()}, False
    if "embedding" in names.values():
        return {path: -2 if name == "embedding" else None for path, name in names.items()}, False
    by_inputs, split = _turn(max(shapes.values(), key=len), split, size)
    of_kernels, of_biases = (-2, None) if by_inputs else (-1, -1) if split else (None, None)
    return {path: of_kernels if len(shape) >= 2 else of_biases for path, shape in shapes.items()}, split


def _turn(kernel, split, size):
    """Whether a layer's kernel is split by its inputs, and whether its outputs are split."""
    if len(kernel) < 2 or kernel[-2] == 1:  # each feature by itself
        return False, split and kernel != () and kernel[-1] % size == 0
    if split:
        return kernel[-2] % size == 0, False
    return False, kernel[-1] % size == 0


def _part(shape, dimension, axis, size):
    """The spec of a leaf that is split along a dimension, counted from the end, if it has it and it divides evenly."""
    if dimension is None or -dimension > len(shape) or shape[dimension] % size:
        return PartitionSpec()
    return PartitionSpec(*[None] * (len(shape) + dimension), axis, *[None] * (-dimension - 1))


def _over(partition, spec):
    """The partition of a leaf that is split by `spec`."""
    if isinstance(partition, FSDP):
        return FSDP(partition.axis, partition.min_bytes, spec)
    return spec if any(spec) else partition


def check_rules(rules: Any) -> tuple[tuple[Select, Partition], ...]:
    """The rules as a tuple; ConfigError for anything that is not a rule."""
    rules = tuple(rules)
    for rule in rules:
        if not (isinstance(rule, tuple | list) and len(rule) == 2 and (isinstance(rule[0], str) or callable(rule[0]))):
            raise ConfigError(f'rules: expected pairs such as ("2/kernel", fsdp("data")), got {rule!r}.')
        pattern, partition = rule
        with leading("rules"):
            wanted = "replicate(), fsdp(…) or a PartitionSpec"
            check_kind(f"the partition of {pattern!r}", partition, PartitionSpec | FSDP, wanted)
            selector("pattern", pattern)
    return tuple((pattern, partition) for pattern, partition in rules)


def specs(params: Params, mesh: Any, rules: Rules) -> Any:
    """A tree like `params` of the `PartitionSpec` that the rules give each leaf.

    Raises:
        ConfigError: a leaf that no rule matches, a rule that matches no leaf, or a leaf that cannot be split as its
            rule says.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> from jax.sharding import PartitionSpec
    >>> params = {"kernel": jnp.ones((4, 2)), "bias": jnp.ones(2)}
    >>> rules = [("kernel", PartitionSpec("data", None)), (".*", fn.parallel.replicate())]
    >>> fn.parallel.specs(params, fn.parallel.mesh(), rules)
    {'bias': P(), 'kernel': P('data',)}
    """
    rules = check_rules(rules)
    leaves = flatten_with_paths(params)
    for pattern, _ in rules:
        with leading("rules"):
            check_matches(pattern, [path for path, _ in leaves])
    found = [_spec(path, leaf, mesh, rules) for path, leaf in leaves]
    return jax.tree.unflatten(jax.tree.structure(params), found)


def _spec(path, leaf, mesh, rules):
    for pattern, partition in rules:
        if selector("pattern", pattern)(path):
            if isinstance(partition, FSDP):
                partition = _fully_sharded(path, leaf, mesh, partition)
            _check_divides(path, leaf.shape, mesh, partition)
            return _shortest(partition)
    what, fix = f"{path or 'the parameter'}, {describe(leaf)}", 'end the rules with (".*", replicate())'
    raise ConfigError(f"rules: expected a rule for {what}, got none that matches; {fix}.")


def _fully_sharded(path, leaf, mesh, partition):
    """The spec of a leaf with `partition.axis` along its largest dimension that divides evenly, unsplit if possible."""
    axis = partition.axis
    size = axis_size("fsdp", mesh, axis)
    taken = [_axes(entry) for entry in (*partition.spec, *[None] * (leaf.ndim - len(partition.spec)))]
    if leaf.ndim == 0 or leaf.size * leaf.dtype.itemsize < partition.min_bytes:
        return partition.spec
    parts = [size * math.prod(axis_size("fsdp", mesh, name) for name in names) for names in taken]
    divide = [d for d in range(leaf.ndim) if leaf.shape[d] % parts[d] == 0]
    if not divide:
        wanted = f'a dimension that the {size} devices along "{axis}" divide'
        fix = f'give it a rule above, ("{path}", replicate()), or raise min_bytes'
        raise ConfigError(f"rules: expected {path} of shape {leaf.shape} to have {wanted}, got none; {fix}.")
    chosen = max(divide, key=lambda d: (not taken[d], leaf.shape[d]))
    taken[chosen] += (axis,)
    return PartitionSpec(*(names[0] if len(names) == 1 else names or None for names in taken))


def _axes(entry):
    """The entry of a spec for one dimension, which is `None`, an axis or several, as a tuple of axes."""
    return () if entry is None else entry if isinstance(entry, tuple) else (entry,)


def _shortest(spec):
    """The spec as jax gives it back, without `None` at its end, so that both share compiled programs."""
    dimensions = list(spec)
    while dimensions and dimensions[-1] is None:
        dimensions.pop()
    return PartitionSpec(*dimensions)


def _check_divides(path, shape, mesh, spec):
    if len(spec) > len(shape):
        most = f"along its {len(shape)} dimensions at most"
        raise ConfigError(f"rules: expected {path} of shape {shape} to be split {most}, got {spell_spec(spec)}.")
    for dimension, axes in enumerate(spec):
        names = _axes(axes)
        parts = math.prod(axis_size(f"rules: {path}", mesh, axis) for axis in names)
        along, fix = f'the devices along "{" and ".join(names)}"', f'give it a rule above, ("{path}", replicate())'
        with leading("rules"):
            check_multiple(
                f"dimension {dimension} of {path}, {shape},", shape[dimension], parts, along, fix, ConfigError
            )


def spell_spec(spec: PartitionSpec) -> str:
    """`P(None, 'data')`, the same in all versions of jax."""
    return f"P({', '.join(map(repr, spec))})"
