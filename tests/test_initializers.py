"""Initializers: moments against theory, the same numbers as jax.nn.initializers where conventions agree."""

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy import stats

from funcnet import initializers, layers
from funcnet.errors import ConfigError, DtypeError, ShapeError
from funcnet.initializers import (
    calculate_gain,
    constant,
    he_normal,
    he_uniform,
    identity,
    lecun_normal,
    lecun_uniform,
    normal,
    ones,
    orthogonal,
    truncated_normal,
    uniform,
    variance_scaling,
    xavier_normal,
    xavier_uniform,
    zeros,
)
from funcnet.made import spelled

KEY = jax.random.key(0)
DENSE = (500, 300)
CONV = (3, 2, 50, 400)  # HWIO: fan_in = 6 · 50 = 300, fan_out = 6 · 400 = 2400

# call -> (initializer, shape, mean, variance, lower bound, upper bound), all from the definitions.
TRUNCATED = 0.87962566103423978  # standard deviation of N(0, 1) cut at ±2, as in jax
MOMENTS = {
    "normal()": (normal(), DENSE, 0, 1, -math.inf, math.inf),
    "normal(stddev=0.1, mean=2.0)": (normal(0.1, 2.0), DENSE, 2, 0.01, -math.inf, math.inf),
    "uniform(-0.3, 0.3)": (uniform(-0.3, 0.3), DENSE, 0, 0.6**2 / 12, -0.3, 0.3),
    "uniform(1.0, 3.0)": (uniform(1.0, 3.0), DENSE, 2, 4 / 12, 1, 3),
    "truncated_normal(stddev=0.5)": (truncated_normal(0.5), DENSE, 0, (0.5 * TRUNCATED) ** 2, -1, 1),
    "truncated_normal(mean=1.0, lower=-1.0, upper=3.0)": (
        truncated_normal(mean=1.0, lower=-1.0, upper=3.0), DENSE, 1 + stats.truncnorm.mean(-1, 3),
        stats.truncnorm.var(-1, 3), 0, 4,
    ),
    "variance_scaling(3.0, mode='fan_out', distribution='normal')": (
        variance_scaling(3.0, "fan_out", "normal"), DENSE, 0, 3 / 300, -math.inf, math.inf,
    ),
    "variance_scaling(1.0, mode='fan_avg')": (
        variance_scaling(1.0, "fan_avg"), CONV, 0, 1 / 1350, -2 / TRUNCATED / 1350**0.5, 2 / TRUNCATED / 1350**0.5,
    ),
    "xavier_uniform()": (xavier_uniform(), DENSE, 0, 2 / 800, -((6 / 800) ** 0.5), (6 / 800) ** 0.5),
    "xavier_uniform(gain=2.0)": (xavier_uniform(2.0), CONV, 0, 8 / 2700, -2 * (6 / 2700) ** 0.5, 2 * (6 / 2700) ** 0.5),
    "xavier_normal()": (xavier_normal(), DENSE, 0, 2 / 800, -2 / TRUNCATED / 400**0.5, 2 / TRUNCATED / 400**0.5),
    "he_uniform()": (he_uniform(), DENSE, 0, 2 / 500, -((6 / 500) ** 0.5), (6 / 500) ** 0.5),
    "he_uniform(mode='fan_out')": (he_uniform(mode="fan_out"), CONV, 0, 2 / 2400, -0.05, 0.05),
    "he_normal()": (he_normal(), CONV, 0, 2 / 300, -2 / TRUNCATED / 150**0.5, 2 / TRUNCATED / 150**0.5),
    "he_normal(negative_slope=1.0)": (he_normal(1.0), DENSE, 0, 1 / 500, -0.1017, 0.1017),
    "lecun_normal()": (lecun_normal(), DENSE, 0, 1 / 500, -0.1017, 0.1017),
    "lecun_uniform()": (lecun_uniform(), CONV, 0, 1 / 300, -0.1, 0.1),
}  # fmt: skip

# The others have values that tests below compute by hand.
EXACT = {
    "zeros": zeros,
    "ones": ones,
    "constant(0.5)": constant(0.5),
    "identity()": identity(),
    "identity(gain=-2)": identity(gain=-2),
    "orthogonal()": orthogonal(),
    "orthogonal(gain=0.5)": orthogonal(0.5),
}
ALL = {call: row[0] for call, row in MOMENTS.items()} | EXACT


def test_every_public_initializer_has_a_row():
    assert {call.split("(")[0] for call in ALL} == {*initializers.__all__} - {"Initializer", "calculate_gain"}


EACH_KIND = (
    "normal(stddev=0.1, mean=2.0)", "orthogonal(gain=0.5)", "uniform(1.0, 3.0)",
    "truncated_normal(mean=1.0, lower=-1.0, upper=3.0)", "he_normal()",
)  # fmt: skip


@pytest.mark.usefixtures("compiled_as_usual")
@pytest.mark.parametrize("call", EACH_KIND)
def test_the_bits_are_those_of_any_program(call):
    """Of one by itself, and within another one with numbers around it, alone and for each of a stack."""
    draw = ALL[call]
    shape = (13, 7)

    @jax.jit
    def within(keys, factor):
        drawn = draw(keys[0], shape, jnp.float32)
        stacked = jax.vmap(lambda key: draw(key, shape, jnp.float32))(keys)
        return drawn, stacked, factor * (drawn + 0.3) - stacked

    keys = jax.random.split(KEY)
    alone = jnp.stack([draw(key, shape, jnp.float32) for key in keys])
    inside, stacked, _ = within(keys, jnp.float32(1.7))
    assert (inside == alone[0]).all()
    assert (stacked == alone).all()


@pytest.mark.parametrize("call", ALL)
def test_named_as_the_call(call):
    assert spelled(ALL[call]) == call


@pytest.mark.parametrize("call", [call for call in ALL if "(" in call])
def test_equal_calls_are_equal(call):
    """So a model written twice is compiled once."""
    again = eval(call, vars(initializers))
    assert again == ALL[call]
    assert hash(again) == hash(ALL[call])
    assert repr(again) == call
    assert again.made.constructor is getattr(initializers, call.split("(")[0])


def test_other_calls_are_not_equal():
    assert len(set(ALL.values())) == len(ALL)
    assert he_normal() != he_normal(mode="fan_out")
    assert constant(0) != constant(0.0)  # which make the same numbers, but no two programs are taken for one


def test_layers_print_it():
    assert repr(layers.dense(3, kernel_init=constant(0.5))) == "dense(3, kernel_init=constant(0.5))"


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
@pytest.mark.parametrize("call", MOMENTS)
def test_moments_and_bounds(call, dtype):
    initializer, shape, mean, variance, low, high = MOMENTS[call]
    w = np.asarray(initializer(KEY, shape, dtype), np.float64).ravel()
    n, step = w.size, float(jnp.finfo(dtype).eps)  # a rounded bound may lie one step outside
    # The sample mean has the standard error σ/√n; the sample variance has σ² √((κ − 1)/n), with κ ≤ 3 here.
    assert abs(w.mean() - mean) < 5 * math.sqrt(variance / n)
    # Rounding to steps of eps · |w| adds a variance of eps² w² / 12.
    rounding = step**2 * (mean**2 + variance)
    assert abs(w.var() - variance) < 5 * variance * math.sqrt(2 / n) + rounding
    assert w.min() >= low - step * abs(low)
    assert w.max() <= high + step * abs(high)
    if math.isfinite(high):  # and the bounds are reached: nothing is cut too early
        assert w.max() > high - 0.05 * (high - low)
        assert w.min() < low + 0.05 * (high - low)


@pytest.mark.parametrize(
    "own, other",
    [
        (lecun_normal(), jax.nn.initializers.lecun_normal()),
        (lecun_uniform(), jax.nn.initializers.lecun_uniform()),
        (he_normal(), jax.nn.initializers.he_normal()),
        (he_uniform(), jax.nn.initializers.he_uniform()),
        (xavier_normal(), jax.nn.initializers.glorot_normal()),
        (xavier_uniform(), jax.nn.initializers.glorot_uniform()),
        (normal(0.3), jax.nn.initializers.normal(0.3)),
        (truncated_normal(0.3), jax.nn.initializers.truncated_normal(0.3)),
        (orthogonal(2.0), jax.nn.initializers.orthogonal(2.0)),
        (variance_scaling(2.0, "fan_out", "normal"), jax.nn.initializers.variance_scaling(2.0, "fan_out", "normal")),
    ],
    ids=lambda initializer: getattr(initializer, "__name__", ""),
)
def test_the_numbers_of_jax(own, other, x64):
    shape = (3, 3, 2, 4)
    np.testing.assert_allclose(own(KEY, shape, jnp.float64), other(KEY, shape, jnp.float64), rtol=1e-14, atol=1e-15)


@pytest.mark.parametrize("call", ALL)
def test_dtype_and_key(call):
    initializer = ALL[call]
    for dtype in (jnp.float32, jnp.bfloat16, np.float64):  # float64 is float32 without 64-bit mode, with no warning
        w = initializer(KEY, (4, 3), dtype)
        assert w.shape == (4, 3)
        assert w.dtype == (jnp.bfloat16 if dtype is jnp.bfloat16 else jnp.float32)
        assert not w.weak_type
    first, again, other = (initializer(jax.random.key(k), (4, 3), jnp.float32) for k in (1, 1, 2))
    assert jnp.array_equal(first, again)
    assert jnp.array_equal(first, other) == (call in EXACT and "orthogonal" not in call)


@pytest.mark.parametrize("call", ALL)
def test_float64(call, x64):
    w = ALL[call](KEY, (4, 3), jnp.float64)
    assert w.dtype == jnp.float64
    if call in MOMENTS:  # more digits than float32 has
        assert not jnp.array_equal(w, w.astype(jnp.float32).astype(jnp.float64))


def test_values():
    assert zeros(KEY, (2, 2), jnp.float32).tolist() == [[0, 0], [0, 0]]
    assert ones(KEY, (), jnp.float32).tolist() == 1
    assert constant(-0.5)(KEY, (3,), jnp.bfloat16).tolist() == [-0.5] * 3
    assert identity(2.0)(KEY, (2, 3), jnp.float32).tolist() == [[2, 0, 0], [0, 2, 0]]
    assert identity()(KEY, (3, 2), jnp.float32).tolist() == [[1, 0], [0, 1], [0, 0]]
    assert zeros(KEY, (2,), jnp.int32).dtype == jnp.int32


@pytest.mark.parametrize("shape", [(4, 4), (7, 3), (3, 7), (2, 2, 2, 5)])
def test_orthogonal(shape, x64):
    w = orthogonal(1.5)(KEY, shape, jnp.float64).reshape(-1, shape[-1])
    gram = w.T @ w if w.shape[0] >= w.shape[1] else w @ w.T
    np.testing.assert_allclose(gram, 1.5**2 * jnp.eye(len(gram)), atol=1e-14)


def test_orthogonal_is_uniform():
    # Of uniform orthogonal matrices the first entry is as often negative as positive; without the sign correction
    # QR makes it negative always.
    keys = jax.random.split(KEY, 400)
    first = jax.vmap(lambda key: orthogonal()(key, (3, 3), jnp.float32)[0, 0])(keys)
    assert abs(float(jnp.mean(first > 0)) - 0.5) < 5 * 0.5 / 20


def test_a_deep_relu_network_keeps_its_signal():
    """What He's variance is for: after 30 relu layers the mean square is still of order 1, with LeCun's it is 2⁻³⁰."""
    x = jax.random.normal(KEY, (64, 256))

    def mean_square(initializer):
        def step(y, key):
            return jax.nn.relu(y @ initializer(key, (256, 256), jnp.float32)), None

        return float(jnp.mean(jax.lax.scan(step, x, jax.random.split(KEY, 30))[0] ** 2))

    assert 0.1 < mean_square(he_normal()) < 10
    assert mean_square(lecun_normal()) < 1e-7


@pytest.mark.parametrize(
    "activation, parameter, gain",
    [
        ("identity", None, 1), ("sigmoid", None, 1), ("tanh", None, 5 / 3), ("relu", None, 2**0.5),
        ("leaky_relu", None, (2 / 1.0001) ** 0.5), ("leaky_relu", 1.0, 1), ("selu", None, 0.75),
    ],
)  # fmt: skip
def test_gain(activation, parameter, gain):
    assert calculate_gain(activation, parameter) == pytest.approx(gain, rel=1e-15)


@pytest.mark.parametrize(
    "call, message",
    [
        (lambda: constant("a"), r"constant\('a'\): expected value to be a finite number, got 'a'"),
        (lambda: constant(math.inf), r"constant\(inf\): expected value to be a finite number"),
        (lambda: identity(None), r"identity\(gain=None\): expected gain to be a finite number"),
        (lambda: normal(-1.0), r"normal\(stddev=-1.0\): expected stddev to be a finite number > 0, got -1.0"),
        (lambda: normal(mean=math.nan), r"normal\(mean=nan\): expected mean to be a finite number"),
        (lambda: uniform(1.0, -1.0), r"uniform\(1.0, -1.0\): expected low < high, got 1.0 and -1.0; swap"),
        (lambda: truncated_normal(lower=3.0), r"truncated_normal\(lower=3.0\): expected lower < upper, got 3.0"),
        (lambda: truncated_normal(0), r"truncated_normal\(stddev=0\): expected stddev to be .* > 0, got 0"),
        (lambda: variance_scaling(0.0), r"variance_scaling\(0.0\): expected scale to be a finite number > 0, got 0.0"),
        (lambda: variance_scaling(1.0, "fan"), r"mode='fan'\): expected mode to be \"fan_in\", .*, got 'fan'"),
        (lambda: variance_scaling(1.0, "fan_in", "cauchy"), r"expected distribution to be \"trunc.*, got 'cauchy'"),
        (lambda: xavier_uniform(-1.0), r"xavier_uniform\(gain=-1.0\): expected gain to be a finite number > 0, got"),
        (lambda: xavier_normal(0), r"xavier_normal\(gain=0\): expected gain to be a finite number > 0, got 0"),
        (lambda: he_normal(mode="in"), r"he_normal\(mode='in'\): expected mode"),
        (lambda: he_uniform("relu"), r"he_uniform\(negative_slope='relu'\): expected negative_slope to be a finite"),
        (lambda: orthogonal(0.0), r"orthogonal\(gain=0.0\): expected gain to be a finite number > 0"),
        (lambda: calculate_gain("gelu"), r"calculate_gain\('gelu'\): expected activation to be \"ide.* got 'gelu'"),
        (lambda: calculate_gain("relu", 0.1), r"calculate_gain\('relu', parameter=0.1\): expected parameter to be N"),
        (lambda: calculate_gain("leaky_relu", "a"), r"calculate_gain.*: expected negative_slope to be a finite number"),
    ],
)
def test_impossible_hyperparameters(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize("shape", [(), (5,), (0, 5), (3, 0, 2)])
@pytest.mark.parametrize("initializer", [he_normal(), lecun_uniform(), orthogonal()], ids=lambda i: i.__name__)
def test_shapes_without_fans(initializer, shape):
    name = initializer.__name__.replace("()", "")
    with pytest.raises(ShapeError, match=rf"{name}\(\): expected the shape \(…, in, out\) of a kernel.* got \("):
        initializer(KEY, shape, jnp.float32)


def test_identity_is_of_matrices_only():
    with pytest.raises(ShapeError, match=r"identity\(\): expected a shape \(in, out\), got \(3, 3, 1, 1\)"):
        identity()(KEY, (3, 3, 1, 1), jnp.float32)


def test_no_integers():
    with pytest.raises(DtypeError, match=r"normal\(\): expected a floating dtype, got int32"):
        normal()(KEY, (3, 3), jnp.int32)
