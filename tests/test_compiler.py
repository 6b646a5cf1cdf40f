"""Settings of XLA: which are given, what they change, and what they do not."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet import compiler
from funcnet.training.evaluation import _accumulator
from funcnet.training.loop import compiled_chunk


@pytest.fixture(autouse=True)
def on_a_cpu(monkeypatch):
    """Where the default is a GPU too: what is compiled here is for a CPU."""
    monkeypatch.setattr(jax, "default_backend", lambda: "cpu")
    with jax.default_device(jax.devices("cpu")[0]):
        yield


def test_what_the_environment_says_is_not_said_again(monkeypatch):
    both = compiler.options()
    assert set(both) == {"xla_cpu_experimental_ynn_fusion_type", "xla_cpu_prefer_vector_width"}
    monkeypatch.setenv("XLA_FLAGS", "--xla_cpu_prefer_vector_width=256")
    assert set(compiler.options()) == {"xla_cpu_experimental_ynn_fusion_type"}


def test_other_platforms_get_none(monkeypatch):
    monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
    assert compiler.options() == {}
    assert compiler.options("tpu") == {}
    assert compiler.options("cpu") == compiler._CPU


def test_what_jaxlib_does_not_know_is_left_out(monkeypatch):
    monkeypatch.setattr(compiler, "_CPU", {"xla_cpu_no_such_option": "1", "xla_cpu_prefer_vector_width": "512"})
    assert compiler.options() == {"xla_cpu_prefer_vector_width": "512"}
    monkeypatch.setattr(compiler, "_CPU", {"xla_cpu_experimental_ynn_fusion_type": "LIBRARY_FUSION_TYPE_OF_OLD"})
    assert compiler.options() == {}


def test_quick_options_are_those_that_are_known(monkeypatch):
    monkeypatch.setattr(compiler, "_QUICKLY_ON_CPU", {"xla_cpu_no_such_option": "1"})
    assert compiler.quick_options() == {"xla_backend_optimization_level": "0"}
    assert float(jax.jit(jnp.sin, compiler_options=compiler.quick_options())(0.0)) == 0


def test_the_options_are_the_callers_own():
    compiler.options().clear()
    assert compiler.options()


def test_they_take_convolutions_and_nothing_else_from_ynnpack():
    """The default list of jaxlib, less its convolutions: if a later one has more, this fails and is to be looked at."""

    def convolution(x, kernel):
        return jax.lax.conv_general_dilated(x, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))

    images, kernel, matrix = jnp.ones((8, 14, 14, 32)), jnp.ones((3, 3, 32, 32)), jnp.ones((256, 256))
    programs = {
        convolution: (images, kernel),
        jnp.matmul: (matrix, matrix),
        partial(jnp.max, axis=1): (matrix,),
        partial(jnp.sum, axis=1): (matrix,),
        jnp.tanh: (matrix,),
        jnp.add: (matrix, matrix),
    }

    def by_ynnpack(settings):  # of arguments: what a program holds is computed when it is compiled
        programs_of = (jax.jit(function, compiler_options=settings).lower(*args) for function, args in programs.items())
        return ["ynn_fusion" in program.compile().as_text() for program in programs_of]

    assert by_ynnpack({}) == [True, True, True, True, False, False]
    assert by_ynnpack(compiler.options()) == [False, True, True, True, False, False]


def test_fit_evaluate_and_compiled_steps_are_compiled_with_them(monkeypatch):
    compiled_chunk.cache_clear()
    _accumulator.cache_clear()
    given, jit = [], jax.jit
    monkeypatch.setattr(jax, "jit", lambda *a, **k: (given.append(k.get("compiler_options")), jit(*a, **k))[1])

    def times(function):
        before = given.count(compiler.options())
        function()
        return given.count(compiler.options()) - before

    model, loss, optimizer = fn.layers.dense(1), fn.losses.mean_squared_error, fn.optimizers.sgd(0.1)
    data = np.ones((4, 3), np.float32), np.zeros((4, 1), np.float32)
    fit = partial(fn.training.fit, model, loss, optimizer, data, epochs=1, batch_size=2, key=0)
    assert times(lambda: list(fit())) == 2  # the loop, and the step alone
    params, state = model.init(jax.random.key(0), data[0])
    assert times(lambda: fn.training.evaluate(model, loss, params, state, data)) == 1
    layout = fn.parallel.layout(fn.parallel.mesh())
    step = fn.training.train_step(layout.gradient(fn.gradients.backprop(model, loss)), optimizer)
    assert times(lambda: fn.parallel.compile_step(step, layout)) == 1
    compiled_chunk.cache_clear()
    _accumulator.cache_clear()


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
