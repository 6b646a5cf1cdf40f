"""Containers as walks: whose functions they call, what memory they save, trees, padding, and one position at a time."""

import re
from functools import partial
from importlib import import_module

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import quick_jit, worst_leaf
from source import code_lines_of

import funcnet as fn
from funcnet import trees
from funcnet.catalogue import highway
from funcnet.errors import ConfigError, DtypeError, ShapeError, StructureError
from funcnet.layers import (
    container,
    dense,
    dropout,
    each,
    gated,
    held,
    identity,
    layer,
    parallel,
    recompute,
    relu,
    repeat,
    residual,
    serial,
    sigmoid,
    softmax,
    tanh,
)  # fmt: skip
from funcnet.types import Padded, Rules

X = jnp.linspace(-1, 1, 12).reshape(4, 3)


def block(width=3):
    return serial(dense(width), tanh())


# A container calls the apply of what is inside, so that what a layer saves there it saves within containers.


def teller(told):
    """A layer that says which of its functions runs."""

    def forward(x, *, key, train):
        return x, None

    one = fn.layers.parameterless(forward, lambda residuals, dy: dy)

    def telling(role):
        def run(*args, **options):
            told.append(role)
            return getattr(one, role)(*args, **options)

        return run

    return one._replace(apply=telling("apply"), forward=telling("forward"), backward=telling("backward"))


CONTAINERS = {
    "serial": serial,
    "serial_named": lambda inner: serial(trunk=inner),
    "parallel": lambda inner: parallel(inner, identity()),
    "parallel_named": lambda inner: parallel(a=inner, b=identity()),
    "residual": residual,
    "residual_shortcut": lambda inner: residual(identity(), inner),
    "each": lambda inner: serial(parallel(identity(), identity(), combine=None), each(inner, identity())),
    "repeat": lambda inner: repeat(inner, 2),
    "recompute": recompute,
    "gated": gated,
    "held": held,
    "deep": lambda inner: serial(residual(repeat(recompute(serial(inner)), 2))),
}


@pytest.mark.parametrize("wrap", CONTAINERS.values(), ids=CONTAINERS.keys())
def test_apply_calls_apply_and_forward_keeps_what_backward_reads(wrap):
    told = []
    model = wrap(teller(told))
    params, state = model.init(jax.random.key(0), X)
    told.clear()
    y, _ = model.apply(params, state, X)
    assert set(told) == {"apply"}
    told.clear()
    _, _, residuals = model.forward(params, state, X)
    model.backward(params, residuals, jax.tree.map(jnp.ones_like, y))
    assert {"forward", "backward"} <= set(told)


def temporary_bytes(model, engine):
    x = jax.ShapeDtypeStruct((2048, 256), jnp.float32)
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)

    def step(params, state, x):
        if engine == "autodiff":
            return jax.grad(lambda params: jnp.sum(jnp.square(model.apply(params, state, x, train=True)[0])))(params)
        y, _, residuals = model.forward(params, state, x, train=True)
        return model.backward(params, residuals, 2 * y)[0]

    return jax.jit(step).lower(params, state, x).compile().memory_analysis().temp_size_in_bytes


def wide():
    return serial(*(one for _ in range(3) for one in (dense(256), tanh())))


WITHIN_REPEAT = {
    "itself": (lambda inner: repeat(inner, 8), 26.8),
    "residual": (lambda inner: repeat(residual(inner), 8), 28.8),
    "serial": (lambda inner: repeat(serial(inner, inner), 4), 35.5),
}


@pytest.mark.parametrize("wrap, most", WITHIN_REPEAT.values(), ids=WITHIN_REPEAT.keys())
@pytest.mark.parametrize("engine", ["autodiff", "backprop"])
def test_recompute_saves_memory_at_any_depth_within_repeat(compiled_as_usual, wrap, most, engine):
    """Megabytes at most; without recompute they are 107 and more, which the first row sees. A newer XLA takes less."""
    assert temporary_bytes(wrap(recompute(wide())), engine) / 2**20 < most + 0.1
    if most == 26.8:
        assert temporary_bytes(wrap(wide()), engine) / 2**20 > 106


@pytest.mark.parametrize(
    "wrap",
    [serial, residual, lambda inner: parallel(inner, inner), lambda inner: serial(a=residual(inner))],
    ids=["serial", "residual", "parallel", "deep"],
)
@pytest.mark.parametrize("engine", ["autodiff", "backprop"])
def test_elsewhere_the_lowered_program_computes_again(wrap, engine):
    """XLA's compiler for CPUs merges the second forward with the first; what it is given shows both."""

    def products_and_barriers(inner):
        model = wrap(inner)
        params, state = jax.eval_shape(model.init, jax.random.key(0), X)

        def step(params, x):
            if engine == "autodiff":
                return jax.value_and_grad(lambda params: jnp.sum(model.apply(params, state, x)[0]))(params)
            y, _, residuals = model.forward(params, state, x)
            return y, model.backward(params, residuals, jnp.ones_like(y))[0]

        text = jax.jit(step).lower(params, X).as_text()
        return text.count("dot_general"), text.count("optimization_barrier")

    (plain, none), (again, some) = products_and_barriers(block()), products_and_barriers(recompute(block()))
    assert none == 0
    assert some > 0
    assert again > plain


# Trees: dx and dy as the contracts say.


def both(model, x, dy, train=True, key=None):
    """`(dparams, dx)` by hand and by autodiff, in float64; `dy` may hold None."""
    params, state = model.init(jax.random.key(0), x)

    @quick_jit
    def run(params, x):
        y, _, residuals = model.forward(params, state, x, key=key, train=train)
        by_hand = model.backward(params, residuals, dy)
        y, vjp = jax.vjp(lambda params, x: model.apply(params, state, x, key=key, train=train)[0], params, x)
        dparams, dx = vjp(fn.gradients.cotangents.as_cotangent(y, dy))
        return by_hand, (dparams, fn.gradients.cotangents.as_gradient(dx))

    return run(params, x)


def number_of(i, shape):
    return jnp.asarray(np.random.default_rng(i).normal(size=shape))


def test_a_head_that_no_loss_reads_has_a_gradient_of_zeros(x64):
    told = []
    model = serial(dense(4), parallel(digit=dense(2), ink=serial(teller(told), dense(1))))
    x = number_of(0, (5, 3))
    params, state = model.init(jax.random.key(0), x)
    _, _, residuals = model.forward(params, state, x)
    told.clear()
    dparams, dx = model.backward(params, residuals, {"digit": number_of(1, (5, 2)), "ink": None})
    assert told == []  # it is not called
    assert trees.global_norm(dparams[1]["ink"]) == 0
    assert trees.global_norm(dparams[1]["digit"]) > 0
    zero = model.backward(params, residuals, {"digit": number_of(1, (5, 2)), "ink": jnp.zeros((5, 1))})
    assert worst_leaf((dparams, dx), zero) == 0
    nothing, none = model.backward(params, residuals, None)
    assert none is None
    assert trees.global_norm(nothing) == 0


TREES = {
    "two inputs": (
        serial(each(image=dense(2), text=dense(2))),
        {"image": (5, 3), "text": (5, 4)}, {"image": (5, 2), "text": (5, 2)},
    ),
    "tuples": (each(dense(2), tanh()), ((5, 3), (5, 4)), ((5, 2), (5, 4))),
    "two outputs": (parallel(a=dense(2), b=serial(dense(3), tanh())), (5, 3), {"a": (5, 2), "b": (5, 3)}),
    "residual of a tree": (residual(each(a=dense(3), b=tanh())), *[{"a": (5, 3), "b": (5, 2)}] * 2),
    "repeat of a tree": (repeat(each(dense(3), block(2)), 3), ((5, 3), (5, 2)), ((5, 3), (5, 2))),
    "recompute of a tree": (recompute(each(dense(3), block(2))), ((5, 3), (5, 2)), ((5, 3), (5, 2))),
    "branches on a tree": (parallel(each(dense(3), tanh()), identity()), ((5, 3), (5, 2)), ((5, 3), (5, 2))),
}  # fmt: skip


def drawn(shapes):
    is_shape = lambda node: isinstance(node, tuple) and all(isinstance(n, int) for n in node)  # noqa: E731
    leaves, structure = jax.tree.flatten(shapes, is_leaf=is_shape)
    return jax.tree.unflatten(structure, [number_of(i, shape) for i, shape in enumerate(leaves)])


@pytest.mark.parametrize("model, x, dy", TREES.values(), ids=TREES.keys())
def test_backward_of_trees_equals_autodiff(x64, model, x, dy):
    by_hand, by_autodiff = both(model, drawn(x), drawn(dy))
    assert worst_leaf(by_hand, by_autodiff) <= 1e-13


def test_none_in_dy_is_zero_everywhere(x64):
    """In an entry, in what is repeated, and of integers, which have no gradient."""
    model = repeat(each(a=dense(3), b=block(2)), 2)
    x = drawn({"a": (5, 3), "b": (5, 2)})
    by_hand, by_autodiff = both(model, x, {"a": None, "b": number_of(2, (5, 2))})
    assert worst_leaf(by_hand, by_autodiff) <= 1e-13
    tokens = {"a": number_of(1, (5, 3)), "b": jnp.arange(5)}
    (_, dx), _ = both(serial(each(a=dense(2), b=identity())), tokens, {"a": number_of(2, (5, 2)), "b": None})
    assert dx["b"] is None
    assert dx["a"].shape == (5, 3)


# Names


def test_names_are_the_paths_and_the_order_is_the_calls():
    model = serial(trunk=dense(4), between=relu(), head=dense(2))
    params, state = model.init(jax.random.key(0), X)
    assert [path for path, _ in trees.flatten_with_paths(params)] == [
        "head/bias", "head/kernel", "trunk/bias", "trunk/kernel",
    ]  # fmt: skip
    by_number = serial(dense(4), relu(), dense(2))
    assert jnp.array_equal(
        model.apply(params, state, X)[0], by_number.apply((params["trunk"], (), params["head"]), ((), (), ()), X)[0]
    )
    seen = []
    fn.layers.map_layers(lambda place, one: seen.append((place, str(one))) or one, model)
    assert seen == [("serial[trunk]", "dense(4)"), ("serial[between]", "relu()"), ("serial[head]", "dense(2)")]
    with pytest.raises(ShapeError, match=r"^serial\[head\] dense\(2\): expected params\['kernel'\] of shape \(4, 2\)"):
        model.apply(params | {"head": params["trunk"]}, state, X)
    with pytest.raises(
        StructureError, match=r"expected params with the entries \['between', 'head', 'trunk'\], got a tu"
    ):
        model.apply((1, 2), state, X)


@pytest.mark.parametrize(
    "call, message",
    [
        (
            lambda: serial(relu(), head=relu()),
            "expected all layers to have names or none, got 1 without a name and 1 with one",
        ),
        (lambda: each(combine=relu()), "expected names of layers, got 'combine', which is an option of parallel"),
        (lambda: serial(axis=relu()), "expected names of layers, got 'axis'"),
        (lambda: parallel(a=relu(), combine=relu()), 'expected combine to be "sum" or "concatenate"'),
        (
            lambda: serial(relu),
            r"^serial\(relu\): expected argument 0 to be a Layer, got a function .* call it: relu\(\)",
        ),
        (lambda: serial(jax.nn.relu), r"argument 0 to be a Layer, got .*; use layers\.relu\(\)\.$"),
        (lambda: residual(np.tanh), r"argument 0 to be a Layer, got .*; use layers\.tanh\(\)\.$"),
        (
            lambda: serial(jnp.sin),
            r"got .*; make it a layer, with its derivative: layers.elementwise\(sin, lambda x, y",
        ),
        (lambda: serial(lambda x: x), r"got .*; make it a layer, .*: layers.elementwise\(<lambda>, lambda x, y"),
        (lambda: serial([relu()]), r"expected argument 0 to be a Layer, got a tuple .* unpack it: \*layers"),
        (lambda: serial(a=3), "expected argument a to be a Layer, got 3; make it with layer"),
        (lambda: repeat(relu, 2), r"^repeat\(relu, 2\): expected argument 0 to be a Layer"),
        (lambda: parallel(), "expected at least one layer, got none"),
    ],
)
def test_what_is_not_a_layer_is_refused(call, message):
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize(
    "model, x, error, message",
    [
        (each(relu(), relu()), (X,), StructureError, r"expected x to be a tuple of 2 entries, one per layer, got a t"),
        (each(a=relu()), {"b": X}, StructureError, r"expected x to be a dictionary with the entries \['a'\], got a d"),
        (each(a=relu()), (X,), StructureError, r"with the entries \['a'\], got a tuple \(float32\[4, 3\],\)"),
        (dense(3), {"a": X}, StructureError, r"^dense\(3\): expected x to be one array, got a dict {a: float32"),
        (residual(parallel(relu(), relu(), combine=None)), X, StructureError, "expected outputs of one structure, got"),
        (residual(dense(2)), X, ShapeError, r"expected outputs of one shape and dtype, got \(4, 2\) float32, \(4, 3\)"),
        (repeat(dense(2), 2), X, ShapeError, r"to keep shape and dtype, got \(4, 3\) float32 -> \(4, 2\) float"),
        (parallel(relu(), dense(2)), X, ShapeError, "make the branches fit, for example with a dense shortcut"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_said_at_init(model, x, error, message):
    with pytest.raises(error, match=message):
        model.init(jax.random.key(0), x)


def test_layers_and_containers_are_few_lines():
    """Beside what is written once, in `layer` and `container`; 55 and 33 they were when each did all by itself."""
    assert code_lines_of(dense, import_module("funcnet.layers.dense").kernel_square) <= 36
    assert code_lines_of(serial) <= 22


# Containers of one's own


def test_a_container_of_ones_own(x64):
    model = highway(block(), serial(dense(3), sigmoid()))
    by_hand, by_autodiff = both(model, number_of(0, (4, 3)), number_of(1, (4, 3)))
    assert worst_leaf(by_hand, by_autodiff) <= 1e-13
    assert [place for place, _ in fn.layers.plain_layers(model)] == [
        "highway[0] serial[0]", "highway[0] serial[1]", "highway[1] serial[0]", "highway[1] serial[1]",
    ]  # fmt: skip
    again = fn.layers.map_layers(lambda place, one: one, model)
    assert again == model


@pytest.mark.parametrize(
    "walk, message",
    [
        (lambda run, x: (run(0, run(0, x)), None), "expected each layer to run once, got layer 0 twice"),
        (lambda run, x: (run(0, x), None), "expected walk to run all 2 layers, got 1 of them"),
    ],
)
def test_a_walk_runs_each_layer_once(walk, message):
    with pytest.raises(StructureError, match=message):
        container((relu(), tanh()), walk, lambda run, kept, dy: dy).init(jax.random.key(0), X)


# Padding


PADDED = {
    "dense": dense(3),
    "serial": serial(dense(4), relu(), dropout(0.5), dense(3), softmax()),
    "residual": residual(block()),
    "parallel": parallel(dense(2), block(), combine="concatenate"),
    "heads": parallel(a=dense(2), b=tanh()),
    "gated": gated(serial(dense(3), sigmoid())),
    "repeat": repeat(recompute(residual(block())), 2),
}


@pytest.mark.parametrize("model", PADDED.values(), ids=PADDED.keys())
def test_what_stands_at_padded_positions_moves_nothing(x64, model):
    where = jnp.arange(4) < jnp.array([4, 2, 0])[:, None]
    x = Padded(number_of(0, (3, 4, 3)), where)
    rubbish = Padded(jnp.where(where[..., None], x.values, 100 * number_of(1, (3, 4, 3))), where)
    key = jax.random.key(1)
    params, state = model.init(key, x)
    assert worst_leaf(params, model.init(key, jax.eval_shape(lambda: x))[0]) == 0

    def run(x):
        y, _, residuals = model.forward(params, state, x, key=key, train=True)
        marked = jax.tree.map(lambda leaf: jnp.where(where[..., None], leaf.values, 0), y, is_leaf=trees.is_padded)
        dy = jax.tree.map(lambda leaf: jnp.where(where[..., None], jnp.cos(leaf), 0), marked)
        return marked, model.backward(params, residuals, dy)

    y, (dparams, dx) = run(x)
    assert dx.shape == x.values.shape
    assert trees.global_norm(jnp.where(where[..., None], 0, dx)) == 0
    assert worst_leaf(run(rubbish), (y, (dparams, dx))) == 0
    plain = model.apply(params, state, x.values, key=key, train=True)[0]
    assert worst_leaf(jax.tree.map(lambda leaf: jnp.where(where[..., None], leaf, 0), plain), y) == 0


@pytest.mark.parametrize(
    "other", [fn.layers.flatten(), fn.layers.batch_norm(), fn.layers.conv(2, (3,)), softmax(axis=1)]
)
def test_layers_that_look_at_several_positions_refuse_padding(other):
    x = Padded(jnp.ones((2, 5, 3)), jnp.ones((2, 5), bool))
    with pytest.raises(StructureError, match=r"^serial\[0\] .*: expected x without padding, got a Padded batch"):
        serial(other).init(jax.random.key(0), x)


def test_positions_and_features_are_told_apart():
    """dense(12) on (8, 12) would mix times where features happen to equal time."""
    with pytest.raises(
        ShapeError, match=r"expected x\.values with 1 or more axes .* of x\.where, got values of shape \(8, 12\)"
    ):
        dense(12).init(jax.random.key(0), Padded(jnp.ones((8, 12)), jnp.ones((8, 12), bool)))


# One position at a time


@fn.constructor
def counting():
    """A toy sequence layer, y_t = Σ_{s ≤ t} x_s, whose cell carries the sum."""

    def cell_forward(params, state, x, *, key=None, train=False):
        total = x[0] + x[1]
        return (total, total), state, None

    def cell_backward(params, residuals, dy):
        return params, (dy[0] + dy[1],) * 2

    def start(params, state, x, length):
        return jnp.zeros(x.shape, x.dtype)

    cell = layer(cell_forward, cell_backward, trees=True, rules=Rules(start=start))

    def forward(params, state, x, *, key=None, train=False):
        return jnp.cumsum(x, 1), state, None

    def backward(params, residuals, dy):
        return params, jnp.flip(jnp.cumsum(jnp.flip(dy, 1), 1), 1)

    return layer(forward, backward, rules=Rules(cell=cell))


STEPPED = {
    "dense": dense(3),
    "dropout": serial(dropout(0.5), tanh()),
    "serial": serial(dense(4), relu(), dense(3)),
    "named": serial(trunk=block(), head=dense(2)),
    "toy": counting(),
    "toy within": serial(dense(3), residual(serial(counting(), dense(3))), parallel(a=counting(), b=block())),
    "recompute": recompute(serial(counting(), dense(2))),
    "repeat": repeat(recompute(residual(serial(counting(), dense(3)))), 2),
    "own container": highway(serial(counting(), tanh()), serial(dense(3), sigmoid())),
    "each": serial(parallel(a=identity(), b=dense(2)), each(a=counting(), b=tanh())),
}


@pytest.mark.parametrize("model", STEPPED.values(), ids=STEPPED.keys())
def test_one_position_at_a_time_equals_the_layer(x64, model):
    """In value and in gradient, by the cell's own backward, step by step in reverse."""
    x = number_of(0, (2, 5, 3))
    params, state = model.init(jax.random.key(0), x)
    cell = model.rules.cell
    steps = [x[:, t] for t in range(5)]
    start = cell.rules.start(params, state, steps[0], 5)
    assert jax.tree.map(jnp.shape, cell.init(jax.random.key(0), (start, steps[0]))[0]) == jax.tree.map(
        jnp.shape, params
    )

    y, _, residuals = model.forward(params, state, x)
    dy = jax.tree.map(lambda leaf: jnp.sin(3 * leaf), y)
    dparams, dx = model.backward(params, residuals, dy)

    carry, kept = start, []
    for t, x_t in enumerate(steps):
        (carry, y_t), _, own = cell.forward(params, state, (carry, x_t))
        kept.append(own)
        assert worst_leaf(y_t, jax.tree.map(partial(at, t), y)) <= 1e-14
    dcarry, total, dxs = jax.tree.map(jnp.zeros_like, carry), None, []
    for t in reversed(range(5)):
        own, (dcarry, dx_t) = cell.backward(params, kept[t], (dcarry, jax.tree.map(partial(at, t), dy)))
        total = own if total is None else jax.tree.map(jnp.add, total, own)
        dxs.insert(0, dx_t)
    assert worst_leaf((total, jnp.stack(dxs, 1)), (dparams, dx)) <= 1e-13


def at(t, leaf):
    return leaf[:, t]


@pytest.mark.parametrize("model", [serial(dense(3), fn.layers.flatten()), residual(fn.layers.batch_norm())])
def test_a_model_with_a_layer_that_sees_all_positions_has_no_cell(model):
    assert model.rules.cell is None


def test_held_runs_as_in_evaluation(x64):
    model = held(serial(dense(3), fn.layers.batch_norm(), dropout(0.5)))
    x = number_of(0, (6, 3))
    params, state = model.init(jax.random.key(0), x)
    y, after = model.apply(params, state, x, train=True)
    inner = model.inside.layers[0]
    assert worst_leaf((y, after), inner.apply(params, state, x)) == 0
    by_hand, by_autodiff = both(model, x, number_of(1, (6, 3)))
    assert worst_leaf(by_hand, by_autodiff) <= 1e-13


def test_a_dy_that_does_not_fit_is_refused_before_it_broadcasts():
    for model in (serial(relu(), dense(3)), gated(sigmoid()), residual(dense(3)), repeat(dense(3), 2)):
        params, state = model.init(jax.random.key(0), X)
        _, _, residuals = model.forward(params, state, X)
        with pytest.raises(ShapeError, match=r"expected dy of shape \(4, 3\) as y has, got \(1, 3\); the order"):
            model.backward(params, residuals, X[:1])
        with pytest.raises(DtypeError, match="expected dy of dtype float32 as y has, got float16; convert it"):
            model.backward(params, residuals, X.astype(jnp.float16))
    heads = parallel(a=dense(2), b=dense(1))
    params, state = heads.init(jax.random.key(0), X)
    _, _, residuals = heads.forward(params, state, X)
    with pytest.raises(
        StructureError, match=r"expected dy to be a tree like y, a dict {a: float32\[4, 2\], b: float32\[4, 1"
    ):
        heads.backward(params, residuals, X)


def test_errors_of_a_backward_name_the_place():
    """A mistake of an own container is told by the layer that it runs."""
    model = serial(
        relu(), container((dense(3),), lambda run, x: (run(0, x), None), lambda run, kept, dy: run(0, dy[:1]))
    )
    params, state = model.init(jax.random.key(0), X)
    _, _, residuals = model.forward(params, state, X)
    with pytest.raises(
        ShapeError, match=re.escape("serial[1] container[0] dense(3): expected dy of shape (4, 3) as y has")
    ):
        model.backward(params, residuals, X)


@pytest.mark.parametrize("engine", [fn.gradients.backprop, fn.gradients.autodiff])
def test_programs_carry_the_names_of_layers(engine):
    """So that a profile says which layer an operation is of."""
    model = serial(dense(3), residual(parallel(a=dense(3), b=tanh(), combine="sum")), dense(2))
    x = jnp.ones((4, 3))
    params, state = model.init(jax.random.key(0), x)
    lowered = jax.jit(engine(model, fn.losses.mean_squared_error)).lower(params, state, (x, x[:, :2]))
    paths = set(re.findall(r'/((?:forward|backward|jvp)[^"]*dot_general)"', lowered.as_text(debug_info=True)))
    inner = "1_residual/0_parallel/a_dense/dot_general"
    if engine is fn.gradients.backprop:
        assert {f"forward/{inner}", f"backward/{inner}", "forward/2_dense/dot_general"} <= paths
    else:
        assert {f"jvp({inner.partition('/')[0]})/{inner.partition('/')[2]}"} <= paths
