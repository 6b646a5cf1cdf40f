"""Every layer obeys every law, in each form that the catalogue has."""

from functools import cache
from zlib import crc32

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from layer_cases import CASES, SMOOTH, as_array, draw, draw_shapes, in_modes
from numerics import quick_jit, richardson, usual_jit, worst_element, worst_leaf

from funcnet import layers
from funcnet.catalogue import LARGE_MODELS
from funcnet.checking.programs import same_program
from funcnet.checking.subjects import joined, parted
from funcnet.errors import DtypeError, MissingKeyError, ShapeError, StructureError
from funcnet.gradients.cotangents import as_cotangent, as_gradient
from funcnet.trees import apart, is_whole, map_leaves

every_case = pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
IN_MODES = in_modes(CASES)
every_mode = pytest.mark.parametrize("case, train", IN_MODES.values(), ids=IN_MODES.keys())


# The programs of a layer in a mode, which all laws share. Nearly all their time goes into compiling these.


@cache
def compiled_forward(layer, train):
    """`(params, state, x, key) -> (y, state), (y, state, residuals)` of `apply` and `forward`, in one program."""

    def run(params, state, x, key):
        return tuple(f(params, state, x, key=key, train=train) for f in (layer.apply, layer.forward))

    return quick_jit(run)


@cache
def compiled_backward(layer, train):
    """`(params, state, x, key, residuals, dy) -> (dparams, dx)` by hand and by autodiff of `apply`."""

    def run(params, state, x, key, residuals, dy):
        y, vjp = jax.vjp(lambda params, x: layer.apply(params, state, x, key=key, train=train)[0], params, x)
        return layer.backward(params, residuals, dy), as_gradient(vjp(as_cotangent(y, dy)))

    return quick_jit(run)


def compiled_passes(layer, train, params, state, x, key, dy):
    """`y, (dparams, dx)`; the residuals cross two jit boundaries."""
    _, (y, _, residuals) = compiled_forward(layer, train)(params, state, x, key)
    return y, compiled_backward(layer, train)(params, state, x, key, residuals, dy)[0]


@cache
def compiled_stacks(layer, train):
    """Both passes under `vmap`; and residuals out of a `scan`, beside those of its last entry."""

    def run(params, state, xs, keys, dy):
        def step(carry, x):
            return carry, _plain(layer.forward(params, state, x, key=keys[0], train=train)[2])

        vmapped = jax.vmap(passes(layer, train), (None, None, 0, 0, None))(params, state, xs, keys, dy)
        return vmapped, jax.lax.scan(step, 0, xs)[1], step(0, jax.tree.map(lambda leaf: leaf[-1], xs))[1]

    return quick_jit(run)


def passes(layer, train):
    """`(params, state, x, key, dy) -> y, (dparams, dx)`"""

    def run(params, state, x, key, dy):
        y, _, residuals = layer.forward(params, state, x, key=key, train=train)
        return y, layer.backward(params, residuals, dy)

    return run


def random_dy(layer, params, state, x, key, train, seed=9):
    y = jax.eval_shape(lambda *a: layer.apply(*a, key=key, train=train)[0], params, state, x)
    random = np.random.default_rng([seed, 1])  # not those of x
    return jax.tree.map(lambda leaf: as_array(random.normal(size=leaf.shape), leaf.dtype), slopes(y))


def slopes(tree):
    """Its floating leaves, as a gradient of it has them."""
    return parted(tree)[0]


def like(x, *functions):
    """Inputs like one, its floating numbers by these functions, stacked."""

    def stacked(leaf):
        floating = jnp.issubdtype(leaf.dtype, jnp.floating)
        return np.stack([function(np.asarray(leaf)) if floating else leaf for function in functions])

    return jax.tree.map(stacked, x)


SIZES = [(batch, width) for batch in (1, 2, 3, 4) for width in (1, 2, 3, 4) if (batch, width) != (3, 2)]


@pytest.mark.parametrize("name", IN_MODES)
@settings(max_examples=3)
@given(seed=st.integers(0, 2**16))
def test_backward_equals_autodiff(name, seed):
    """At the size of the other laws, and at another one, which differs from row to row."""
    case, train = IN_MODES[name]
    with jax.enable_x64(True):
        for batch, width in ((3, 2), SIZES[crc32(name.encode()) % len(SIZES)]):
            params, state, x, key = draw(case, seed, batch, width)
            dy = random_dy(case.layer, params, state, x, key, train, seed)
            _, (_, _, residuals) = compiled_forward(case.layer, train)(params, state, x, key)
            by_hand, by_autodiff = compiled_backward(case.layer, train)(params, state, x, key, residuals, dy)
            chex.assert_trees_all_equal_shapes_and_dtypes(by_hand, by_autodiff)
            assert worst_leaf(by_hand, by_autodiff) <= 1e-13


@pytest.mark.parametrize("case, train", in_modes(SMOOTH).values(), ids=in_modes(SMOOTH))
def test_backward_equals_finite_differences(x64, case, train):
    layer = case.layer
    params, state, x, key = draw(case)
    dy = random_dy(layer, params, state, x, key, train)
    floating, rest = parted(x)

    def objective(tree):
        y, _ = layer.apply(tree[0], state, joined(rest, tree[1]), key=key, train=train)
        return sum(map(jnp.vdot, jax.tree.leaves(slopes(y)), jax.tree.leaves(dy)))

    _, by_hand = compiled_passes(layer, train, params, state, x, key, dy)
    assert worst_element(by_hand, richardson(objective, (params, floating))) <= 1e-6


@every_mode
def test_jit_equals_eager(x64, case, train):
    layer = case.layer
    params, state, x, key = draw(case)
    dy = random_dy(layer, params, state, x, key, train)
    y, new_state, residuals = layer.forward(params, state, x, key=key, train=train)
    _, compiled = compiled_forward(layer, train)(params, state, x, key)
    assert worst_leaf(compiled[:2], (y, new_state)) <= 1e-14
    by_hand, _ = compiled_backward(layer, train)(params, state, x, key, compiled[2], dy)
    assert worst_leaf(by_hand, layer.backward(params, residuals, dy)) <= 1e-14


@pytest.mark.parametrize(
    "name", [name for name, case in (CASES | LARGE_MODELS).items() if not case.random and not case.counts]
)
def test_modes_are_one_program_where_they_do_not_differ(name):
    """What makes it enough to look at most layers in training."""
    case = (CASES | LARGE_MODELS)[name]
    params, state, x, key = draw_shapes(case, jnp.float32)

    def program(train):
        def run(params, state, x, key):
            y, new_state, residuals = case.layer.forward(params, state, x, key=key, train=train)
            return y, new_state, case.layer.backward(params, residuals, slopes(y))

        return str(jax.make_jaxpr(run)(params, state, x, key))

    assert program(True) == program(False)


@every_mode
def test_apply_is_forward_without_residuals(x64, case, train):
    """To the bit, but for loops: XLA may round one that keeps its residuals differently."""
    program, args = compiled_forward(case.layer, train), draw(case)
    applied, forwarded = program(*args)
    assert worst_leaf(applied, forwarded[:2]) <= (1e-15 if "scan[" in str(program.trace(*args).jaxpr) else 0)


def stacks(case, train):
    """Three inputs and keys, a dy, and what `compiled_stacks` makes of them."""
    params, state, x, key = draw(case)
    xs, keys = like(x, lambda x: x, lambda x: 2 * x + 1, lambda x: -x), jax.random.split(key, 3)
    dy = random_dy(case.layer, params, state, x, key, train)  # never ones: of a softmax they give rounding noise
    return xs, keys, dy, compiled_stacks(case.layer, train)(params, state, xs, keys, dy)


@every_mode
def test_vmap_equals_a_loop(x64, case, train):
    params, state, _, _ = draw(case)
    xs, keys, dy, (vmapped, *_) = stacks(case, train)
    looped = [
        compiled_passes(case.layer, train, params, state, jax.tree.map(lambda leaf, i=i: leaf[i], xs), keys[i], dy)
        for i in range(3)
    ]
    assert worst_leaf(vmapped, jax.tree.map(lambda *leaves: np.stack(leaves), *looped)) <= 1e-14


@every_mode
def test_residuals_cross_scan(x64, case, train):
    """The training loop runs forward and backward inside a scan; residuals may also be its outputs."""
    *_, (_, scanned, last) = stacks(case, train)
    assert worst_leaf(jax.tree.map(lambda leaf: np.asarray(leaf)[-1], scanned), last) <= 1e-14


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
        return jax.tree.map(lambda leaf: as_array(leaf, np.float64) if floating(leaf) else leaf, tree)

    with jax.enable_x64(True):
        params, state, x, key = draw(case, dtype=jnp.float32)
        dy = random_dy(case.layer, params, state, x, key, train)
        single = usual_jit(passes(case.layer, train))(params, state, x, key, dy)
        double = compiled_passes(case.layer, train, cast(params), cast(state), cast(x), key, cast(dy))
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
    params, state, x, key = draw(case, batch=40 if case.random else 3)  # so many that two draws of them differ

    def run(key):
        (y, _), _ = compiled_forward(case.layer, True)(params, state, x, key)
        return y

    chex.assert_trees_all_equal(run(key), run(key))
    other = run(jax.random.split(key)[0])
    same = jax.tree.all(jax.tree.map(np.array_equal, run(key), other))
    assert same == (not case.random or str(case.layer) == "dropout(0)")


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.random and name != "automatic"])
def test_a_missing_key_is_named(name):
    case = CASES[name]
    params, state, x, _ = draw(case, dtype=jnp.float32)
    with pytest.raises(
        MissingKeyError, match=r"(attention|dropout|rrelu)\(.*\): train=True draws random numbers, got key=None"
    ):
        case.layer.apply(params, state, x, train=True)


@pytest.mark.parametrize("name", [name for name in CASES if name != "batch_norm"])  # which needs two numbers
def test_no_rows(name):
    """An empty batch gives an empty output and a gradient of zeros."""
    case = CASES[name]
    layer, key = case.layer, jax.random.key(0)
    x = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), case.example(0, 2))

    def passes(key):
        params, state = layer.init(key, x)
        y, _, residuals = layer.forward(params, state, x, key=key, train=True)
        of_rows = map_leaves(lambda leaf, dy: None if is_whole(leaf) else dy, y, slopes(y))
        return y, layer.backward(params, residuals, of_rows)

    y, (dparams, _) = quick_jit(passes)(key)
    assert name == "batch_norm_features" or all(leaf.shape[0] == 0 for leaf in jax.tree.leaves(apart(y)[0]))
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(dparams))


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
    if jax.tree.leaves(params) and case is not CASES["automatic"]:
        with pytest.raises(StructureError, match=r"the order is apply\(params, state, x\)"):
            layer.apply((), params, x)


PLAIN = sorted(set(layers.__all__) - {
    "bidirectional", "container", "deferred", "each", "gru_cell", "held", "lstm_cell", "map_layers", "merged",
    "over_time", "parallel", "plain_layers", "recompute", "repeat", "residual", "rnn_cell", "scan", "serial", "tied",
    "transformer_block", "within",
})  # fmt: skip
COMPUTING = sorted({*PLAIN} - {"embedding", "flatten", "identity", "layer", "parameterless", "reshape"})


@pytest.mark.parametrize("name", PLAIN)
def test_a_cotangent_of_another_shape_or_dtype_is_refused(name):
    """One that only broadcasts would give a wrong gradient in silence."""
    case = CASES[name]

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
    case = CASES[name]
    params, state, x, _ = draw(case, dtype=jnp.float32)
    with pytest.raises(DtypeError, match="expected x of a floating dtype, got an array of dtype uint8"):
        case.layer.apply(params, state, x.astype(jnp.uint8))
