"""Hand-derived backwards under JAX's transformations: differentiated again, scanned, rematerialised, sharded."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec
from layer_cases import SMOOTH, draw
from numerics import quick_jit, worst_leaf

from funcnet import gradients
from funcnet.checking.subjects import joined, parted

# For the straight-through forms there is no second order: their backward is the derivative of no function.
every_case = pytest.mark.parametrize("case", SMOOTH.values(), ids=SMOOTH.keys())


def normal_like(tree, seed):
    leaves, structure = jax.tree.flatten(tree)
    keys = jax.random.split(jax.random.key(seed), len(leaves))
    return structure.unflatten([jax.random.normal(k, a.shape, a.dtype) for k, a in zip(keys, leaves, strict=True)])


@every_case
def test_second_order_equals_that_of_autodiff(x64, case):
    """H v for L = ⟨y, dy⟩ and a random v, within a scan: forward and reverse over the hand-derived backward, which are
    equal as H is symmetric, the latter rematerialised."""
    params, state, x, key = draw(case)
    layer = case.layer
    x, rest = parted(x)

    def output(point):
        return parted(layer.apply(point[0], state, joined(rest, point[1]), key=key, train=True)[0])[0]

    dy = normal_like(jax.eval_shape(output, (params, x)), 1)

    def by_hand(point):
        _, _, residuals = layer.forward(point[0], state, joined(rest, point[1]), key=key, train=True)
        return layer.backward(point[0], residuals, dy)

    @jax.grad
    def by_autodiff(point):
        return sum(map(jnp.vdot, jax.tree.leaves(output(point)), jax.tree.leaves(dy)))

    @quick_jit
    def products(point, vs):
        def step(carry, v):
            forward = jax.jvp(by_hand, (point,), (v,))[1]
            (reverse,) = jax.vjp(jax.checkpoint(by_hand), point)[1](v)
            return carry, (forward, reverse, jax.jvp(by_autodiff, (point,), (v,))[1])

        return jax.lax.scan(step, 0, vs)[1]

    v = normal_like((params, x), 2)
    vs = jax.tree.map(lambda leaf: jnp.stack([leaf, -2 * leaf]), v)
    forward, reverse, wanted = products((params, x), vs)
    assert worst_leaf(forward, wanted) <= 1e-11
    assert worst_leaf(reverse, wanted) <= 1e-11


SHARDED = [
    "dense", "dense_time_axis", "prelu", "softmax", "serial_nested", "residual_shortcut", "parallel_concatenate",
    "repeat", "recompute", "layer", "automatic", "container", "held",
]  # fmt: skip


def data_parallel(case):
    """How far dparams, summed over two devices with half a batch each, and dx are from those of the whole batch."""
    params, state, x, _ = draw(case, batch=4)
    wrapped = gradients.as_custom_vjp(case.layer)
    dy = normal_like(jax.eval_shape(lambda x: case.layer.apply(params, state, x)[0], x), 1)

    def whole(params, x, dy):
        _, _, residuals = case.layer.forward(params, state, x)
        return case.layer.backward(params, residuals, dy)

    def shard(params, x, dy):
        # Each device has params of its own from here on: autodiff within a layer would sum over the devices itself.
        params = jax.lax.pcast(params, "data", to="varying")
        dparams, dx = whole(params, x, dy)
        dparams_too, dx_too = jax.vjp(lambda params, x: wrapped.apply(params, state, x)[0], params, x)[1](dy)
        return jax.lax.psum((dparams, dparams_too), "data"), (dx, dx_too)

    rows, everywhere = PartitionSpec("data"), PartitionSpec()
    mesh = jax.sharding.Mesh(jax.devices(), ("data",))
    sharded = jax.shard_map(shard, mesh=mesh, in_specs=(everywhere, rows, rows), out_specs=(everywhere, rows))
    run = quick_jit(lambda *args: (sharded(*args), whole(*args)))
    computed, (dparams, dx) = run(params, x, dy)
    return worst_leaf(computed, ((dparams, dparams), (dx, dx)))


def test_shard_map_sums_to_the_whole_batch():
    """In a process of its own, because the number of devices is fixed once JAX has started."""
    program = f"""if True:
        import json, jax, sys
        sys.path.insert(0, {str(Path(__file__).parent)!r})
        jax.config.update("jax_numpy_dtype_promotion", "strict")
        import test_modes
        assert jax.device_count() == 2
        print(json.dumps({{name: test_modes.data_parallel(test_modes.SMOOTH[name]) for name in {SHARDED}}}))
    """
    devices = "--xla_force_host_platform_device_count=2"
    settings = {"JAX_ENABLE_X64": "1", "JAX_PLATFORMS": "cpu", "XLA_FLAGS": devices}
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, env=os.environ | settings)
    assert done.returncode == 0, done.stderr
    worst = json.loads(done.stdout)
    assert list(worst) == SHARDED
    assert max(worst.values()) <= 1e-14, worst
