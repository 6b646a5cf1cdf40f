"""Settings of XLA: which are given, what they change, and what they do not."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet import compiler
from funcnet.training.loop import compiled_chunk


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")


def test_what_the_environment_says_is_not_said_again(monkeypatch):
    both = compiler.options()
    assert set(both) == {"xla_cpu_experimental_ynn_fusion_type", "xla_cpu_prefer_vector_width"}
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_prefer_vector_width=256")
    assert set(compiler.options()) == {"xla_cpu_experimental_ynn_fusion_type"}


def test_other_platforms_get_none(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler.options() == {}


def test_what_jaxlib_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(compiler, "_CPU", {"xla_cpu_no_such_option": "1", "xla_cpu_prefer_vector_width": "512"})
    assert compiler.options() == {"xla_cpu_prefer_vector_width": "512"}
    monkeypatch.setattr(compiler, "_CPU", {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_OF_OLD"})
    assert compiler.options() == {}


def test_the_options_are_the_callers_own():
    compiler.options().clear()
    assert compiler.options()


def test_they_take_convolutions_and_nothing_else_from_ynnpack():
    """The default list of jaxlib, less its convolutions: if a later one has more, this fails and is to be looked at."""
    x, kernel, matrix = jnp.ones((8, 14, 14, 32)), jnp.ones((3, 3, 32, 32)), jnp.ones((256, 256))

    def convolution():
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    def by_ynnpack(function, **settings):
        return "ynn_fusion" in jax.jit(lambda *a: function(), **settings).lower().compile().as_text()

    def product():
        return matrix @ jnp.sin(matrix)

    def maximum():
        return jnp.max(jnp.sin(matrix), 1)

    programs = (convolution, product, maximum)
    ours = [by_ynnpack(program, compiler_options=compiler.options()) for program in programs]
    assert ours == [False, *(by_ynnpack(program) for program in programs[1:])]


def test_fit_compiles_with_them(monkeypatch):
    compiled_chunk.cache_clear()
    given, jit = [], jax.jit
    monkeypatch.setattr(jax, "jit", lambda *a, **k: (given.append(k.get("compiler_options")), jit(*a, **k))[1])
    x, y = np.ones((4, 3), np.float32), np.zeros((4, 1), np.float32)
    list(fn.training.fit(fn.layers.dense(1), fn.losses.mean_squared_error, fn.optimizers.sgd(0.1), (x, y), epochs=1,
                         batch_size=2, key=0))  # fmt: skip
    assert given.count(compiler.options()) >= 2  # the loop, and the step alone
    compiled_chunk.cache_clear()


def test_results_are_the_same_but_for_rounding(x64):
    """A step of a convolutional network in float64, with and without."""
    model = fn.models.lenet(10)
    gradient = fn.gradients.backprop(model, fn.losses.softmax_cross_entropy)
    x = jax.random.normal(jax.random.key(0), (4, 28, 28, 1))
    params, state = model.init(jax.random.key(1), x)
    batch = x, jnp.arange(4)
    plain = jax.jit(gradient)(params, state, batch, jax.random.key(2))
    tuned = jax.jit(gradient, compiler_options=compiler.options())(params, state, batch, jax.random.key(2))
    for a, b in zip(jax.tree.leaves(plain.grads), jax.tree.leaves(tuned.grads), strict=True):
        assert jnp.linalg.norm(a - b) <= 1e-13 * jnp.linalg.norm(b)
