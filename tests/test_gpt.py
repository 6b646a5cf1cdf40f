"""GPT-2 by hand: its sizes, its values by NumPy, both engines, one position at a time, and what goes wrong where."""

import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import quick_jit, usual_jit, worst_leaf

from funcnet import checking, checkpoints, gradients, layers, losses, models, optimizers, summaries, training, trees
from funcnet.errors import ConfigError, DataError
from funcnet.types import Padded

KEY = jax.random.key(0)
WORDS = np.array([[1, 0, 4, 2, 2], [3, 3, 1, 0, 4]])
NEXT = np.array([[0, 4, 2, 2, 1], [3, 1, 0, 4, 3]])
GPT = models.gpt(5, 6, blocks=2, features=4, heads=2)
SHAPE = jax.ShapeDtypeStruct((2, 5), jnp.int32)


def drawn(model):
    """Parameters that are no zeros, in float64 where that is on."""
    params, state = jax.eval_shape(lambda: model.init(KEY, SHAPE))
    random = np.random.default_rng(0)
    return jax.tree.map(lambda leaf: jnp.asarray(random.normal(size=leaf.shape) / 2), params), state


@pytest.mark.parametrize(
    "sizes, with_key_biases",
    [
        ({}, 124_439_808),
        ({"blocks": 24, "features": 1024, "heads": 16}, 354_823_168),
        ({"blocks": 48, "features": 1600, "heads": 25, "repeat": True}, 1_557_611_200),
    ],
    ids=["small", "medium", "xl"],
)
def test_the_sizes_of_gpt_2(sizes, with_key_biases):
    """As they are published, less the biases of keys."""
    model = models.gpt(50257, 1024, **sizes)
    params, _ = jax.eval_shape(model.init, KEY, SHAPE)
    arguments = {"blocks": 12, "features": 768} | sizes
    assert trees.total_size(params) == with_key_biases - arguments["blocks"] * arguments["features"]


def by_numpy(params, words):
    """The scores, position by position."""

    def norm(p, x):
        x = x - x.mean(-1, keepdims=True)
        return p["scale"] * x / np.sqrt((x * x).mean(-1, keepdims=True) + 1e-5) + p["bias"]

    def gelu(x):
        return 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)))

    h = params["words"]["embedding"][words] + params["positions"]["embedding"][: words.shape[1]]
    for ((norm1, looks),), ((norm2, wide, _, narrow),) in params["blocks"]:
        x, out = norm(norm1, h), np.zeros_like(h)
        q = (x @ looks["query_kernel"] + looks["query_bias"]).reshape(*words.shape, 2, 2)
        k = (x @ looks["key_kernel"]).reshape(*words.shape, 2, 2)
        v = (x @ looks["value_kernel"] + looks["value_bias"]).reshape(*words.shape, 2, 2)
        for b, t, head in np.ndindex(*words.shape, 2):
            w = np.exp(k[b, : t + 1, head] @ q[b, t, head] / math.sqrt(2))
            out[b, t, 2 * head : 2 * head + 2] = (w / w.sum()) @ v[b, : t + 1, head]
        h = h + out @ looks["out_kernel"] + looks["out_bias"]
        h = h + gelu(norm(norm2, h) @ wide["kernel"] + wide["bias"]) @ narrow["kernel"] + narrow["bias"]
    return norm(params["norm"], h) @ params["words"]["embedding"].T


def test_scores_by_numpy(x64):
    params, state = drawn(GPT)
    y, _ = GPT.apply(params, state, WORDS)
    np.testing.assert_allclose(y, by_numpy(jax.tree.map(np.asarray, params), WORDS), rtol=1e-11, atol=1e-12)


def test_both_engines_and_both_forms(x64):
    """By hand as by autodiff, block by block as in one loop; and what is padded changes neither loss nor gradient."""
    params, state = drawn(GPT)
    stacked = models.gpt(5, 6, blocks=2, features=4, heads=2, repeat=True)
    stack = {**params, "blocks": jax.tree.map(lambda *leaves: jnp.stack(leaves), *params["blocks"])}
    loss, (_, stacked_state) = losses.softmax_cross_entropy, jax.eval_shape(lambda: stacked.init(KEY, SHAPE))

    @quick_jit
    def run(params, stack, batch):
        found = [engine(GPT, loss)(params, state, batch)[:2] for engine in (gradients.autodiff, gradients.backprop)]
        return found, gradients.backprop(stacked, loss)(stack, stacked_state, batch)[:2]

    there = np.array([[True] * 5, [True, True, False, False, False]])
    (by_autodiff, by_hand), in_a_loop = run(params, stack, (Padded(WORDS, there), NEXT))
    assert worst_leaf(by_hand, by_autodiff) <= 1e-12
    one, grads = in_a_loop
    again = {**grads, "blocks": tuple(jax.tree.map(lambda leaf, i=i: leaf[i], grads["blocks"]) for i in range(2))}
    assert worst_leaf((one, again), by_hand) <= 1e-12
    rubbish = Padded(np.where(there, WORDS, 77), there)
    assert worst_leaf(run(params, stack, (rubbish, NEXT))[0][1], by_hand) == 0


@pytest.mark.parametrize("repeat", [False, True], ids=["serial", "repeat"])
def test_one_word_at_a_time(x64, repeat):
    model = models.gpt(5, 6, blocks=2, features=4, heads=2, repeat=repeat)
    params, state = drawn(model)
    cell = model.rules.cell
    words = jnp.asarray(WORDS)
    start = cell.rules.start(params, state, words[:, 0], 5)

    @quick_jit
    def stepped(params, words):
        def step(carry, word):
            (carry, y), _ = cell.apply(params, state, (carry, word))
            return carry, y

        return jnp.swapaxes(jax.lax.scan(step, start, words.T)[1], 0, 1)

    assert worst_leaf(stepped(params, words), model.apply(params, state, words)[0]) <= 1e-12


def test_a_wrong_layer_is_located():
    """A backward of the second block's attention that forgets one of its terms."""

    def spoiled(place, layer):
        if layer.made.constructor is not layers.attention or "blocks] serial[1]" not in place:
            return layer

        def backward(params, residuals, dy):
            dparams, dx = layer.backward(params, residuals, dy)
            return {**dparams, "key_kernel": 1.01 * dparams["key_kernel"]}, dx

        return layer._replace(backward=backward)

    report = checking.check_gradients(
        layers.map_layers(spoiled, GPT), SHAPE, engines=("backprop", "autodiff"), modes=("training",)
    )
    assert not report.ok
    (located,) = report.located
    assert re.fullmatch(r"tied serial\[blocks\] serial\[1\] serial\[0\] .*attention\(.*\)", located), located


def test_it_learns_what_comes_next():
    """A pattern of four words; the last epoch is nearly sure of each word but the first."""
    words = np.tile(np.arange(4), 3)[None].repeat(8, 0)
    model = models.gpt(4, 11, blocks=1, features=16, heads=2)
    data = words[:, :-1], words[:, 1:]
    fit = training.fit(
        model, losses.softmax_cross_entropy, optimizers.adam(0.02), data, engine="backprop", epochs=60, batch_size=8
    )  # fmt: skip
    *_, last = fit
    assert float(last.metrics["loss"]) < 0.05


def test_a_run_is_resumed_exactly(tmp_path):
    """Through the disk, after one of three epochs."""

    def run(**options):
        loss, optimizer = losses.softmax_cross_entropy, optimizers.adam(0.02)
        return training.fit(GPT, loss, optimizer, (WORDS, NEXT), engine="backprop", epochs=3, batch_size=1, **options)

    first, *_, whole = run()
    checkpoints.save(tmp_path, first)
    restored, _ = checkpoints.restore(tmp_path, first.state)
    *_, resumed = run(state=restored.state)
    assert worst_leaf(resumed.state.optimizer, whole.state.optimizer) == 0


def test_tools_look_into_the_blocks():
    params, state = GPT.init(KEY, WORDS)
    loss = losses.softmax_cross_entropy
    trace = checking.trace_backward(GPT, loss)(params, state, (WORDS, NEXT))
    attends = [place for place in trace.places if "attention(" in place]
    assert [re.findall(r"\[blocks\] serial\[(\d)\]", place) for place in attends] == [["0"], ["1"]]
    ((_, ((_, wide, _, _),)), _) = params["blocks"]
    wide["bias"] = wide["bias"].at[3].set(jnp.inf)
    found = str(checking.find_nonfinite(GPT, loss, params, state, (WORDS, NEXT)))
    assert re.match(r"tied serial\[blocks\] serial\[0\] .*dense\(16.*\): params/bias is inf at \[3\]", found), found


def test_what_the_parts_of_the_library_see():
    table = str(summaries.summary(GPT, SHAPE))
    assert re.search(r"^words +embedding\(5, 4, .*", table, re.M)
    assert re.search(rf"total .* {trees.total_size(drawn(GPT)[0]):,} ", table)
    assert len(list(layers.plain_layers(GPT))) == 2 + 2 * 6 + 2
    params, state = GPT.init(KEY, WORDS)
    with pytest.raises(
        DataError, match=r"^tied serial\[words\] embedding\(5, 4.*\): expected x in 0\.\.4, got 5 at \[0, 0\]"
    ):
        GPT.apply(params, state, np.array([[5]]))
    spread = np.std(params["blocks"][0][1][0][3]["kernel"])
    assert spread == pytest.approx(0.01, rel=0.4)  # 0.02 over the root of four


@pytest.mark.parametrize(
    "code, message",
    [
        (lambda: models.gpt(5, 6, blocks=0), "gpt(5, 6, blocks=0): expected blocks to be a positive integer, got 0."),
        (lambda: models.gpt(5, 6, repeat=1), "gpt(5, 6, repeat=1): expected repeat to be True or False, got 1."),
        (lambda: models.gpt(5, 6, dropout=1), "expected dropout to be a finite number in [0, 1), got 1."),
    ],
)
def test_misuse_is_named(code, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        code()


def test_the_backward_keeps_less_than_autodiff():
    """Temporary memory by the compiler's own count. Of an activation x is kept, and no tanh beside it."""
    model, loss = models.gpt(32, 128, blocks=2, features=64, heads=2), losses.softmax_cross_entropy
    words = jnp.zeros((8, 128), jnp.int32)
    params, state = jax.eval_shape(model.init, KEY, words)

    def temporary(engine):
        program = usual_jit(engine(model, loss)).lower(params, state, (words, words), KEY).compile()
        return program.memory_analysis().temp_size_in_bytes

    assert temporary(gradients.backprop) <= 0.6 * temporary(gradients.autodiff)
