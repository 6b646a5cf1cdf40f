"""Every layer and loss in half precision, over all magnitudes, against float64: the value and both engines' gradient.

The inputs are rounded to the dtype first, so that both computations begin with the same numbers. All numbers of an
input have about one magnitude. An error is counted in units in the last place (ulps) of the largest number of its
array, or of dy if that is larger: a derivative that is read from a rounded y is as exact as y. For layers made of
layers it is dy times x, as what one of them gets may be such a product.
"""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import CASES, draw, drawn_like
from numerics import quick_jit
from test_layer_laws import random_dy

from funcnet import layers
from funcnet.catalogue import LOSSES, PENALTIES
from funcnet.checking.subjects import joined, parted
from funcnet.gradients.cotangents import as_cotangent, as_gradient
from funcnet.trees import map_leaves
from funcnet.types import Padded

DTYPES = (jnp.float16, jnp.bfloat16)
MAGNITUDES = (1e-4, 1e-2, 1.0, 10.0, 100.0, 1e3, 1e4, 6e4, 1e9, 1e18, 3e38)

#: The most ulps of y, of the hand-derived gradient and of autodiff's.
ULPS = {
    "upsample_bilinear": (1.5, 1, 2),  # rounded after the first axis
    "layer": (1, 1, 5),  # a user's sum in the dtype itself
}
OF_A_LAYER = (1, 1, 2)
#: Of a layer made of layers, which are rounded in between: a flat activation makes much of a rounding before it.
OF_A_COMPOSITION = (2.5, 256, 256)

#: The layers that square numbers, or add up products of them. Beyond this magnitude their squares and sums are infinite
#: in float32, though the exact result may be finite. The same holds for what lies between the layers of a composition,
#: and in a user's own layer, in the dtype itself.
LIMITED = {
    "attention", "attention_causal", "attention_cross", "attention_grouped", "attention_padded", "avg_pool",
    "avg_pool_no_pad", "batch_norm", "batch_norm_features", "conv", "conv_1d_wide", "conv_3d", "conv_causal",
    "conv_strided", "conv_transpose", "conv_transpose_cut", "dense", "dense_no_bias", "dense_time_axis",
    "depthwise_conv", "depthwise_conv_twice", "global_avg_pool", "group_norm", "instance_norm",
    "instance_norm_no_scale", "layer_norm", "linear", "local_response_norm", "perceptron", "rms_norm",
    "softmax_regression", "unembedding",
}  # fmt: skip
RECURRENT = re.compile("(rnn|lstm|gru|scan)(_.*)?")  # of many steps, whose numbers are rounded in between
OWN = {"automatic_function", "elementwise", "elementwise_keep_x", "layer", "parameterless"}


def ulps(got, want, dtype, scale=0.0):
    """The largest error, in ulps of the largest number, of `scale` or of the least normal number."""
    got, want = np.asarray(got, np.float64), np.asarray(want, np.float64)
    most, least = float(jnp.finfo(dtype).max), float(jnp.finfo(dtype).tiny)
    finite = np.abs(want) < most * (1 - float(jnp.finfo(dtype).eps))
    if not np.array_equal(np.sign(got[~finite]), np.sign(want[~finite])) or np.any(np.abs(got[~finite]) < 0.98 * most):
        return np.inf
    size = np.clip(np.max(np.abs(want), where=finite, initial=scale), least, most)
    errors = np.abs(got[finite] - want[finite]) / (float(jnp.finfo(dtype).eps) * 2 ** np.floor(np.log2(size)))
    return float(np.max(errors, initial=0)) if np.all(np.isfinite(errors)) else np.inf


def worst(got, want, dtype, scale=0.0):
    """The most ulps of two trees."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    pairs = zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True)
    return max((ulps(*pair, dtype, scale) for pair in pairs if jnp.issubdtype(pair[0].dtype, jnp.floating)), default=0)


def is_composed(name, layer):
    """Whether its numbers are rounded in between, as those of attention are: queries, keys, values and their means."""
    attends = layer.made.constructor is layers.attention
    return layer.inside is not None or attends or RECURRENT.fullmatch(name) is not None


def magnitudes(name, dtype, layer):
    limit = 1e18 if name in LIMITED else np.inf
    if name in OWN or is_composed(name, layer):
        limit = 1e4 if dtype == jnp.float16 else 1e18
    if layer.made.constructor is layers.attention:
        limit = 10.0  # beyond it the rounding of queries and keys decides which key wins
    return [size for size in MAGNITUDES if size <= min(float(jnp.finfo(dtype).max), limit)]


def wide(tree):
    floating = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)  # noqa: E731
    return jax.tree.map(lambda leaf: leaf.astype(jnp.float64) if floating(leaf) else leaf, tree)


def of_magnitude(random, leaf, size):
    """Numbers between 0.1 and 1 times the size, of both signs, for a floating shape."""
    if isinstance(leaf, Padded):
        return Padded(of_magnitude(random, leaf.values, size), drawn_like(random, leaf).where)
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
        return drawn_like(random, leaf)
    return jnp.asarray(random.choice((-size, size), leaf.shape) * random.uniform(0.1, 1, leaf.shape), leaf.dtype)


@pytest.mark.parametrize("name", [name for name in CASES if name != "automatic"])  # a sine of a rounded product
def test_layers(name, x64):
    case, random = CASES[name], np.random.default_rng(0)
    layer = case.layer
    bounds = ULPS.get(name, OF_A_COMPOSITION if is_composed(name, layer) else OF_A_LAYER)

    @quick_jit  # one program in float64 for both dtypes
    def passes(params, state, x, key, dy):
        y, _, residuals = layer.forward(params, state, x, key=key, train=True)
        floating, rest = parted(x)
        given, vjp = jax.vjp(
            lambda params, x: layer.apply(params, state, joined(rest, x), key=key, train=True)[0], params, floating
        )
        return y, layer.backward(params, residuals, dy), as_gradient(vjp(as_cotangent(given, dy)))

    for dtype in DTYPES:
        params, state, x, key = draw(case, dtype=dtype)
        dy = random_dy(layer, params, state, x, key, True)
        scale = max((float(jnp.max(jnp.abs(leaf))) for leaf in jax.tree.leaves(dy)), default=0)
        for size in magnitudes(name, dtype, layer):
            x = map_leaves(lambda leaf, size=size: of_magnitude(random, leaf, size), x)
            half, full = passes(params, state, x, key, dy), passes(*map(wide, (params, state, x, key, dy)))
            most = scale * max(1, size) if is_composed(name, layer) else scale
            for got, want, least, bound in zip(half, full, (0, most, most), bounds, strict=True):
                assert worst(got, want, dtype, least) <= bound, (dtype, size)


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_losses(name, dtype, x64):
    """One rounding at the end, up to squares that are infinite in float32. Probabilities are not near 0 and 1, where
    the clamp depends on the dtype."""
    case, random = LOSSES[name], np.random.default_rng(0)
    target = case.target.astype(dtype) if case.target.dtype == np.float64 else case.target
    reduction = "none" if case.loss.counted else "mean"

    def passes(p, target):
        options = case.options | {"reduction": reduction}
        auto = jax.grad(lambda p: case.loss(p, target, **options).sum())(p)
        return case.loss(p, target, **options), case.loss.gradient(p, target, **options), auto

    program = quick_jit(passes)
    sizes = [size for size in MAGNITUDES if size <= min(float(jnp.finfo(dtype).max), 1e18)]
    probabilities = case.loss.takes in ("probabilities", "class probabilities")
    for size in [0.1, 0.9] if probabilities else sizes:
        p = of_magnitude(random, jax.ShapeDtypeStruct(case.prediction.shape, dtype), size)
        p = abs(p) if probabilities else p
        for got, want in zip(program(p, target), program(wide(p), wide(jnp.asarray(target))), strict=True):
            assert worst(got, want, dtype) <= 0.51, size


@pytest.mark.parametrize("name", PENALTIES)
@pytest.mark.parametrize("dtype", DTYPES)
def test_penalties(name, dtype, x64):
    penalty, params = PENALTIES[name].target, PENALTIES[name].x
    program, random = quick_jit(lambda params: (penalty(params), penalty.gradient(params))), np.random.default_rng(0)
    for size in [size for size in MAGNITUDES if size <= float(jnp.finfo(dtype).max)]:
        drawn = jax.tree.map(
            lambda leaf, size=size: of_magnitude(random, jax.ShapeDtypeStruct(leaf.shape, dtype), size), params
        )
        for got, want in zip(program(drawn), program(wide(drawn)), strict=True):
            assert worst(got, want, dtype) <= 0.51, size
