"""Convolution: values by hand, any options against a loop, each way of computing it, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numerics import worst_leaf

from funcnet import layers
from funcnet.errors import ConfigError, DtypeError, ShapeError, StructureError
from funcnet.layers.convolution import gradients
from funcnet.layers.convolution.windows import place
from funcnet.training.loop import reorders

KEY = jax.random.key(0)
IMAGES = jnp.ones((2, 6, 7, 4))


def with_kernel(layer, kernel, x):
    y, _, residuals = layer.forward({"kernel": jnp.asarray(kernel, x.dtype)}, (), x)
    dparams, dx = layer.backward({"kernel": jnp.asarray(kernel, x.dtype)}, residuals, jnp.ones_like(y))
    return y, dparams["kernel"], dx


def test_convolution_by_hand():
    """Of 1, 2, 3, 4 with the kernel 10, 1, a zero at the end; the kernel is not turned around."""
    x = jnp.array([1.0, 2.0, 3.0, 4.0]).reshape(1, 4, 1)
    y, dkernel, dx = with_kernel(layers.conv(1, (2,), use_bias=False), [[[10]], [[1]]], x)
    assert y.ravel().tolist() == [12, 23, 34, 40]
    assert dkernel.ravel().tolist() == [1 + 2 + 3 + 4, 2 + 3 + 4]
    assert dx.ravel().tolist() == [10, 11, 11, 11]


def test_a_kernel_over_channels_by_hand():
    """2 × 2 on 2 × 3 images of two channels: a single row of two places."""
    x = jnp.arange(12.0).reshape(1, 2, 3, 2)
    kernel = np.zeros((2, 2, 2, 1))
    kernel[0, 0, 1], kernel[1, 1, 0] = 100, 1  # channel 1 of the upper left, channel 0 of the lower right
    y, dkernel, dx = with_kernel(layers.conv(1, 2, padding="VALID", use_bias=False), kernel, x)
    assert y.ravel().tolist() == [100 * 1 + 8, 100 * 3 + 10]
    assert dkernel[..., 0].tolist() == [[[0 + 2, 1 + 3], [2 + 4, 3 + 5]], [[6 + 8, 7 + 9], [8 + 10, 9 + 11]]]
    assert dx[0, ..., 0].tolist() == [[0, 0, 0], [0, 1, 1]]
    assert dx[0, ..., 1].tolist() == [[100, 100, 0], [0, 0, 0]]


def test_transposed_convolution_by_hand():
    """1, 2 painted with the kernel 10, 1, 5 two apart; SAME cuts the last number off."""
    x = jnp.array([1.0, 2.0]).reshape(1, 2, 1)
    kernel = [[[10]], [[1]], [[5]]]
    y, dkernel, dx = with_kernel(layers.conv_transpose(1, (3,), strides=2, padding="VALID", use_bias=False), kernel, x)
    assert y.ravel().tolist() == [10, 1, 5 + 20, 2, 10]
    assert dkernel.ravel().tolist() == [3, 3, 3]
    assert dx.ravel().tolist() == [16, 16]
    y, dkernel, dx = with_kernel(layers.conv_transpose(1, (3,), strides=2, use_bias=False), kernel, x)
    assert y.ravel().tolist() == [10, 1, 25, 2]
    assert dkernel.ravel().tolist() == [3, 3, 1]
    assert dx.ravel().tolist() == [16, 11]


def test_depthwise_features_stay_with_their_channel():
    x = jnp.array([[1.0, 10.0]]).reshape(1, 1, 2)
    y, dkernel, dx = with_kernel(layers.depthwise_conv((1,), multiplier=2, use_bias=False), [[[1, 2, 3, 4]]], x)
    assert y.ravel().tolist() == [1, 2, 30, 40]
    assert dkernel.ravel().tolist() == [1, 1, 10, 10]
    assert dx.ravel().tolist() == [3, 7]


def test_the_bias_is_added_everywhere():
    layer = layers.conv(
        3, 2, bias_init=lambda key, shape, dtype: jnp.arange(3, dtype=dtype), kernel_init=lambda *a: jnp.zeros(*a[1:])
    )
    params, state = layer.init(KEY, IMAGES)
    y, _, residuals = layer.forward(params, state, IMAGES)
    assert (y == jnp.arange(3.0)).all()
    assert layer.backward(params, residuals, jnp.ones_like(y))[0]["bias"].tolist() == [84, 84, 84]


def loop(x, kernel, window, groups, dy):
    """y, dW and dx, number by number."""
    padded = np.pad(x, ((0, 0), *window.padding, (0, 0)))
    y, dkernel, dpadded = np.zeros_like(dy), np.zeros_like(kernel), np.zeros_like(padded)
    share, features = kernel.shape[-2], kernel.shape[-1] // groups
    for o in np.ndindex(*window.places):
        for k in np.ndindex(*window.window):
            at = (
                slice(None),
                *(s * i + d * j for s, i, d, j in zip(window.strides, o, window.dilation, k, strict=True)),
            )
            for group in range(groups):
                c, f = slice(group * share, (group + 1) * share), slice(group * features, (group + 1) * features)
                y[:, *o, f] += padded[*at, c] @ kernel[*k, :, f]
                dkernel[*k, :, f] += padded[*at, c].T @ dy[:, *o, f]
                dpadded[*at, c] += dy[:, *o, f] @ kernel[*k, :, f].T
    inner = tuple(slice(lo, lo + n) for (lo, _), n in zip(window.padding, window.size, strict=True))
    return y, dkernel, dpadded[:, *inner]


@st.composite
def options(draw):
    """`(window, groups, kernel's shape, batch)` of a convolution that fits."""
    axes = draw(st.integers(1, 3))
    several = lambda low, high: tuple(draw(st.integers(low, high)) for _ in range(axes))  # noqa: E731
    window, strides, dilation = several(1, 3), several(1, 3), several(1, 2)
    pairs = tuple((draw(st.integers(0, 3)), draw(st.integers(0, 3))) for _ in range(axes))
    padding = draw(st.sampled_from(["SAME", "VALID", pairs]))
    groups, share = draw(st.sampled_from([(1, 1), (1, 3), (2, 2), (3, 1)]))
    features = groups * draw(st.sampled_from([1, 2, 17]))
    fitted = place(several(5, 6), window, strides, padding, dilation)
    return fitted, groups, (*window, share, features), draw(st.integers(1, 3))


@settings(max_examples=12)
@given(chosen=options(), seed=st.integers(0, 2**16))
def test_any_options_against_a_loop(chosen, seed):
    window, groups, shape, batch = chosen
    random = np.random.default_rng(seed)
    x = random.normal(size=(batch, *window.size, groups * shape[-2]))
    kernel, dy = random.normal(size=shape), random.normal(size=(batch, *window.places, shape[-1]))
    with jax.enable_x64(True):
        x_, kernel_, dy_ = map(jnp.asarray, (x, kernel, dy))
        computed = (
            gradients.convolve(x_, kernel_, window, groups),
            gradients.kernel_gradient(x_, dy_, window, groups),
            gradients.input_gradient(dy_, kernel_, window, groups),
        )
    assert worst_leaf(computed, loop(x, kernel, window, groups, dy)) <= 1e-13


def drawn(window, shape, batch=5, groups=1):
    keys = jax.random.split(KEY, 3)
    x = jax.random.normal(keys[0], (batch, *window.size, groups * shape[-2]))
    kernel, dy = jax.random.normal(keys[1], shape), jax.random.normal(keys[2], (batch, *window.places, shape[-1]))
    return x, kernel, dy


@pytest.mark.parametrize("groups, share", [(1, 3), (2, 2), (4, 1)])
def test_the_way_of_other_platforms_is_the_same(x64, monkeypatch, groups, share):
    """Where the vendor's kernels are good each is one convolution, whatever the groups."""
    window = place((5, 6), (3, 2), (2, 1), ((1, 2), (0, 1)), (1, 2))
    x, kernel, dy = drawn(window, (3, 2, share, 4), groups=groups)
    functions = (gradients.convolve, gradients.kernel_gradient, gradients.input_gradient)
    arguments = ((x, kernel), (x, dy), (dy, kernel))
    on_cpu = [function(*pair, window, groups) for function, pair in zip(functions, arguments, strict=True)]
    monkeypatch.setattr(gradients, "by_platform", lambda *args, cpu, default: default(*args))
    elsewhere = [f.__wrapped__(*pair, window, groups) for f, pair in zip(functions, arguments, strict=True)]
    assert worst_leaf(on_cpu, elsewhere) <= 1e-14


def test_a_gpu_gets_one_convolution():
    window = place((5, 6), (3, 3), (1, 1), "SAME")
    x, _, dy = drawn(window, (3, 3, 2, 40))
    traced = jax.jit(lambda x, dy: gradients.kernel_gradient(x, dy, window)).trace(x, dy)
    texts = {platform: traced.lower(lowering_platforms=(platform,)).as_text() for platform in ("cpu", "cuda")}
    assert (texts["cuda"].count("stablehlo.convolution"), texts["cuda"].count("stablehlo.dot")) == (1, 0)
    assert (texts["cpu"].count("stablehlo.convolution"), texts["cpu"].count("stablehlo.dot")) == (0, 1)


@pytest.mark.parametrize("batch", [4, 5])
def test_chunks_of_images_add_up(x64, monkeypatch, batch):
    """5 images by twos: the last chunk is filled up with zeros."""
    window = place((4, 5), (3, 3), (1, 2), "SAME")
    x, _, dy = drawn(window, (3, 3, 2, 40), batch)
    whole = gradients._in_chunks(x, dy, window)
    monkeypatch.setattr(gradients, "CHUNK_BYTES", 1)
    assert len(gradients._chunks(x, dy, 2)[0]) == -(-batch // 2)
    assert worst_leaf(gradients._in_chunks(x, dy, window), whole) <= 1e-15
    by_example = gradients.kernel_gradient_per_example(x, dy, window)
    assert worst_leaf(by_example.sum(0), whole) <= 1e-15


@pytest.mark.parametrize(
    "batch, about, images",
    [
        (128, 14, 16),
        (64, 3, 4),
        (32, 28, 32),
        (32, 40, 32),
        (100, 14, 10),
        (97, 14, 14),
        (5, 2, 2),
        (3, 50, 50),
        (0, 2, 2),
    ],
)
def test_chunks_are_of_equal_size_where_the_batch_allows(batch, about, images):
    assert gradients._images_at_a_time(batch, about) == images


def test_short_numbers_are_added_in_float32(monkeypatch):
    """256 images of ones: in bfloat16 a sum by twos would stand still at 256."""
    monkeypatch.setattr(gradients, "CHUNK_BYTES", 1)
    window = place((2, 2), (1, 1), (1, 1), "VALID")
    x, dy = jnp.ones((256, 2, 2, 1), jnp.bfloat16), jnp.ones((256, 2, 2, 40), jnp.bfloat16)
    assert (gradients._in_chunks(x, dy, window) == 1024).all()


def test_no_operand_of_the_backward_is_out_of_order():
    """XLA compiles such convolutions badly within a loop; autodiff's are, which shows that the scan sees them."""
    layer = layers.conv(4, 3, strides=2)
    params, state = layer.init(KEY, IMAGES)

    def by_hand(params, x):
        y, _, residuals = layer.forward(params, state, x)
        return layer.backward(params, residuals, y)

    def by_autodiff(params, x):
        y, vjp = jax.vjp(lambda params, x: layer.apply(params, state, x)[0], params, x)
        return vjp(y)

    def in_a_loop(function):
        return lambda params, x: jax.lax.fori_loop(0, 2, lambda i, carry: function(*carry), (params, x))

    for function, expected in ((by_hand, False), (by_autodiff, True)):
        assert reorders(jax.make_jaxpr(in_a_loop(function))(params, IMAGES).jaxpr) is expected


@pytest.mark.parametrize("n, kernel, strides, zeros", [(28, 5, 1, 2), (7, 3, 2, 0), (227, 11, 4, 0), (5, 3, 2, 1)])
def test_the_size_of_the_output(n, kernel, strides, zeros):
    """The textbook's H₂ = (H₁ − F + 2P)/S + 1."""
    layer = layers.conv(2, kernel, strides=strides, padding=zeros)
    x = jax.ShapeDtypeStruct((1, n, n, 1), jnp.float32)
    params, state = jax.eval_shape(layer.init, KEY, x)
    side = (n - kernel + 2 * zeros) // strides + 1
    assert jax.eval_shape(layer.apply, params, state, x)[0].shape == (1, side, side, 2)


def test_same_gives_a_place_for_each_stride():
    for n in range(1, 9):
        for s in (1, 2, 3):
            window = place((n,), (3,), (s,), "SAME")
            assert window.places == (-(-n // s),)
            lo, hi = window.padding[0]
            assert hi - lo in (0, 1)


def test_kernels_have_the_variance_of_their_fan_in():
    """lecun_normal: 1 / (3 · 3 · 64 / groups)."""
    for groups in (1, 4):
        layer = layers.conv(256, 3, groups=groups)
        params, _ = layer.init(KEY, jax.ShapeDtypeStruct((1, 4, 4, 64), jnp.float32))
        assert params["kernel"].shape == (3, 3, 64 // groups, 256)
        assert float(params["kernel"].var()) == pytest.approx(groups / (9 * 64), rel=0.05)


@pytest.mark.parametrize(
    "message, make",
    [
        (r"conv\(0, 3\): expected features to be a positive integer, got 0", lambda: layers.conv(0, 3)),
        (r"conv\(4, 0\): expected kernel_size to be a positive integer, got 0", lambda: layers.conv(4, 0)),
        (
            r"conv\(4, \(\)\): expected kernel_size to be an integer or a tuple of one to three",
            lambda: layers.conv(4, ()),
        ),
        (
            r"conv\(4, 3, strides=0\): expected strides to be a positive integer, got 0",
            lambda: layers.conv(4, 3, strides=0),
        ),
        (
            r"conv\(4, 3, strides=\(1, 2, 1\)\): expected strides to be an integer or 2 of them, one for each of",
            lambda: layers.conv(4, 3, strides=(1, 2, 1)),
        ),
        (r"expected dilation to be a positive integer, got 1.5", lambda: layers.conv(4, 3, dilation=1.5)),
        (
            r'expected padding to be "SAME", "VALID", an integer >= 0, .* got \'same\'',
            lambda: layers.conv(4, 3, padding="same"),
        ),
        (r"an integer >= 0, or one integer or pair .* got -1", lambda: layers.conv(4, 3, padding=-1)),
        (r"padding to be .* got a tuple \(\(1, 2, 3\), 1\)", lambda: layers.conv(4, 3, padding=((1, 2, 3), 1))),
        (
            r"conv\(4, 3, groups=3\): expected features to be a multiple of 3, the number of groups, got 4; choose",
            lambda: layers.conv(4, 3, groups=3),
        ),
        (r"depthwise_conv\(3, multiplier=0\): expected multiplier", lambda: layers.depthwise_conv(3, multiplier=0)),
        (r"conv_transpose\(0, 3\): expected features", lambda: layers.conv_transpose(0, 3)),
    ],
)
def test_impossible_options(message, make):
    with pytest.raises(ConfigError, match=message):
        make()


@pytest.mark.parametrize(
    "message, layer, shape",
    [
        (
            r"conv\(32, 3\): expected x of shape \(batch, height, width, channels\), got \(64, 784\)",
            layers.conv(32, 3),
            (64, 784),
        ),
        (
            r"conv\(2, \(3,\)\): expected x of shape \(batch, length, channels\), got \(2, 3, 4, 5\)",
            layers.conv(2, (3,)),
            (2, 3, 4, 5),
        ),
        (
            r"padding='VALID'\): expected x of width at least 5, so that the window of 5 fits, got 4; use larger",
            layers.conv(2, 5, padding="VALID"),
            (1, 6, 4, 1),
        ),
        (
            r"expected x of height at least 3, so that the window of 5 fits, got 2 with padding 1 \+ 1",
            layers.conv(2, 3, dilation=2, padding=1),
            (1, 2, 4, 1),
        ),
        (
            r"groups=2\): expected the channels of x to be a multiple of 2, the number of groups, got 3; choose",
            layers.conv(2, 3, groups=2),
            (1, 4, 4, 3),
        ),
        (
            r"conv_transpose\(2, 2, padding=3\): expected padding that leaves an image",
            layers.conv_transpose(2, 2, padding=3),
            (1, 2, 2, 1),
        ),
    ],
)
def test_images_that_do_not_fit(message, layer, shape):
    with pytest.raises(ShapeError, match=message):
        layer.init(KEY, jnp.ones(shape))


@pytest.mark.parametrize("make", [layers.conv, layers.conv_transpose])
def test_params_of_another_layer_are_named(make):
    layer = make(4, 3)
    params, state = layer.init(KEY, IMAGES)
    with pytest.raises(
        ShapeError,
        match=rf"^{make.__name__}\(4, 3\): expected params\['kernel'\] of shape \(3, 3, 3, 4\) for x of shape "
        r"\(2, 6, 7, 3\), got \(3, 3, 4, 4\); feed the width that init saw, or init again\.$",
    ):
        layer.apply(params, state, IMAGES[..., :3])
    with pytest.raises(StructureError, match=r"the leaves \['bias', 'kernel'\], got the leaves \['kernel'\]"):
        layer.apply({"kernel": params["kernel"]}, state, IMAGES)
    with pytest.raises(ShapeError, match=r"of shape \(3, 3, 4, 4\) for x of shape .*, got \(2, 2, 4, 4\)"):
        layer.apply(params | {"kernel": params["kernel"][:2, :2]}, state, IMAGES)
    with pytest.raises(DtypeError, match=r"x of dtype float32, the dtype of params\['kernel'\], got bfloat16"):
        layer.apply(params, state, IMAGES.astype(jnp.bfloat16))
    y, _, residuals = layer.forward(params, state, IMAGES)
    with pytest.raises(
        ShapeError,
        match=r"expected dy of shape \(2, 6, 7, 4\) as y has, got \(2, 6, 7, 1\)",
    ):
        layer.backward(params, residuals, y[..., :1])
