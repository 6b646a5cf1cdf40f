"""Data parallel through one buffer: every device computes the gradient of its rows, and one sum makes the whole."""

from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, PartitionSpec

from funcnet.types import Array, Batch, Gradient, GradientFn

__all__ = ["summed"]


def summed(gradient: GradientFn, mesh: Mesh, data: str) -> GradientFn:
    """The gradient of a global batch from those of its parts, for parameters that are whole on every device.

    With the part s_d of the rows that device d has (of the marked ones, if the batch has a mask), Σ s_d = 1,
        loss = Σ s_d loss_d,   ∂loss/∂θ = Σ s_d ∂loss_d/∂θ,
    for a loss that is a mean over rows. A penalty is in every loss_d alike and so counts once. The products lie in one
    buffer, so there is one sum over the devices and not one for each parameter.
    """
    whole, rows = PartitionSpec(), PartitionSpec(data)
    parts = mesh.shape[data]

    def local(params, state, batch, key, share):
        computed = gradient(params, state, batch, key)
        loss, grads = _weighted_sum((computed.loss, computed.grads), share.reshape(()), data)
        return loss, grads, computed.state, computed.prediction

    # Without the check of varying types autodiff takes the parameters for the device's own, as backprop does; with it,
    # autodiff's gradients would come summed already.
    sharded = jax.shard_map(
        local,
        mesh=mesh,
        in_specs=(whole, whole, rows, whole, rows),
        out_specs=(whole, whole, whole, rows),
        check_vma=False,
    )

    def over_mesh(params, state, batch, key=None, /):
        return Gradient(*sharded(params, state, batch, key, _shares(batch, parts)))

    return over_mesh


def _shares(batch: Batch, parts: int) -> Array:
    """(parts,), the part of what counts that each device has."""
    alike = jnp.full(parts, 1 / parts)
    if len(batch) < 3:
        return alike
    marked = batch[2].reshape(parts, -1).sum(1).astype(alike.dtype)
    total = marked.sum()
    return jnp.where(total == 0, alike, marked / jnp.maximum(total, 1))


def _weighted_sum(tree: Any, share: Array, axis: str) -> Any:
    """Σ share · leaf over the devices, as one buffer for each dtype, of which there is one as a rule."""
    leaves, structure = jax.tree.flatten(tree)
    found = list(leaves)
    for dtype in dict.fromkeys(leaf.dtype for leaf in leaves):
        members = [i for i, leaf in enumerate(leaves) if leaf.dtype == dtype]
        buffer = jnp.concatenate([leaves[i].ravel() for i in members]) * share.astype(dtype)
        buffer = jax.lax.psum(buffer, axis)
        start = 0
        for i in members:
            found[i] = buffer[start : start + leaves[i].size].reshape(leaves[i].shape)
            start += leaves[i].size
    return jax.tree.unflatten(structure, found)
