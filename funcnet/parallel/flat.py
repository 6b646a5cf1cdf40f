"""Data parallel through one buffer. Every device computes the gradient of its rows, and one sum makes the whole."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from funcnet.gradients.accumulation import parts_of
from funcnet.trees import apart, together
from funcnet.types import Batch, Gradient, GradientFn

__all__ = ["summed"]


def summed(gradient: GradientFn, mesh: Mesh, data: str) -> GradientFn:
    """The gradient of a global batch from those of its parts, for parameters that are whole on every device.

    Device d has the values v_n of its own rows n, and c_n says how much each of them counts. With C = Σ c_n over the
    whole batch
        loss = Σ_d (Σ_{n on d} c_n v_n / C),   ∂loss/∂θ = Σ_d ∂(Σ_{n on d} c_n v_n / C)/∂θ,
    for each term of a weighted sum with a C of its own. A penalty is added once. An engine that does not say what
    counts gives means. They are weighted by the rows that count on each device. Everything to be summed is in one
    buffer, so there is one sum over the devices and not one for each parameter.
    """
    whole: Any = PartitionSpec()
    rows = PartitionSpec(data)
    parts = parts_of(gradient)

    def of_rows(params, state, batch, key, totals):
        if parts is None:
            return _weighed(gradient(params, state, batch, key), batch, data)
        computed = parts.share(totals)(params, state, batch, key)
        loss, grads = _sum((computed.loss, computed.grads), data)
        return parts.penalized(computed._replace(loss=loss, grads=grads, counted=totals), params)

    def local(params, state, batch, shared, key, totals):
        computed = of_rows(params, state, together(batch, shared), key, totals)
        return computed._replace(prediction=apart(computed.prediction))

    # Without the check of varying types, autodiff takes the parameters for the device's own, as backprop does. With it,
    # autodiff's gradients would be summed already.
    sharded = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(whole, whole, rows, whole, whole, whole),
        out_specs=Gradient(whole, whole, whole, (rows, whole), whole),
        check_vma=False,
    )

    def over_mesh(params, state, batch, key=None, /):
        totals = None if parts is None else parts.totals(params, state, batch, key)
        computed = sharded(params, state, *apart(batch), key, totals)
        return computed._replace(prediction=together(*computed.prediction))

    return over_mesh


def _weighed(computed: Gradient, batch: Batch, axis: str) -> Gradient:
    """The mean of gradients that are means themselves, weighted by the rows that count on each device."""
    where = batch[2] if len(batch) > 2 else None
    marked = jnp.ones(()) if where is None else where.sum().astype(jnp.result_type(float))
    total = jax.lax.psum(marked, axis)
    share = jnp.where(total == 0, 1 / jax.lax.axis_size(axis), marked / jnp.maximum(total, 1))
    scaled = jax.tree.map(lambda leaf: leaf * share.astype(leaf.dtype), (computed.loss, computed.grads))
    loss, grads = _sum(scaled, axis)
    return computed._replace(loss=loss, grads=grads, counted=None)


def _sum(tree: Any, axis: str) -> Any:
    """The sum over the devices, in one buffer for each dtype. Usually there is only one dtype."""
    leaves, structure = jax.tree.flatten(tree)
    found = list(leaves)
    for dtype in dict.fromkeys(leaf.dtype for leaf in leaves):
        members = [i for i, leaf in enumerate(leaves) if leaf.dtype == dtype]
        buffer = jnp.concatenate([leaves[i].ravel() for i in members])
        buffer = jax.lax.psum(buffer, axis)
        start = 0
        for i in members:
            found[i] = buffer[start : start + leaves[i].size].reshape(leaves[i].shape)
            start += leaves[i].size
    return jax.tree.unflatten(structure, found)
