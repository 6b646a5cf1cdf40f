"""A layout: where the arrays of a run lie on a mesh, and how its gradients are computed there."""

from functools import lru_cache, partial

import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from funcnet.checks import check_kind
from funcnet.errors import ConfigError
from funcnet.made import leading
from funcnet.parallel import placement
from funcnet.parallel.flat import summed
from funcnet.parallel.means import mean_over_rows
from funcnet.parallel.mesh import axis_size
from funcnet.parallel.rules import Rules, check_rules, replicate, specs
from funcnet.types import Layout

__all__ = ["layout"]


def layout(mesh: Mesh, rules: Rules | None = None, *, data: str = "data", flat: bool | None = None) -> Layout:
    """How a training run lies on a mesh: its batches are divided by rows, and its parameters are placed by the rules.

    With every layout, the numbers are those of one device, up to rounding. There are two ways to compute them:

    - *automatic*: the compiler gets the program of one device and the places of batch, parameters and gradients, and
      splits the program. Batch norm sees the whole batch, and dropout draws for all its rows.
    - *flat*: every device computes the gradient of its rows, and one sum of one buffer makes the whole. On CPUs this is
      faster for small models. The parameters must be whole on every device, and the gradient must be the mean of the
      gradients of its rows: no state, no randomness, a loss that is a mean.

    Args:
        mesh: of `parallel.mesh`.
        rules: where the parameters lie; by default `[(".*", replicate())]`.
        data: the axis of the mesh over which the rows of a batch are divided.
        flat: which way. By default it is flat on CPUs where that is correct, which `parallel.mean_over_rows` tests.
            Compilers for other devices make one sum of all gradients by themselves. `True` is always flat, without the
            test. `False` is always automatic.

    Raises:
        ConfigError: the mesh has no such axis, or a rule is not a rule. When parameters are placed: the rules do not
            fit them, or the rules split them and `flat=True`.
        ShapeError: the rows of a batch cannot be divided evenly.

    References: the flat buffer is that of Sergeev, Del Balso, "Horovod: fast and easy distributed deep learning in
    TensorFlow", 2018, section 4 (tensor fusion).

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model, optimizer = fn.layers.dense(1), fn.optimizers.sgd(0.1)
    >>> layout = fn.parallel.layout(fn.parallel.mesh())
    >>> gradient = layout.gradient(fn.gradients.backprop(model, fn.losses.mean_squared_error))
    >>> step = fn.parallel.compile_step(fn.training.train_step(gradient, optimizer), layout)
    >>> x = jnp.ones((8, 3))
    >>> state = layout.init_state(lambda key: fn.training.create_state(model, optimizer, key, x), jax.random.key(0))
    >>> state, metrics = step(state, (x, jnp.ones((8, 1))))
    >>> int(state.optimizer.step)
    1
    """
    with leading("layout"):
        check_kind("mesh", mesh, Mesh, "one of parallel.mesh(…)")
        check_kind("flat", flat, bool | None, "True, False or None")
    axis_size("layout", mesh, data)
    return _layout(mesh, check_rules([(".*", replicate())] if rules is None else rules), data, flat)


def _without(axis, entry):
    """An entry of a partition without one axis of the mesh."""
    axes = tuple(name for name in (entry if isinstance(entry, tuple) else (entry,)) if name not in (axis, None))
    return axes or None


@lru_cache(maxsize=64)  # equal layouts are one object, so that they share compiled programs
def _layout(mesh, rules, data, flat):
    platform = mesh.devices.flat[0].platform
    place_data = partial(placement.place_whole, mesh=mesh)
    place_batch = partial(placement.place_rows, "layout", mesh=mesh, data=data)

    @lru_cache(maxsize=64)  # a user's own loop asks at every step
    def shardings(structure, leaves):
        shapes = [jax.ShapeDtypeStruct(*leaf) for leaf in leaves]
        return placement.shardings(jax.tree.unflatten(structure, shapes), mesh, rules)

    def place_state(state):
        leaves, structure = jax.tree.flatten(state)
        return placement.place(state, shardings(structure, tuple((leaf.shape, leaf.dtype) for leaf in leaves)))

    def gathered(params):
        """The parameters as they are used: whole along the axis of the rows.

        Without this, the compiler may split what lies between the layers in the way that the parameters are split, by
        features and not by rows. For a GPT on 256 chips that takes 221 GiB.
        """

        def used(leaf, spec):
            entries = [_without(data, entry) for entry in spec]
            return jax.lax.with_sharding_constraint(leaf, NamedSharding(mesh, PartitionSpec(*entries)))

        return jax.tree.map(used, params, specs(params, mesh, rules))

    def automatic(one, params, state, batch, key):
        computed = one(gathered(params), state, batch, key)
        loss, new_state = place_data((computed.loss, computed.state))
        return computed._replace(loss=loss, grads=place_state(computed.grads), state=new_state)

    def is_flat(one, params, state, batch, key):
        whole = not any(map(any, jax.tree.leaves(specs(params, mesh, rules))))
        if flat and not whole:
            raise ConfigError("layout(flat=True): expected rules that split no parameter; leave flat out.")
        if flat is None:
            return whole and platform == "cpu" and mean_over_rows(one, params, state, batch, key)
        return whole and flat

    def gradient(one):
        def over_mesh(params, state, batch, key=None, /):
            batch = place_batch(batch)
            if is_flat(one, params, state, batch, key):
                return summed(one, mesh, data)(params, state, batch, key)
            return automatic(one, params, state, batch, key)

        return one if mesh.size == 1 else over_mesh

    def init_state(init, key):
        return placement.init_state(init, key, mesh, rules)

    def check_rows(call, what, count):
        placement.check_rows(call, what, count, mesh.shape[data], data)

    return Layout(init_state, place_state, place_data, place_batch, gradient, check_rows, platform)
