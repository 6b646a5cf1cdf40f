"""Pooling against plain loops: windows, strides and paddings at random, ties, NaN, and what is refused."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from funcnet import layers
from funcnet.errors import ConfigError, DtypeError, ShapeError
from funcnet.layers.convolution import pooling


def with_gradients(layer, x, dy):
    """y of `apply`, and dx by hand and by autodiff."""
    _, _, residuals = layer.forward((), (), x)
    _, vjp = jax.vjp(lambda x: layer.apply((), (), x)[0], x)
    return layer.apply((), (), x)[0], layer.backward((), residuals, dy)[1], vjp(dy)[0]


def looped(kind, x, dy, window, strides, padding, counted):
    """y and dx, window by window."""
    pairs = jax.lax.padtype_to_pads(x.shape[1:-1], window, strides, padding) if isinstance(padding, str) else padding
    border = [(0, 0), *pairs, (0, 0)]
    padded = np.pad(x, border, constant_values=-np.inf if kind == "max" else 0)
    real = np.pad(np.ones(x.shape), border)
    size = padded.shape[1:-1]
    places = [(n - k) // s + 1 for n, k, s in zip(size, window, strides, strict=True)]
    y, dx = np.zeros((len(x), *places, x.shape[-1])), np.zeros(padded.shape)
    if dy is None:
        dy = np.arange(1.0, y.size + 1).reshape(y.shape)
    for at in np.ndindex(y.shape):
        example, *place, channel = at
        here = tuple(slice(p * s, p * s + k) for p, s, k in zip(place, strides, window, strict=True))
        here = (example, *here, channel)
        if kind == "max":
            first = np.unravel_index(np.argmax(padded[here]), window)
            y[at] = padded[here][first]
            dx[here][first] += dy[at]
        else:
            count = np.size(padded[here]) if counted else np.sum(real[here])
            y[at] = np.sum(padded[here]) / count
            dx[here] += dy[at] / count
    inside = tuple(slice(lo, lo + n) for (lo, _), n in zip(border, x.shape, strict=True))
    return y, dy, dx[inside]


def take_forms_of(platform, patch):
    """Let the pools take the forms for a platform. Those outside of `jit` are traced anew."""
    patch.setattr(pooling, "by_platform", lambda *args, default, **forms: forms.get(platform, default)(*args))
    for name in ("_applied", "_largest", "_sums", "_to_largest", "_to_all"):
        patch.setattr(pooling, name, getattr(pooling, name).__wrapped__)


@st.composite
def pools(draw):
    """`(size, window, strides, padding)` in one, two or three dimensions."""
    axes = draw(st.integers(1, 3))
    each = lambda least, most: st.tuples(*[st.integers(least, most)] * axes)  # noqa: E731
    window, strides = draw(each(1, 3)), draw(each(1, 4))
    size = tuple(k + more for k, more in zip(window, draw(each(0, 4)), strict=True))
    pairs = st.tuples(*[st.tuples(*[st.integers(0, k - 1)] * 2) for k in window])
    return size, window, strides, draw(st.one_of(st.just("SAME"), st.just("VALID"), pairs))


@settings(max_examples=12)
@given(pool=pools(), seed=st.integers(0, 2**16), counted=st.booleans())
@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("kind", ["max", "avg"])
def test_any_window_against_a_loop(kind, platform, pool, seed, counted):
    """Of the numbers 0, 1 and 2, so that most windows have ties."""
    size, window, strides, padding = pool
    x = np.random.default_rng(seed).integers(0, 3, (2, *size, 2)).astype(float)
    y, dy, dx = looped(kind, x, None, window, strides, padding, counted)
    options = {} if kind == "max" else {"count_include_pad": counted}
    layer = getattr(layers, f"{kind}_pool")(window, strides=strides, padding=padding, **options)
    with jax.enable_x64(True), pytest.MonkeyPatch.context() as patch:
        take_forms_of(platform, patch)
        got = jax.jit(lambda x, dy: (layer.forward((), (), x)[0], *with_gradients(layer, x, dy)))(x, dy)
    for one, want in zip(got, (y, y, dx, dx), strict=True):
        assert one.dtype == np.float64
        np.testing.assert_allclose(one, want, rtol=1e-14, atol=1e-14)


def test_pools_by_hand():
    x = np.arange(16.0, dtype=np.float32).reshape(1, 4, 4, 1)
    dy = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32).reshape(1, 2, 2, 1)
    y, dx, _ = with_gradients(layers.max_pool(2), x, dy)
    np.testing.assert_array_equal(y.reshape(2, 2), [[5, 7], [13, 15]])
    np.testing.assert_array_equal(dx.reshape(4, 4), [[0, 0, 0, 0], [0, 1, 0, 2], [0, 0, 0, 0], [0, 3, 0, 4]])
    y, dx, _ = with_gradients(layers.max_pool(3, strides=1), x, dy)
    np.testing.assert_array_equal(y.reshape(2, 2), [[10, 11], [14, 15]])
    np.testing.assert_array_equal(dx.reshape(4, 4)[2:, 2:], [[1, 2], [3, 4]])
    y, dx, _ = with_gradients(layers.avg_pool(2), x, 4 * dy)
    np.testing.assert_array_equal(y.reshape(2, 2), [[2.5, 4.5], [10.5, 12.5]])
    np.testing.assert_array_equal(dx.reshape(4, 4), np.kron([[1, 2], [3, 4]], np.ones((2, 2))))


@pytest.mark.parametrize("size", [(5,), (2, 3), (2, 1, 3)], ids=len)
def test_global_pools_against_numpy(size):
    x = np.random.default_rng(0).integers(0, 3, (2, *size, 4)).astype(np.float32)
    axes = tuple(range(1, len(size) + 1))
    dy = np.arange(8, dtype=np.float32).reshape(2, 4)
    y, by_hand, by_autodiff = with_gradients(layers.global_avg_pool(), x, dy)
    np.testing.assert_allclose(y, x.mean(axes), rtol=1e-6)
    np.testing.assert_allclose(by_hand, np.broadcast_to(np.expand_dims(dy, axes), x.shape) / np.prod(size), rtol=1e-6)
    np.testing.assert_allclose(by_hand, by_autodiff, rtol=1e-6)
    y, by_hand, by_autodiff = with_gradients(layers.global_max_pool(), x, dy)
    np.testing.assert_array_equal(y, x.max(axes))
    first = np.argmax(x.reshape(2, -1, 4), 1)[:, None] == np.arange(np.prod(size))[:, None]
    np.testing.assert_array_equal(by_hand, np.where(first, dy[:, None], 0).reshape(x.shape))
    np.testing.assert_array_equal(by_hand, by_autodiff)


@pytest.mark.parametrize(
    "layer", [layers.max_pool(2), layers.avg_pool(2), layers.global_avg_pool(), layers.global_max_pool()], ids=str
)
@pytest.mark.parametrize("platform", ["cpu", "tpu"])
@pytest.mark.parametrize("at", range(4))
def test_nan_in_a_window_is_nan_out(layer, at, platform, monkeypatch):
    take_forms_of(platform, monkeypatch)
    x = np.zeros((1, 4, 4, 1), np.float32)
    x[0, at // 2, at % 2] = np.nan
    y, _ = layer.apply((), (), x)
    assert np.isnan(np.ravel(y)).tolist() == [True] + [False] * (y.size - 1)


def test_beside_x_max_pool_keeps_one_byte_a_window():
    """And two for windows whose numbers do not fit into one."""
    x = jax.ShapeDtypeStruct((2, 12, 150, 3), jnp.float32)
    for window, dtype in [(2, jnp.int8), ((1, 128), jnp.int8), ((1, 129), jnp.int16)]:
        y, _, ((kept, index), _) = jax.eval_shape(layers.max_pool(window).forward, (), (), x)
        assert (index.shape, index.dtype, kept.shape) == (y.shape, dtype, x.shape)


@pytest.mark.parametrize("platform, reads", [("cpu", False), ("cuda", False), ("tpu", True)])
def test_which_programs_read_x_in_the_backward(platform, reads):
    """The others do not hold it between the passes."""
    layer, x = layers.max_pool(2), jax.ShapeDtypeStruct((8, 4, 4, 8), jnp.float32)
    y, _, ((x, index), checks) = jax.eval_shape(layer.forward, (), (), x)
    backward = jax.jit(lambda dy, x, index, checks: layer.backward((), ((x, index), checks), dy))
    text = backward.trace(y, x, index, checks).lower(lowering_platforms=(platform,)).as_text()
    main, *_ = text.split("func.func private")
    assert (main.count("%arg1") > 1) == reads


@pytest.mark.parametrize("layer", [layers.max_pool(2), layers.max_pool(3, strides=2, padding="SAME")], ids=str)
def test_only_without_a_derivative_apply_has_the_windowed_maximum(layer):
    """Under autodiff it has the slices, so that a tie goes to the first of the largest numbers."""
    x = jnp.ones((2, 4, 4, 3))
    applied = lambda x: layer.apply((), (), x)[0]  # noqa: E731
    programs = [
        jax.jit(applied),
        jax.jit(lambda x: layer.forward((), (), x)),
        jax.jit(jax.grad(lambda x: applied(x).sum())),
    ]
    texts = [program.trace(x).lower(lowering_platforms=("cpu",)).as_text() for program in programs]
    assert ["reduce_window" in text for text in texts] == [True, False, False]


def test_the_last_of_many_numbers():
    """Number 149 of a window, which is no int8."""
    layer = layers.max_pool((150,), strides=70)
    x = jnp.zeros((1, 150, 1)).at[0, -1].set(1)
    y, _, residuals = layer.forward((), (), x)
    np.testing.assert_array_equal(layer.backward((), residuals, y)[1], x)


def test_half_precision_is_summed_in_float32():
    """Added up in bfloat16, 400 ones stop at 256."""
    x = jnp.ones((1, 20, 20, 1), jnp.bfloat16)
    for layer in (layers.avg_pool(20), layers.global_avg_pool()):
        y, _ = layer.apply((), (), x)
        assert (float(y.ravel()[0]), y.dtype) == (1, jnp.bfloat16)


@pytest.mark.parametrize(
    "make, message",
    [
        (lambda: layers.max_pool(0), "max_pool(0): expected window to be a positive integer, got 0."),
        (lambda: layers.avg_pool((2, 2.0)), "avg_pool((2, 2.0)): expected each of window to be a positive integer"),
        (lambda: layers.max_pool((2,) * 4), "expected window to be an integer or a tuple of one to three, got (2, 2"),
        (lambda: layers.max_pool(2, strides=0), "max_pool(2, strides=0): expected strides to be a positive integer"),
        (lambda: layers.avg_pool(2, strides=(1, 2, 3)), "expected strides to be an integer or 2 of them"),
        (
            lambda: layers.max_pool(2, padding="FULL"),
            'expected padding to be "SAME", "VALID", an integer >= 0, or one integer or pair',
        ),
        (
            lambda: layers.max_pool((2, 3), padding=2),
            "max_pool((2, 3), padding=2): expected padding smaller than the window of 2, got (2, 2); take a larger",
        ),
        (lambda: layers.avg_pool(3, padding=(0, (0, 3))), "smaller than the window of 3, got (0, 3); take a"),
        (lambda: layers.avg_pool(2, count_include_pad=1), "expected count_include_pad to be True or False, got 1."),
    ],
)  # fmt: skip
def test_impossible_pools_are_named(make, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        make()


@pytest.mark.parametrize(
    "layer, shape, message",
    [
        (layers.max_pool(2), (3, 4, 4), "max_pool(2): expected x of shape (batch, height, width, channels), got (3"),
        (layers.avg_pool((3,)), (3, 2, 1), "expected x of length at least 3, so that the window of 3 fits, got 2"),
        (layers.max_pool(6, padding=1), (3, 4, 3, 1), "x of width at least 4, so that the window of 6 fits, got 3"),
        (layers.global_avg_pool(), (3, 4), "global_avg_pool(): expected x of shape (batch, *size, channels) with one"),
        (layers.global_max_pool(), (3, 4, 0, 2), "none of them empty, got (3, 4, 0, 2)"),
    ],
)  # fmt: skip
def test_images_that_do_not_fit_are_named(layer, shape, message):
    with pytest.raises(ShapeError, match=re.escape(message)):
        layer.apply((), (), jnp.ones(shape))


def test_a_pool_of_integers_is_refused():
    with pytest.raises(DtypeError, match=r"max_pool\(2\): expected x of a floating dtype, got an array of dtype int32"):
        layers.max_pool(2).apply((), (), jnp.ones((1, 2, 2, 1), jnp.int32))


def test_an_image_of_minus_infinity_gets_its_gradient_itself():
    """The padding is −∞ too. The first number of the image in each window is the largest."""
    pool, x = layers.max_pool(2, padding=1), jnp.full((1, 3, 3, 1), -jnp.inf)
    y, _, residuals = pool.forward((), (), x)
    _, vjp = jax.vjp(lambda x: pool.apply((), (), x)[0], x)
    for dx in (pool.backward((), residuals, jnp.ones_like(y))[1], *vjp(jnp.ones_like(y))):
        np.testing.assert_array_equal(dx[0, ..., 0], [[1, 1, 0], [1, 1, 0], [0, 0, 0]])
