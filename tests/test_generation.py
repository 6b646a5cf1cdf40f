"""Generation: token for token what the whole model says, drawn from the right probabilities."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnet import generation, layers
from funcnet.errors import ConfigError, DataError, DtypeError, MissingKeyError, ShapeError, StructureError
from funcnet.types import Padded, Rules

VOCABULARY = 7


def block():
    seeing = layers.residual(layers.serial(layers.layer_norm(), layers.attention(2, causal=True, rotary=100.0)))
    thinking = layers.residual(layers.serial(layers.dense(16), layers.gelu(), layers.dense(8), layers.dropout(0.3)))
    return layers.serial(seeing, thinking)


MODEL = layers.tied(
    layers.serial(
        layers.embedding(VOCABULARY, 8), layers.position_embedding(16), layers.repeat(layers.recompute(block()), 2),
        layers.layer_norm(), layers.unembedding(VOCABULARY),
    ),
    {"4/embedding": "0/embedding"},
)  # fmt: skip
PROMPT = jnp.array([[1, 5, 2], [0, 0, 6]])


@pytest.fixture(scope="module")
def weights():
    params, state = MODEL.init(jax.random.key(0), PROMPT)
    return jax.tree.map(lambda leaf: 4 * leaf, params), state  # so that scores differ


def greedy_by_hand(weights, prompt, steps):
    """The whole model on all tokens so far, again and again."""
    apply, words = jax.jit(MODEL.apply), [*prompt]
    for _ in range(steps):
        padded = jnp.array(words + [0] * (16 - len(words)))[None]  # one program; a causal model does not look there
        words.append(int(apply(*weights, padded)[0][0, len(words) - 1].argmax()))
    return words[len(prompt) :]


def test_tokens_are_those_of_the_whole_model(weights):
    found = generation.generate(MODEL, *weights, PROMPT, 10, temperature=0)
    assert found.shape == (2, 10)
    assert found.tolist() == [greedy_by_hand(weights, row.tolist(), 10) for row in PROMPT]
    assert len({*found[0].tolist()}) > 1


def test_prompts_of_several_lengths(weights):
    values = jnp.array([[9, 1, 5, 2, 9], [4, 9, 9, 9, 9], [1, 2, 3, 4, 5]])  # at padded positions any number
    where = jnp.array([[0, 1, 1, 1, 0], [1, 0, 0, 0, 0], [1, 1, 1, 1, 1]], bool)
    found = generation.generate(MODEL, *weights, Padded(values, where), 6, temperature=0)
    wanted = [
        greedy_by_hand(weights, np.array(row)[np.array(there)].tolist(), 6)
        for row, there in zip(values, where, strict=True)
    ]
    assert found.tolist() == wanted


@pytest.mark.parametrize("options", [{"temperature": 0}, {"temperature": 2.0}, {"top_k": 3}, {"top_p": 0.8}])
def test_tokens_that_come_one_by_one_are_the_same(weights, options):
    key = jax.random.key(7)
    together = generation.generate(MODEL, *weights, PROMPT, 6, key, **options)
    apart = list(generation.tokens(MODEL, *weights, PROMPT, 6, key, **options))
    assert np.stack(apart, 1).tolist() == together.tolist()


def test_a_sequence_stops_with_its_token(weights):
    free = generation.generate(MODEL, *weights, PROMPT, 10, temperature=0).tolist()
    stop = free[0][3], free[1][1]
    ends = [next(i for i, word in enumerate(row) if word in stop) + 1 for row in free]
    found = generation.generate(MODEL, *weights, PROMPT, 10, temperature=0, stop=stop)
    assert found.where.tolist() == [[i < end for i in range(10)] for end in ends]
    assert found.values.tolist() == [row[:end] + [0] * (10 - end) for row, end in zip(free, ends, strict=True)]
    apart = list(generation.tokens(MODEL, *weights, PROMPT, 10, temperature=0, stop=stop))
    assert len(apart) == max(ends)
    assert np.stack(apart, 1).tolist() == [
        row[:end] + [-1] * (max(ends) - end) for row, end in zip(free, ends, strict=True)
    ]
    assert generation.generate(MODEL, *weights, PROMPT, 2, temperature=0, stop=99).where.all()


# Drawing

UNIGRAM = layers.embedding(4, 4)  # the scores of what follows do not depend on what was before, if all rows are equal
SCORES = np.log([0.5, 0.25, 0.2, 0.05])


@pytest.mark.parametrize(
    "options, wanted",
    [
        ({}, [0.5, 0.25, 0.2, 0.05]),
        ({"temperature": 0.5}, [0.25, 0.0625, 0.04, 0.0025]),
        ({"temperature": 1e-4}, [1, 0, 0, 0]),
        ({"top_k": 2}, [0.5, 0.25, 0, 0]),
        ({"top_k": 4}, [0.5, 0.25, 0.2, 0.05]),
        ({"top_p": 0.7}, [0.5, 0.25, 0, 0]),
        ({"top_p": 0.76}, [0.5, 0.25, 0.2, 0]),
        ({"top_p": 1e-6}, [1, 0, 0, 0]),
        ({"top_p": 1.0}, [0.5, 0.25, 0.2, 0.05]),
        ({"top_p": 0.7, "top_k": 3}, [0.5, 0.25, 0, 0]),  # of 0.95: 0.53 and 0.26
    ],
)
def test_tokens_are_drawn_from_the_probabilities(options, wanted):
    params = {"embedding": jnp.tile(SCORES, (4, 1))}
    found = generation.generate(UNIGRAM, params, (), jnp.zeros((500, 1), int), 40, jax.random.key(1), **options)
    shares, wanted = np.bincount(found.ravel(), minlength=4) / found.size, np.array(wanted) / np.sum(wanted)
    np.testing.assert_allclose(shares, wanted, atol=4 * np.sqrt(0.25 / found.size))
    assert not shares[wanted == 0].any()


def test_the_key_determines_the_tokens(weights):
    draws = [generation.generate(MODEL, *weights, PROMPT, 8, jax.random.key(i), temperature=3.0) for i in (0, 0, 1)]
    assert draws[0].tolist() == draws[1].tolist() != draws[2].tolist()
    assert draws[0][0].tolist() != draws[0][1].tolist()


def test_equal_scores_are_all_left():
    params = {"embedding": jnp.zeros((4, 4))}
    found = generation.generate(UNIGRAM, params, (), jnp.zeros((50, 1), int), 20, jax.random.key(1), top_k=2)
    assert {*found.ravel().tolist()} == {0, 1, 2, 3}


# Programs


def test_a_call_of_the_same_form_compiles_nothing(weights):
    def both(key, **options):
        generation.generate(MODEL, *weights, PROMPT, 4, key, **options)
        list(generation.tokens(MODEL, *weights, PROMPT, 4, key, **options))

    both(jax.random.key(0), temperature=0.5, top_p=0.5)
    how = generation._How(False, None, True)
    programs = generation._loop(MODEL, how, 4, ()), generation._step(MODEL, how), generation._filled(MODEL)
    sizes = [program._cache_size() for program in programs]
    both(jax.random.key(1), temperature=1.5, top_p=0.9)
    assert [program._cache_size() for program in programs] == sizes


def test_it_runs_within_jit(weights):
    found = jax.jit(lambda params: generation.generate(MODEL, params, weights[1], PROMPT, 4, temperature=0))(weights[0])
    assert found.tolist() == generation.generate(MODEL, *weights, PROMPT, 4, temperature=0).tolist()


# What is refused


def test_models_that_look_at_all_positions(weights):
    inner = layers.serial(layers.dense(8), layers.residual(layers.attention(2)))
    model = layers.serial(layers.embedding(VOCABULARY, 8), inner, layers.dense(VOCABULARY))
    params, state = model.init(jax.random.key(0), PROMPT)
    wanted = r"generate: expected a model that goes one position at a time, got attention\(2\) at 1/1/0; .* causal=True"
    with pytest.raises(StructureError, match=wanted):
        generation.generate(model, params, state, PROMPT, 3, temperature=0)
    with pytest.raises(StructureError, match=r"tokens: .*, got flatten\(\); .*a layer that looks ahead cannot"):
        generation.tokens(layers.flatten(), (), (), PROMPT, 3, temperature=0)


@pytest.mark.parametrize("function", [generation.generate, generation.tokens])
@pytest.mark.parametrize(
    "change, error, message",
    [
        ({"steps": 0}, ConfigError, "expected steps to be"),
        ({"temperature": -1.0}, ConfigError, "expected temperature to be"),
        ({"top_k": 0}, ConfigError, "expected top_k to be"),
        ({"top_k": 8}, ConfigError, "expected top_k to be at most 7, got 8"),
        ({"top_p": 0.0}, ConfigError, "expected top_p to be above 0"),
        ({"top_p": 1.5}, ConfigError, "expected top_p to be"),
        ({"stop": 0.5}, ConfigError, "expected stop to be"),
        ({"key": None}, MissingKeyError, "expected a key to draw tokens with, got None; pass key=.* or temperature=0"),
        ({"key": 3}, DtypeError, "expected key to be a PRNG key"),
        ({"prompt": jnp.ones((1, 2))}, DtypeError, "expected prompt to be integers, got dtype float32"),
        ({"prompt": jnp.array([1])}, ShapeError, r"expected prompt of shape \(batch, time\)"),
        ({"prompt": jnp.zeros((2, 0), int)}, DataError, "expected a token or more in each prompt, got none"),
        ({"model": 3}, ConfigError, "expected model to be a Layer"),
    ],
)
def test_what_is_refused(weights, function, change, error, message):
    given = {"model": MODEL, "params": weights[0], "state": weights[1], "prompt": PROMPT, "steps": 3}
    with pytest.raises(error, match=f"^{function.__name__}: .*{message}"):
        function(**{**given, "key": jax.random.key(0), **change})


def test_prompts_that_are_empty_or_padded(weights):
    prompt = Padded(PROMPT, jnp.array([[True, True, True], [False, False, False]]))
    with pytest.raises(DataError, match="generate: expected a token or more in each prompt, got none"):
        generation.generate(MODEL, *weights, prompt, 3, temperature=0)
    with pytest.raises(StructureError, match="tokens: expected prompts of one length, got a Padded; generate takes it"):
        generation.tokens(MODEL, *weights, prompt, 3, temperature=0)


def test_a_token_outside_of_the_vocabulary(weights):
    prompt = PROMPT.at[1, 1].set(VOCABULARY)
    with pytest.raises(DataError, match="generate: expected scores that are numbers, got NaN in row 1; its prompt may"):
        generation.generate(MODEL, *weights, prompt, 3, temperature=0)
    with pytest.raises(DataError, match="tokens: expected scores that are numbers"):
        list(itertools.islice(generation.tokens(MODEL, *weights, prompt, 3, temperature=0), 1))


def test_more_positions_than_the_model_has(weights):
    for function in (generation.generate, generation.tokens):
        with pytest.raises(
            ShapeError, match="position_embedding.*: expected at most 16 positions, got 18; make it longer"
        ):
            function(MODEL, *weights, jnp.zeros((2, 16), int), 3, temperature=0)


def test_scores_of_another_shape():
    def forward(params, state, x, *, key, train):
        return x.astype(jnp.float32), state, None

    model = layers.layer(forward, lambda params, residuals, dy: ((), None), trees=True, rules=Rules(positionwise=0))
    with pytest.raises(ShapeError, match=r"expected the model's scores of shape \(2, vocabulary\), got \(2,\)"):
        generation.generate(model, (), (), PROMPT, 3, temperature=0)
