"""Gated linear units, causal convolution and transformer blocks: values, cells, what is padded or comes later."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import quick_jit, worst_leaf

from funcnet import gradients, layers, losses
from funcnet.errors import ConfigError, ShapeError
from funcnet.layers import attention, conv, dense, depthwise_conv, gelu, glu, serial, silu, transformer_block
from funcnet.types import Padded

KEY = jax.random.key(0)
THERE = np.arange(6) < np.array([6, 3, 1, 0])[:, None]


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def drawn(layer, x):
    params, state = jax.eval_shape(lambda: layer.init(KEY, x))
    random = np.random.default_rng(5)
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape) / 2, leaf.dtype), (params, state))


# Gates


def test_a_gated_linear_unit_by_numpy(x64):
    a, b = numbers(3, 4), numbers(3, 4, seed=1)
    x = np.concatenate([a, b], 1)
    np.testing.assert_allclose(glu().apply((), (), x)[0], a / (1 + np.exp(-b)), rtol=1e-14)
    np.testing.assert_allclose(glu(silu()).apply((), (), x)[0], a * b / (1 + np.exp(-b)), rtol=1e-14)


def test_a_gate_works_on_padded_sequences_one_position_at_a_time(x64):
    layer, x = serial(dense(6), glu(gelu())), jnp.asarray(numbers(4, 6, 3))
    params, state = drawn(layer, x)
    y, _ = layer.apply(params, state, x)
    np.testing.assert_array_equal(layer.apply(params, state, Padded(x, THERE))[0].values, y)
    cell = layer.rules.cell
    (_, y_t), _ = cell.apply(params, state, (cell.rules.start(params, state, x[:, 2], 6), x[:, 2]))
    np.testing.assert_allclose(y_t, y[:, 2], rtol=1e-14)


# Causal convolution


@pytest.mark.parametrize("dilation", [1, 3])
def test_a_causal_convolution_by_numpy(x64, dilation):
    layer, x = conv(2, (3,), padding="CAUSAL", dilation=dilation), numbers(2, 7, 4)
    params, _ = drawn(layer, jnp.asarray(x))
    want = np.zeros((2, 7, 2)) + np.asarray(params["bias"])
    for t in range(7):
        for k in range(3):
            if (at := t - dilation * (2 - k)) >= 0:
                want[:, t] += x[:, at] @ params["kernel"][k]
    np.testing.assert_allclose(layer.apply(params, (), x)[0], want, rtol=1e-13, atol=1e-14)


STEPPED = {
    "conv": conv(3, (3,), padding="CAUSAL", dilation=2),
    "conv of one": conv(3, (1,), padding="CAUSAL"),
    "depthwise": depthwise_conv((2,), padding="CAUSAL", multiplier=2),
    "between": serial(
        dense(4), conv(4, (2,), padding="CAUSAL", groups=2), layers.residual(conv(4, (2,), padding="CAUSAL"))
    ),
}


@pytest.mark.parametrize("layer", STEPPED.values(), ids=STEPPED.keys())
def test_a_causal_convolution_one_position_at_a_time(x64, layer):
    """Value and gradient, by the cell's own backward."""
    x = jnp.asarray(numbers(2, 5, 4))
    params, state = drawn(layer, x)
    cell = layer.rules.cell
    start = cell.rules.start(params, state, x[:, 0], 5)
    shapes = jax.tree.map(jnp.shape, cell.init(KEY, (start, x[:, 0]))[0])
    assert shapes == jax.tree.map(jnp.shape, params)
    y, _, residuals = quick_jit(layer.forward)(params, state, x)
    dy = jnp.cos(y)

    @quick_jit
    def stepped(params, x, dy):
        carry, kept = start, []
        for t in range(5):
            (carry, y_t), _, own = cell.forward(params, state, (carry, x[:, t]))
            kept.append((own, y_t))
        total, dxs, dcarry = None, [], jax.tree.map(jnp.zeros_like, carry)
        for t in reversed(range(5)):
            own, (dcarry, dx) = cell.backward(params, kept[t][0], (dcarry, dy[:, t]))
            total = own if total is None else jax.tree.map(jnp.add, total, own)
            dxs.insert(0, dx)
        return jnp.stack([y_t for _, y_t in kept], 1), (total, jnp.stack(dxs, 1))

    assert worst_leaf(stepped(params, x, dy), (y, quick_jit(layer.backward)(params, residuals, dy))) <= 1e-13


def test_only_a_causal_convolution_with_a_place_for_each_position_has_a_cell():
    assert conv(3, (3,)).rules.cell is None
    assert conv(3, (3,), padding="CAUSAL", strides=2).rules.cell is None
    assert conv(3, (3,), padding=((2, 0),)) != conv(3, (3,), padding="CAUSAL")


# Transformer blocks


BLOCKS = {
    "pre": transformer_block(4, 2, causal=True),
    "post": transformer_block(4, 2, causal=True, pre_norm=False, kv_heads=1, window=3),
    "llama": transformer_block(
        4, 2, hidden=5, causal=True, rotary=50.0, use_bias=False, activation=glu(silu()), norm=layers.rms_norm()
    ),
}  # fmt: skip


@pytest.mark.parametrize("block", BLOCKS.values(), ids=BLOCKS.keys())
def test_a_block_looks_back_and_goes_one_position_at_a_time(x64, block):
    x = jnp.asarray(numbers(2, 6, 4))
    params, state = drawn(block, x)
    run = quick_jit(lambda x: block.apply(params, state, x)[0])
    y = run(x)
    later = run(x.at[:, 4:].set(7.0))
    np.testing.assert_array_equal(later[:, :4], y[:, :4])
    assert np.abs(later[:, 4:] - y[:, 4:]).min() > 0
    cell = block.rules.cell
    start = cell.rules.start(params, state, x[:, 0], 6)

    @quick_jit
    def stepped(x):
        def step(carry, x_t):
            (carry, y_t), _ = cell.apply(params, state, (carry, x_t))
            return carry, y_t

        return jnp.swapaxes(jax.lax.scan(step, start, jnp.swapaxes(x, 0, 1))[1], 0, 1)

    assert worst_leaf(stepped(x), y) <= 1e-12


@pytest.mark.parametrize("block", [BLOCKS["pre"], BLOCKS["post"]], ids=["pre", "post"])
def test_what_is_padded_changes_nothing(x64, block):
    """In the loss and in both engines' gradients, for lengths of 6, 3, 1 and 0."""
    x = numbers(4, 6, 4)
    params, state = drawn(block, jnp.asarray(x))
    target = numbers(4, 6, 4, seed=1)

    @quick_jit
    def run(x):
        return [
            engine(block, losses.mean_squared_error)(params, state, (Padded(x, THERE), target))[:2]
            for engine in (gradients.autodiff, gradients.backprop)
        ]

    by_autodiff, by_hand = run(x)
    assert worst_leaf(by_hand, by_autodiff) <= 1e-13
    rubbish = np.where(THERE[..., None], x, 9 * numbers(4, 6, 4, seed=2))
    assert worst_leaf(run(rubbish), [by_autodiff, by_hand]) == 0


def test_the_layers_of_a_block():
    assert str(transformer_block(8, 2, dropout=0.1)) == (
        "serial(residual(serial(layer_norm(), attention(2, dropout=0.1), dropout(0.1))), residual(serial(layer_norm(), "
        "dense(32), gelu(), dropout(0.1), dense(8), dropout(0.1))))"
    )
    widths = [layer.made.arguments["features"] for _, layer in layers.plain_layers(BLOCKS["llama"])
              if layer.made.constructor is dense]  # fmt: skip
    assert widths == [10, 4]


@pytest.mark.parametrize(
    "code, error, message",
    [
        (lambda: transformer_block(0, 2), ConfigError, "transformer_block(0, 2): expected features to be a positive"),
        (lambda: transformer_block(8, 2, dropout=2), ConfigError, "expected dropout to be a finite number in [0, 1)"),
        (lambda: transformer_block(8, 2, pre_norm=1), ConfigError, "expected pre_norm to be True or False, got 1"),
        (lambda: transformer_block(8, 2, norm=layers.layer_norm), ConfigError, "expected argument norm to be a Layer"),
        (lambda: transformer_block(8, 4, kv_heads=3), ConfigError, "expected heads to be a multiple of 3"),
        (lambda: transformer_block(8, 2).init(KEY, jnp.ones((2, 3, 6))), ShapeError,
         "serial[1] residual(serial(layer_norm(), dense(32), gelu(), dense(8))): expected outputs of one shape"),
        (lambda: glu().init(KEY, jnp.ones((2, 3))), ShapeError,
         "glu(): expected the width of x to be a multiple of 2, as it is cut in two, got 3; give it twice the width"),
        (lambda: glu(dense(3)).init(KEY, jnp.ones((2, 4))), ShapeError,
         "expected gates of shape (2, 2) float32, got (2, 3) float32; take a gate that"),
        (lambda: conv(3, 3, padding="CAUSAL"), ConfigError,
         'expected a window of one axis for padding="CAUSAL", got (3, 3); write for example conv(16, (3,), padding='),
        (lambda: layers.max_pool((3,), padding="CAUSAL"), ConfigError, 'expected padding to be "SAME", "VALID", an'),
    ],
)  # fmt: skip
def test_misuse_is_named(code, error, message):
    with pytest.raises(error, match=re.escape(message)):
        code()


def test_dropout_is_drawn_for_each_of_its_places():
    """Other keys, other outputs; without a key the first place is named."""
    block, x = transformer_block(4, 2, dropout=0.5), numbers(2, 3, 4)
    params, state = block.init(KEY, x)
    ys = [block.apply(params, state, x, key=jax.random.key(i), train=True)[0] for i in (0, 0, 1)]
    np.testing.assert_array_equal(ys[0], ys[1])
    assert np.any(ys[0] != ys[2])
    assert attention(2, dropout=0.5) in [layer for _, layer in layers.plain_layers(block)]
