"""`as_custom_vjp`: jax.grad of `apply` runs the hand-derived backward, and forward mode is refused by name."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import CASES, draw
from numerics import worst_leaf

from funcnet import gradients, layers, losses
from funcnet.errors import DtypeError, ForwardModeError, FuncnetError, StructureError

# The second order of every layer is in test_modes.py.
NAMES = [
    "prelu", "binary_step_identity", "serial_state", "residual_random", "parallel_concatenate", "repeat_random",
    "recompute_random", "automatic",
]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_the_gradient_is_that_of_backward(x64, name):
    case = CASES[name]
    layer, wrapped = case.layer, gradients.as_custom_vjp(case.layer)
    params, state, x, key = draw(case)

    @jax.jit
    def both(params, x):
        y, new_state, residuals = layer.forward(params, state, x, key=key, train=True)
        apply = lambda params, x: wrapped.apply(params, state, x, key=key, train=True)  # noqa: E731
        y_too, vjp, new_state_too = jax.vjp(apply, params, x, has_aux=True)
        return (y_too, new_state_too, vjp(y_too)), (y, new_state, layer.backward(params, residuals, y))

    assert worst_leaf(*both(params, x)) <= 1e-15


def marked():
    """y = x² + state with a backward that autodiff would never find: dscale = 5 Σ dy, dx = 7 dy."""

    def init(key, x):
        return {"scale": jnp.ones((), x.dtype)}, jnp.zeros((), x.dtype)

    def forward(params, state, x, *, key=None, train=False):
        return x * x + state, state + params["scale"], None

    return layers.layer(forward, lambda params, residuals, dy: ({"scale": 5 * dy.sum()}, 7 * dy), init=init)


def test_jax_grad_runs_the_backward_of_the_layer():
    wrapped = gradients.as_custom_vjp(layers.serial(marked(), marked()))
    x = jnp.array([3.0])
    params, state = wrapped.init(jax.random.key(0), x)
    objective = lambda params, x: wrapped.apply(params, state, x, train=True)[0].sum()  # noqa: E731
    assert objective(params, x) == 81
    dparams, dx = jax.grad(objective, (0, 1))(params, x)
    np.testing.assert_array_equal(dx, [49])
    assert dparams == ({"scale": 35}, {"scale": 5})


def test_no_gradient_flows_through_the_state():
    def derivative(layer, output, argument):
        run = lambda params, state: layer.apply(params, state, jnp.ones(()))[output]  # noqa: E731
        return jax.tree.leaves(jax.grad(run, argument)({"scale": jnp.ones(())}, jnp.ones(())))[0]

    y, new_state, params, state = 0, 1, 0, 1
    for output, argument in ((y, state), (new_state, params), (new_state, state)):
        assert derivative(marked(), output, argument) == 1
        assert derivative(gradients.as_custom_vjp(marked()), output, argument) == 0


def test_the_other_functions_stay_as_they_are():
    model = layers.serial(layers.dense(3), layers.tanh())
    wrapped = gradients.as_custom_vjp(model)
    assert (wrapped.init, wrapped.forward, wrapped.backward) == (model.init, model.forward, model.backward)
    assert repr(wrapped) == "serial(dense(3), tanh())"
    assert wrapped.inside == model.inside


def test_engines_take_the_wrapped_model(x64):
    model = layers.serial(layers.dense(3), layers.dropout(0.2))
    x, labels = jax.random.normal(jax.random.key(0), (4, 2)), np.array([0, 2, 1, 1])
    params, state = model.init(jax.random.key(1), x)
    gradient = gradients.autodiff(gradients.as_custom_vjp(model), losses.softmax_cross_entropy)
    by_hand = gradients.backprop(model, losses.softmax_cross_entropy)
    args = (params, state, (x, labels), jax.random.key(2))
    assert worst_leaf(jax.jit(gradient)(*args), jax.jit(by_hand)(*args)) <= 1e-15


def lookup():
    """Rows of a table, and how often it was asked: integers in x and in the state."""

    def init(key, x):
        return {"table": jnp.arange(6.0).reshape(3, 2)}, jnp.zeros((), jnp.int32)

    def forward(params, state, x, *, key=None, train=False):
        return params["table"][x], state + 1, x

    def backward(params, x, dy):
        return {"table": jnp.zeros_like(params["table"]).at[x].add(dy)}, None

    return layers.layer(forward, backward, init=init)


@pytest.mark.parametrize("x", [np.array([0, 2, 2]), jnp.array([0, 2, 2])])
def test_integer_input_and_keys_have_no_gradient(x):
    wrapped = gradients.as_custom_vjp(lookup())
    params, state = wrapped.init(jax.random.key(0), x)

    def objective(params, x, key):
        return wrapped.apply(params, state, x, key=key, train=True)[0].sum()

    gradient = jax.grad(objective, (0, 1, 2), allow_int=True)
    dparams, dx, dkey = gradient(params, x, jax.random.key(0))
    np.testing.assert_array_equal(dparams["table"], [[1, 1], [0, 0], [2, 2]])
    assert dx.dtype == dkey.dtype == jax.dtypes.float0
    np.testing.assert_array_equal(jax.jit(gradient)(params, x, jax.random.key(0))[0]["table"], dparams["table"])


def test_numpy_cotangents():
    wrapped = gradients.as_custom_vjp(layers.dense(2))
    params, state = wrapped.init(jax.random.key(0), jnp.ones((3, 4)))
    _, vjp = jax.vjp(lambda x: wrapped.apply(params, state, x)[0], np.ones((3, 4), np.float32))
    np.testing.assert_allclose(*vjp(np.ones((3, 2), np.float32)), jnp.ones((3, 2)) @ params["kernel"].T, rtol=1e-6)


MODEL = layers.serial(layers.dense(1), layers.tanh(), layers.dropout(0.2))


@functools.cache
def objectives(dtype=jnp.float32):
    """The same function of x, of `as_custom_vjp` and of the plain model; and an x."""
    x = jax.random.normal(jax.random.key(0), (2, 2), dtype)
    params, state = MODEL.init(jax.random.key(1), x)

    def of(model):
        return lambda x: model.apply(params, state, x, key=jax.random.key(2), train=True)[0].sum()

    return of(gradients.as_custom_vjp(MODEL)), of(MODEL), x


HESSIANS = {
    "forward over reverse": lambda f: jax.jit(jax.hessian(f)),
    "reverse over reverse": lambda f: jax.jit(jax.jacrev(jax.grad(f))),
    "compiled within": lambda f: jax.jit(jax.hessian(jax.jit(f))),
    "rematerialised": lambda f: jax.jit(jax.hessian(jax.checkpoint(f))),
    "of vjp": lambda f: jax.jit(jax.jacfwd(lambda x: jax.vjp(f, x)[1](1.0)[0])),
}


@pytest.mark.parametrize("hessian", HESSIANS.values(), ids=HESSIANS.keys())
def test_the_hessian_is_that_of_the_plain_model(x64, hessian):
    wrapped, plain, x = objectives(jnp.float64)
    assert worst_leaf(hessian(wrapped)(x), jax.jit(jax.hessian(plain))(x)) <= 1e-13


def test_vmap_and_scan(x64):
    wrapped, plain, x = objectives(jnp.float64)

    def chain(f):
        return lambda x: jax.lax.scan(lambda x, _: (x * f(x), f(x)), x, length=3)[1].sum()

    gradient = jax.jit(lambda xs: [jax.vmap(jax.grad(chain(f)))(xs) for f in (wrapped, plain)])
    assert worst_leaf(*gradient(jnp.stack([x, 2 * x]))) <= 1e-13


FORWARD_MODES = {
    "jvp": lambda f, x: jax.jvp(f, (x,), (x,)),
    "jvp compiled": lambda f, x: jax.jit(lambda x: jax.jvp(f, (x,), (x,)))(x),
    "jvp of compiled": lambda f, x: jax.jvp(jax.jit(f), (x,), (x,)),
    "jacfwd": lambda f, x: jax.jacfwd(f)(x),
    "jacfwd of compiled": lambda f, x: jax.jacfwd(jax.jit(f))(x),
    "linearize": lambda f, x: jax.linearize(f, x)[1](x),
    "linearize compiled": lambda f, x: jax.jit(jax.linearize(f, x)[1])(x),
    "reverse over forward": lambda f, x: jax.jacrev(jax.jacfwd(f))(x),
    "forward over forward": lambda f, x: jax.jacfwd(jax.jacfwd(f))(x),
    "scan": lambda f, x: jax.jvp(lambda x: jax.lax.scan(lambda c, _: (c, f(c)), x, length=2)[1], (x,), (x,)),
    "checkpoint": lambda f, x: jax.jvp(jax.checkpoint(f), (x,), (x,)),
}


@pytest.mark.parametrize("run", FORWARD_MODES.values(), ids=FORWARD_MODES.keys())
def test_forward_mode_is_refused_by_name(run):
    wrapped, _, x = objectives()
    with pytest.raises(
        ForwardModeError,
        match=r"^serial\(dense\(1\), tanh\(\), dropout\(0.2\)\): expected reverse mode \(jax.grad, .*\), "
        r"the only mode that a hand-derived backward defines, got forward mode \(.*\); use apply of the layer that "
        r"as_custom_vjp was given\.",
    ):
        run(wrapped, x)


@pytest.mark.parametrize("argument", ["params", "state"])
def test_forward_mode_in_params_and_state_is_refused(argument):
    apply = gradients.as_custom_vjp(marked()).apply
    one = jnp.ones(())
    run = {"params": lambda a: apply({"scale": a}, one, one), "state": lambda a: apply({"scale": one}, a, one)}
    with pytest.raises(ForwardModeError, match=r"^marked: expected reverse mode \(.*\), .* got forward mode \("):
        jax.jvp(run[argument], (one,), (one,))


def test_misuse_reads_as_without_it():
    layer = layers.dense(3)
    params, state = layer.init(jax.random.key(0), jnp.ones((1, 2)))
    misuses: list[tuple[type[FuncnetError], tuple, dict]] = [
        (DtypeError, (params, state, (3, 2)), {}),
        (DtypeError, (params, state, jnp.ones((1, 2))), {"train": jnp.array(True)}),
        (StructureError, ((), state, jnp.ones((1, 2))), {}),
    ]
    for error, args, options in misuses:
        with pytest.raises(error, match=r"^dense\(3\): expected") as plain:
            layer.apply(*args, **options)
        with pytest.raises(error, match=r"^dense\(3\): expected") as wrapped:
            gradients.as_custom_vjp(layer).apply(*args, **options)
        assert str(wrapped.value) == str(plain.value)
