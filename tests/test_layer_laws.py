"""Every layer obeys every law. The table is in layer_cases.py."""

from functools import cache

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import ALL_CASES, CASES, TREES, draw, draw_shapes, in_modes
from numerics import quick_jit, richardson, usual_jit, worst_element, worst_leaf

from funcnet import gradients, layers, models
from funcnet.checking.programs import same_program
from funcnet.checking.subjects import joined, parted
from funcnet.errors import DtypeError, MissingKeyError, ShapeError, StructureError
from funcnet.gradients.cotangents import as_cotangent, as_gradient

pytestmark = pytest.mark.usefixtures("compiled_as_usual")

every_case = pytest.mark.parametrize("case", ALL_CASES.values(), ids=ALL_CASES.keys())
IN_MODES = in_modes(ALL_CASES)
every_mode = pytest.mark.parametrize("case, train", IN_MODES.values(), ids=IN_MODES.keys())


def test_every_public_constructor_has_a_row():
    machinery = {
        "accumulated", "as_custom_vjp", "autodiff", "backprop", "map_layers", "merged", "per_example",
        "per_example_norms", "plain_layers", "saliency", "within",
    }  # fmt: skip
    large = {"lenet", "mobilenet", "resnet", "vgg"}  # in test_models.py, which goes through all of them
    public = {*layers.__all__, *gradients.__all__, *models.__all__} - machinery - large
    assert public == {name for name in public if any(row.startswith(name) for row in ALL_CASES)}


def both_gradients(layer, params, state, x, key, train, dy):
    """`(dparams, dx)` by hand and by autodiff of `apply`."""
    _, _, residuals = layer.forward(params, state, x, key=key, train=train)
    by_hand = layer.backward(params, residuals, dy)
    y, vjp = jax.vjp(lambda params, x: layer.apply(params, state, x, key=key, train=train)[0], params, x)
    return by_hand, as_gradient(vjp(as_cotangent(y, dy)))


_compiled = {
    name: quick_jit(lambda *args, c=case, t=train: both_gradients(c.layer, *args[:4], t, args[4]))
    for name, (case, train) in IN_MODES.items()
}


def passes(layer, train):
    """`(params, state, x, key, dy) -> y, (dparams, dx)`"""

    def run(params, state, x, key, dy):
        y, _, residuals = layer.forward(params, state, x, key=key, train=train)
        return y, layer.backward(params, residuals, dy)

    return run


@cache
def compiled_passes(layer, train):
    """For several laws."""
    return quick_jit(passes(layer, train))


def random_dy(layer, params, state, x, key, train, seed=9):
    y = jax.eval_shape(lambda *a: layer.apply(*a, key=key, train=train)[0], params, state, x)
    random = np.random.default_rng([seed, 1])  # not those of x
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape), leaf.dtype), slopes(y))


def slopes(tree):
    """Its floating leaves, as a gradient of it has them."""
    return parted(tree)[0]


def like(x, *functions):
    """Inputs like one, its floating numbers by these functions, stacked."""

    def stacked(leaf):
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return np.stack([function(np.asarray(leaf)) if floating else leaf for function in functions])

    return jax.tree.map(stacked, x)


@pytest.mark.parametrize("name", IN_MODES)
@settings(max_examples=5)
@given(batch=st.integers(1, 4), width=st.integers(1, 4), seed=st.integers(0, 2**16))
def test_backward_equals_autodiff(name, batch, width, seed):
    case, train = IN_MODES[name]
    with jax.enable_x64(True):
        params, state, x, key = draw(case, seed, batch, width)
        dy = random_dy(case.layer, params, state, x, key, train, seed)
        by_hand, by_autodiff = _compiled[name](params, state, x, key, dy)
        chex.assert_trees_all_equal_shapes_and_dtypes(by_hand, by_autodiff)
        assert worst_leaf(by_hand, by_autodiff) <= 1e-13


SMOOTH = in_modes(CASES | TREES)


@pytest.mark.parametrize("case, train", SMOOTH.values(), ids=SMOOTH.keys())
def test_backward_equals_finite_differences(x64, case, train):
    layer = case.layer
    params, state, x, key = draw(case)
    dy = random_dy(layer, params, state, x, key, train)
    floating, rest = parted(x)

    def objective(tree):
        y, _ = layer.apply(tree[0], state, joined(rest, tree[1]), key=key, train=train)
        return sum(map(jnp.vdot, jax.tree.leaves(slopes(y)), jax.tree.leaves(dy)))

    _, by_hand = compiled_passes(layer, train)(params, state, x, key, dy)
    assert worst_element(by_hand, richardson(objective, (params, floating))) <= 1e-6


@every_mode
def test_jit_equals_eager(x64, case, train):
    """forward and backward are compiled apart, so the residuals cross two jit boundaries."""
    layer = case.layer
    params, state, x, key = draw(case)
    dy = random_dy(layer, params, state, x, key, train)
    y, new_state, residuals = layer.forward(params, state, x, key=key, train=train)
    compiled = jax.jit(layer.forward, static_argnames="train")(params, state, x, key=key, train=train)
    assert worst_leaf(compiled[:2], (y, new_state)) <= 1e-14
    eager = layer.backward(params, residuals, dy)
    assert worst_leaf(jax.jit(layer.backward)(params, compiled[2], dy), eager) <= 1e-14


@pytest.mark.parametrize("name", [name for name in ALL_CASES if f"{name}-evaluation" not in IN_MODES])
def test_modes_are_one_program_where_they_do_not_differ(name):
    """What makes it enough to look at most layers in training."""
    case = ALL_CASES[name]
    params, state, x, key = draw_shapes(case, jnp.float32)

    def program(train):
        def run(params, state, x, key):
            y, new_state, residuals = case.layer.forward(params, state, x, key=key, train=train)
            return y, new_state, case.layer.backward(params, residuals, slopes(y))

        return str(jax.make_jaxpr(run)(params, state, x, key))

    assert program(True) == program(False)


@every_case
def test_apply_is_forward_without_residuals(x64, case):
    """In one program, as XLA may round two programs of the same operations differently."""

    @quick_jit
    def both(params, state, x, key):
        args, options = (params, state, x), {"key": key, "train": True}
        return case.layer.apply(*args, **options), case.layer.forward(*args, **options)[:2]

    assert worst_leaf(*both(*draw(case))) == 0


@every_mode
def test_vmap_equals_a_loop(x64, case, train):
    layer = case.layer
    params, state, x, key = draw(case)
    xs, keys = like(x, lambda x: x, lambda x: 2 * x + 1, lambda x: -x), jax.random.split(key, 3)
    dy = random_dy(layer, params, state, x, key, train)  # never ones: of a softmax they give rounding noise

    run, at = compiled_passes(layer, train), lambda i: jax.tree.map(lambda leaf: leaf[i], xs)
    looped = [run(params, state, at(i), keys[i], dy) for i in range(3)]
    stacked = jax.tree.map(lambda *leaves: np.stack(leaves), *looped)
    vmapped = quick_jit(jax.vmap(passes(layer, train), (None, None, 0, 0, None)))
    assert worst_leaf(vmapped(params, state, xs, keys, dy), stacked) <= 1e-14


@every_case
def test_residuals_cross_scan(x64, case):
    """The training loop runs forward and backward inside a scan; residuals may also be its outputs."""

    @quick_jit
    def run(params, state, x, key):
        def step(carry, x):
            return carry, _plain(case.layer.forward(params, state, x, key=key, train=True)[2])

        return jax.lax.scan(step, 0, xs)[1], step(0, x)[1]

    params, state, x, key = draw(case)
    xs = like(x, lambda x: -x, lambda x: x)
    stacked, residuals = run(params, state, x, key)
    assert worst_leaf(jax.tree.map(lambda leaf: np.asarray(leaf)[1], stacked), residuals) <= 1e-14


def _plain(tree):
    """Keys as numbers."""
    is_key = lambda leaf: jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)  # noqa: E731
    return jax.tree.map(lambda leaf: jax.random.key_data(leaf) if is_key(leaf) else leaf, tree)


@every_case
def test_init_reads_only_shape_and_dtype(case):
    def program(x):
        return jax.make_jaxpr(lambda key: case.layer.init(key, x))(jax.random.key(0))

    def ones(batch):
        return jax.tree.map(lambda leaf: jnp.ones(leaf.shape, leaf.dtype), case.example(batch, 2))

    from_shape = program(case.example(3, 2))
    assert same_program(program(ones(3)), from_shape)
    assert same_program(program(ones(5)), from_shape)


@every_mode
@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("wide", [False, True], ids=["x32", "x64"])
def test_dtype_is_kept(case, dtype, wide, train):
    def run(params, state, x, key):
        y, new_state, residuals = case.layer.forward(params, state, x, key=key, train=train)
        return slopes(y), new_state, case.layer.backward(params, residuals, slopes(y))

    with jax.enable_x64(wide):
        params, state, x, key = draw_shapes(case, dtype)
        y, new_state, (dparams, dx) = jax.eval_shape(run, params, state, x, key)
    assert {leaf.dtype for leaf in jax.tree.leaves((y, dx))} == {jnp.dtype(dtype)}
    chex.assert_trees_all_equal_shapes_and_dtypes(dx, slopes(x))
    chex.assert_trees_all_equal_shapes_and_dtypes(params, dparams)
    chex.assert_trees_all_equal_shapes_and_dtypes(state, new_state)


@every_mode
def test_float32_is_close_to_float64(case, train):
    def cast(tree):
        floating = lambda leaf: jnp.issubdtype(leaf.dtype, jnp.floating)  # noqa: E731
        return jax.tree.map(lambda leaf: jnp.asarray(leaf, np.float64) if floating(leaf) else leaf, tree)

    with jax.enable_x64(True):
        params, state, x, key = draw(case, dtype=jnp.float32)
        dy = random_dy(case.layer, params, state, x, key, train)
        single = usual_jit(passes(case.layer, train))(params, state, x, key, dy)
        double = compiled_passes(case.layer, train)(cast(params), cast(state), cast(x), key, cast(dy))
    assert worst_leaf(single, double) <= 1e-6


@every_case
def test_one_trace_for_new_data(case):
    """A gradient in the place of the parameters and dx in that of x are as good: no weak type, say, comes in."""
    params, state, x, key = draw_shapes(case, jnp.float32)
    floating, rest = parted(x)
    chex.clear_trace_counter()

    @jax.jit
    @chex.assert_max_traces(1)
    def run(params, state, x, key):
        y, new_state, residuals = case.layer.forward(params, state, joined(*x), key=key, train=True)
        return *case.layer.backward(params, residuals, slopes(y)), new_state

    dparams, dx, new_state = jax.eval_shape(run, params, state, (rest, floating), key)
    jax.eval_shape(run, dparams, new_state, (rest, dx), key)


@every_case
def test_evaluation_needs_no_key_and_keeps_the_state(x64, case):
    params, state, x, key = draw(case)
    y, new_state = case.layer.apply(params, state, x)
    chex.assert_trees_all_equal((y, new_state), (case.layer.apply(params, state, x, key=key)[0], state))


@every_case
def test_training_is_a_function_of_the_key(x64, case):
    params, state, x, key = draw(case, batch=40)
    run = quick_jit(lambda key: case.layer.apply(params, state, x, key=key, train=True)[0])
    chex.assert_trees_all_equal(run(key), run(key))
    other = run(jax.random.split(key)[0])
    same = jax.tree.all(jax.tree.map(np.array_equal, run(key), other))
    assert same == (not case.random or str(case.layer) == "dropout(0)")


@pytest.mark.parametrize("name", [name for name, case in ALL_CASES.items() if case.random and name != "automatic"])
def test_a_missing_key_is_named(name):
    case = ALL_CASES[name]
    params, state, x, _ = draw(case, dtype=jnp.float32)
    with pytest.raises(MissingKeyError, match=r"(dropout|rrelu)\(.*\): train=True draws random numbers, got key=None"):
        case.layer.apply(params, state, x, train=True)


@every_case
def test_misuse_is_named(case):
    layer = case.layer
    params, state, x, key = draw(case, dtype=jnp.float32)
    with pytest.raises(DtypeError, match=r"expected key to be a PRNG key, got an? .* the order is init\(key, x\)"):
        layer.init(x, key)
    with pytest.raises(DtypeError, match="expected x to be an array or jax.ShapeDtypeStruct, got a tuple"):
        layer.init(key, (3, 2))
    with pytest.raises(DtypeError, match="expected train to be a Python bool"):
        layer.apply(params, state, x, train=jnp.array(True))
    if jax.tree.leaves(params) and case is not ALL_CASES["automatic"]:
        with pytest.raises(StructureError, match=r"the order is apply\(params, state, x\)"):
            layer.apply((), params, x)


PLAIN = sorted(set(layers.__all__) - {
    "container", "each", "held", "map_layers", "merged", "parallel", "plain_layers", "recompute", "repeat", "residual",
    "serial", "within",
})  # fmt: skip
COMPUTING = [name for name in PLAIN if name not in ("flatten", "identity", "layer", "parameterless", "reshape")]


@pytest.mark.parametrize("name", PLAIN)
def test_a_cotangent_of_another_shape_or_dtype_is_refused(name):
    """One that only broadcasts would give a wrong gradient in silence."""
    case = ALL_CASES[name]

    def misused(params, state, x, key):
        y, _, residuals = case.layer.forward(params, state, x, key=key, train=True)
        with pytest.raises(ShapeError, match=r"expected dy of shape \(3, [\d, ]+\) as y has, got \(1, [\d, ]+\)"):
            case.layer.backward(params, residuals, y[:1])
        with pytest.raises(ShapeError, match=r"got 1.0; the order is backward\(params, residuals, dy\)"):
            case.layer.backward(params, residuals, 1.0)
        with pytest.raises(DtypeError, match="expected dy of dtype float32 as y has, got bfloat16"):
            case.layer.backward(params, residuals, y.astype(jnp.bfloat16))

    jax.eval_shape(misused, *draw_shapes(case, jnp.float32))


@pytest.mark.parametrize("name", COMPUTING)
def test_integer_input_is_refused(name):
    case = ALL_CASES[name]
    params, state, x, _ = draw(case, dtype=jnp.float32)
    with pytest.raises(DtypeError, match="expected x of a floating dtype, got an array of dtype uint8"):
        case.layer.apply(params, state, x.astype(jnp.uint8))
