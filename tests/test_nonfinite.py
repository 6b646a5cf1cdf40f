"""Where the first NaN or infinity of a training step is born."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import quick_jit

from funcnet import gradients, initializers, layers, losses
from funcnet.catalogue import counter, embedding, highway, scale
from funcnet.checking import find_nonfinite
from funcnet.errors import DtypeError, LabelError, MissingKeyError, ShapeError
from funcnet.made import constructor

loss = losses.mean_squared_error


@pytest.fixture(params=[np.float32, np.float64], ids=["float32", "float64"])
def dtype(request):
    with jax.enable_x64(request.param is np.float64):
        yield request.param


@constructor
def root():
    return layers.elementwise(jnp.sqrt, lambda x, y: 0.5 / y)


@constructor
def log():
    return layers.elementwise(jnp.log, lambda x, y: 1 / x)


@constructor
def exp():
    return layers.elementwise(jnp.exp, lambda x, y: y)


# layer -> a number that it can take and one that it cannot, then direction and what is born
BIRTHS = {
    "root": (root(), 1.0, 0.0, "backward", "dx"),
    "log": (log(), 20.0, -1.0, "forward", "y"),
    "exp": (exp(), 1.0, 1000.0, "forward", "y"),
}
# container -> its place around the layer, in the forward pass and in the backward pass
AROUND = {
    "serial": (lambda inner: layers.serial(layers.identity(), inner), "serial[1]", "serial[1]"),
    "residual": (layers.residual, "residual[0]", "residual[0]"),
    "parallel": (lambda inner: layers.parallel(layers.tanh(), inner), "parallel[1]", "parallel[1]"),
    "repeat": (
        lambda inner: layers.repeat(layers.serial(layers.identity(), inner), 3),
        "repeat[0] serial[1]",
        "repeat[2] serial[1]",
    ),
    "recompute": (layers.recompute, "recompute", "recompute"),
    "names": (lambda inner: layers.serial(z=layers.identity(), a=inner), "serial[a]", "serial[a]"),
    "own": (lambda inner: highway(inner, layers.sigmoid()), "highway[0]", "highway[0]"),
}


def searched(model, x, params=None, state=None, loss=loss, target=None, where=()):
    drawn = quick_jit(model.init)(jax.random.key(0), x)
    params, state = drawn[0] if params is None else params, drawn[1] if state is None else state
    return find_nonfinite(model, loss, params, state, (x, jnp.full_like(x, 5) if target is None else target, *where))


@pytest.mark.parametrize("birth", BIRTHS)
@pytest.mark.parametrize(
    "container, dtype", [*((container, np.float32) for container in AROUND), ("serial", np.float64)], indirect=["dtype"]
)
def test_births(birth, container, dtype):
    bad, good_number, bad_number, direction, what = BIRTHS[birth]
    around, forward, backward = AROUND[container]
    model = layers.serial(layers.dense(2, kernel_init=initializers.identity()), around(bad), layers.dense(2))
    found = searched(model, jnp.full((2, 2), good_number, dtype).at[1, 1].set(bad_number))
    place = forward if direction == "forward" else backward
    assert found[:4] == (f"serial[1] {place} {birth}()", direction, what, (1, 1))
    assert not np.isfinite(found.value)


@pytest.mark.parametrize("birth", BIRTHS)
def test_no_false_alarm(birth):
    bad, number, *_ = BIRTHS[birth]
    around = [around(bad) for around, *_ in AROUND.values()]
    model = layers.serial(layers.parallel(*around), layers.dense(2))
    assert searched(model, jnp.full((2, 2), number)) is None


def test_what_was_given():
    model = layers.serial(layers.dense(3), counter(), layers.repeat(scale(), 2))
    x = jnp.ones((2, 3))
    (params, *others), state = model.init(jax.random.key(0), x)
    assert searched(model, x) is None

    kernel = params | {"kernel": params["kernel"].at[2, 1].set(np.inf)}
    found = searched(model, x, (kernel, *others))
    assert found == ("serial[0] dense(3)", "given", "params/kernel", (2, 1), np.inf)
    assert str(found) == "serial[0] dense(3): params/kernel is inf at [2, 1], before any computation."

    stack = {"scale": others[1]["scale"].at[1, 2].set(np.nan)}
    found = searched(model, x, (params, (), stack))
    assert found[:4] == ("serial[2] repeat[1] scale()", "given", "params/scale", (2,))

    found = searched(model, x, state=(state[0], state[1] - np.inf, state[2]))
    assert found == ("serial[1] counter()", "given", "state", (), -np.inf)
    assert str(found) == "serial[1] counter(): state is -inf, before any computation."

    nan = x.at[1, 0].set(np.nan)
    assert searched(model, nan, (kernel, *others))[:4] == ("batch", "given", "x", (1, 0))
    assert searched(model, x, target=nan)[:4] == ("batch", "given", "target", (1, 0))
    assert searched(model, x, target=nan, where=(np.array([True, False]),)) is None


def test_the_loss(dtype):
    model, x = layers.dense(2, use_bias=False, kernel_init=initializers.identity()), jnp.ones((1, 2), dtype)
    large = float(np.sqrt(np.finfo(dtype).max)) * x
    found = searched(model, 2 * large)  # its square is infinite, its gradient is not
    assert found == ("mean_squared_error", "forward", "value", (), np.inf)

    def distance(prediction, target):
        return jnp.sqrt(jnp.sum((prediction - target) ** 2))

    found = searched(model, x, loss=distance, target=x)  # √ at 0
    assert found[:4] == ("distance", "backward", "gradient", (0, 0))
    assert (
        str(found) == "distance: gradient is nan at [0, 0], born here in the backward pass: all that went in is finite."
    )


def test_labels_are_judged():
    with pytest.raises(LabelError, match="softmax_cross_entropy: expected label in 0..1, got 2 at row 0"):
        searched(layers.dense(2), jnp.ones((1, 2)), loss=losses.softmax_cross_entropy, target=np.array([2]))


@constructor
def power():
    """y = x^a: its derivative in a, y log x, is no number at x = 0."""

    def forward(params, state, x, *, key=None, train=False):
        return x ** params["a"], state * jnp.asarray(1e200, x.dtype), x

    def backward(params, x, dy):
        a = params["a"]
        return {"a": jnp.sum(dy * x**a * jnp.log(x))}, dy * a * x ** (a - 1)

    return layers.layer(forward, backward, init=lambda key, x: ({"a": jnp.full((), 2, x.dtype)}, jnp.zeros(1, x.dtype)))


def test_the_gradient_of_a_parameter_and_a_state(x64):
    x = jnp.array([[0.0, 1.0]])
    assert searched(power(), x) == ("power()", "backward", "dparams/a", (), pytest.approx(np.nan, nan_ok=True))
    assert searched(power(), x, state=jnp.array([1e200])) == ("power()", "forward", "state", (0,), np.inf)


def test_sums_of_containers(dtype):
    """Finite numbers whose sum is not: no layer is wrong."""
    most = 0.7 * float(np.finfo(dtype).max)
    x = jnp.full((1, 2), most, dtype)
    twice = layers.parallel(layers.identity(), layers.identity())
    assert searched(twice, x)[:4] == ("model", "forward", "prediction", (0, 0))
    found = searched(layers.serial(twice, layers.tanh()), x)
    assert found == ("serial[1] tanh()", "forward", "x", (0, 0), np.inf)
    assert str(found) == (
        "serial[1] tanh(): x is inf at [0, 0], where a container put finite numbers together in the forward pass."
    )
    model = layers.serial(layers.dense(2), twice)
    found = searched(model, jnp.zeros_like(x), loss=lambda prediction, target: most * prediction.sum())
    assert found == ("serial[0] dense(2)", "backward", "dy", (0, 0), np.inf)


def test_a_dx_for_nobody_is_no_find():
    """√ at 0 on the batch itself: every parameter's gradient is finite."""
    model, x = layers.serial(root(), layers.dense(2)), jnp.zeros((1, 2))
    params, state = model.init(jax.random.key(0), x)
    done = gradients.backprop(model, loss)(params, state, (x, x))
    assert all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves((done.loss, done.grads)))
    assert searched(model, x) is None


def test_while_jax_looks_for_nans_itself():
    model = layers.serial(layers.dense(2, kernel_init=initializers.identity()), log())
    with jax.debug_nans(True):
        assert searched(model, -jnp.ones((1, 2))).place == "serial[1] log()"


def test_integers_and_empty_arrays_are_finite():
    as_float = layers.parameterless(lambda x, *, key, train: (x.astype(jnp.float32), None), lambda residuals, dy: None)
    model = layers.serial(as_float, layers.dense(3))
    assert searched(model, jnp.ones((2, 3), int), target=jnp.ones((2, 3))) is None
    assert searched(model, jnp.ones((0, 3))) is None


def test_what_engines_refuse():
    x = jnp.ones((4, 3))
    model = layers.serial(layers.dense(3), layers.dropout(0.5))
    params, state = model.init(jax.random.key(0), x)
    with pytest.raises(DtypeError, match=r"^find_nonfinite: expected batch to be \(x, target\), .*, got a list"):
        find_nonfinite(model, loss, params, state, [x, x])
    with pytest.raises(MissingKeyError, match=r"serial\[1\] dropout\(0.5\): train=True draws random numbers"):
        find_nonfinite(model, loss, params, state, (x, x))
    with pytest.raises(ShapeError, match=r"serial\[0\] dense\(3\): expected .* for x of shape \(4, 2\), got \(3, 3\)"):
        find_nonfinite(model, loss, params, state, (x[:, :2], x))
    assert find_nonfinite(model, loss, params, state, (x, x), jax.random.key(1)) is None


def test_trees():
    """Named inputs and heads, a mask for each part, and weights."""
    towers = layers.each(words=embedding(5, 2), row=layers.identity())
    model = layers.serial(towers, layers.each(words=layers.dense(2), row=log()))
    parts = losses.weighted_sum(words=(1.0, loss), row=(1.0, loss))
    x = {"row": jnp.array([[1.0], [2.0]]), "words": np.array([1, 4])}
    params, state = model.init(jax.random.key(0), x)
    target = {"words": jnp.ones((2, 2)), "row": jnp.array([[0.0], [jnp.nan]])}

    def found(x=x, *options):
        return find_nonfinite(model, parts, params, state, (x, target, *options))

    assert found()[:4] == ("batch", "given", "target/row", (1, 0))
    where = {"row": np.array([True, False])}
    assert found(x, where) is None
    assert found(x, where, np.ones(2, np.float32)) is None
    assert found(x | {"row": x["row"].at[0, 0].set(jnp.inf)}, where)[:4] == ("batch", "given", "x/row", (0, 0))
    assert found(x | {"row": x["row"].at[0, 0].set(-1)}, where)[:3] == ("serial[1] each[row] log()", "forward", "y")
