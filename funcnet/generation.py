"""Generation: one token after the other, from any model that has a cell.

`model.rules.cell` is the model one position at a time, with the parameters of the model itself. What it carries from
one position to the next, such as the keys and values of attention or the state of a recurrence, is never computed
again. So the tokens are those of the whole model applied to all tokens so far, and each costs one position.
"""

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checks import (
    check_count,
    check_integers,
    check_key,
    check_kind,
    check_one_array,
    check_shape,
    is_concrete,
    nonnegative,
    unit_interval,
)
from funcnet.dtypes import widen
from funcnet.errors import ConfigError, DataError, DtypeError, MissingKeyError, StructureError
from funcnet.made import leading
from funcnet.trees import is_padded, to_the_front, values_of
from funcnet.types import Array, Key, Layer, Padded, Params, State

__all__ = ["generate", "tokens"]

_NOT_A_NUMBER = -1  # the token that follows from such scores


def generate(
    model: Layer,
    params: Params,
    state: State,
    prompt: Any,
    steps: int,
    key: Key | None = None,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | tuple[int, ...] | None = None,
) -> Any:
    """The tokens that follow a prompt, each drawn from the scores of the model and then read by it.

    With scores s of the last position, the next token is v with the probability
        p_v = e^(s_v / τ) / Σ_u e^(s_u / τ),
    where the sum runs over the tokens that `top_k` and `top_p` leave.

    Args:
        model: gives scores (batch, time, vocabulary) for tokens (batch, time), and has a cell: each of its layers
            treats the positions alike, or looks back only.
        params, state: of the model, which runs in evaluation mode.
        prompt: (batch, time) integers, or `Padded` for prompts of several lengths. Each has at least one token.
        steps: how many tokens to make after each prompt.
        key: from which the tokens are drawn; not needed if `temperature` is 0.
        temperature: τ. Smaller values prefer the likeliest tokens. 0 takes the likeliest one, the first of equal ones.
        top_k: only the k likeliest tokens are left, and those with the score of the k-th.
        top_p: only the likeliest tokens are left that together have at least this probability.
        stop: a token, or several, with which a sequence ends.

    Returns:
        (batch, steps) integers. With `stop` a `Padded` of them, in which nothing is after the token that stopped.

    One compiled loop runs over the positions of the prompt and then over those of the new tokens. It ends early if all
    sequences have stopped. The prompt takes one step for each position too. A prompt of another length, or other
    `steps`, are compiled anew.

    Raises:
        StructureError: the model has no cell; the layer that looks at all positions is named.
        DtypeError: the prompt does not hold integers.
        ShapeError: the prompt is not (batch, time), or the scores are not (batch, vocabulary) at each position, or
            there are more positions than the model has.
        ConfigError: an option has an impossible value.
        MissingKeyError: `temperature` is not 0, and no key is given.
        DataError: a prompt is empty, or scores are NaN, as for a token outside of the vocabulary. Under `jit` the token
            after such scores is −1.

    References: Holtzman, Buys, Du, Forbes, Choi, "The Curious Case of Neural Text Degeneration", ICLR 2020 (top p).

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> table = jnp.eye(4)[jnp.array([1, 2, 3, 0])]  # after each token the next one
    >>> model, params = fn.layers.embedding(4, 4), {"embedding": table}
    >>> fn.generation.generate(model, params, (), jnp.array([[0], [2]]), 5, temperature=0)
    Array([[1, 2, 3, 0, 1],
           [3, 0, 1, 2, 3]], dtype=int32)
    >>> fn.generation.generate(model, params, (), jnp.array([[0], [2]]), 5, temperature=0, stop=3).where.sum(1)
    Array([3, 1], dtype=int32)
    """
    with leading("generate"):
        drawing = _drawing(key, temperature, top_k, top_p)
        words, lengths, carry = _begun(model, params, state, prompt, steps, drawing)
        run = _loop(model, drawing.how, int(steps), _ends(stop))
        found, there = run(params, state, carry, words, lengths, *drawing.numbers)
        _check_found(found)
    return found if stop is None else Padded(found, there)


def tokens(
    model: Layer,
    params: Params,
    state: State,
    prompt: Any,
    steps: int,
    key: Key | None = None,
    *,
    temperature: float = 1.0,
    top_k: int | None = None,
    top_p: float | None = None,
    stop: int | tuple[int, ...] | None = None,
) -> Iterator[np.ndarray]:
    """The tokens of `generate` as they come, for somebody who reads along.

    Args:
        prompt: (batch, time) integers, prompts of one length.
        model, params, state, steps, key, temperature, top_k, top_p, stop: as for `generate`.

    Returns:
        An iterator of (batch,) integers on the host. It ends when all sequences have stopped. A sequence that has
        stopped before the others gives −1.

    Raises: as `generate`, at the call.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> model, params = fn.layers.embedding(3, 3), {"embedding": jnp.eye(3)[jnp.array([1, 2, 0])]}
    >>> for word in fn.generation.tokens(model, params, (), jnp.array([[0]]), 4, temperature=0):
    ...     print(*word)
    1
    2
    0
    1
    """
    with leading("tokens"):
        if is_padded(prompt):
            raise StructureError("expected prompts of one length, got a Padded; generate takes it.")
        drawing, ends = _drawing(key, temperature, top_k, top_p), _ends(stop)
        words, _, carry = _begun(model, params, state, prompt, steps, drawing)
    return _streamed(model, params, state, words, int(steps), drawing, ends, carry)


def _streamed(model, params, state, words, steps, drawing, ends, carry):
    step = _step(model, drawing.how)
    carry, last = _filled(model)(params, state, carry, words), words[:, -1]
    ended = np.zeros(len(words), bool)
    for t in range(words.shape[1] - 1, words.shape[1] - 1 + steps):
        carry, last = step(params, state, carry, last, jnp.int32(t), *drawing.numbers)
        found = np.asarray(last)
        with leading("tokens"):
            _check_found(np.where(ended, 0, found))
        yield np.where(ended, -1, found)
        ended |= np.isin(found, ends)
        if ended.all():
            return


# What is compiled: one position, the positions of a prompt, and a loop over all


class _How(NamedTuple):
    """How tokens are chosen, as far as the program depends on it."""

    greedy: bool
    top_k: int | None
    nucleus: bool


class _Drawing(NamedTuple):
    how: _How
    numbers: tuple[Any, Any, Any]  #: key, temperature, top_p


def _stepper(model: Layer, how: _How) -> Any:
    """`(params, state, carry, tokens, t, key, temperature, top_p) -> (carry, the tokens that follow)`."""
    cell: Any = model.rules.cell

    def step(params, state, carry, words, t, key, temperature, top_p):
        (carry, scores), _ = cell.apply(params, state, (carry, words))
        found = _chosen(widen(scores), how, None if key is None else jax.random.fold_in(key, t), temperature, top_p)
        return carry, jnp.where(jnp.isnan(scores).any(-1), _NOT_A_NUMBER, found).astype(words.dtype)

    return step


@lru_cache(maxsize=64)
def _step(model: Layer, how: _How) -> Any:
    return jax.jit(_stepper(model, how), donate_argnums=2)


@lru_cache(maxsize=64)
def _filled(model: Layer) -> Any:
    """`(params, state, carry, prompt) -> carry` after all tokens of the prompt but the last one."""
    cell: Any = model.rules.cell

    @partial(jax.jit, donate_argnums=2)
    def fill(params, state, carry, words):
        def body(carry, word):
            (carry, _), _ = cell.apply(params, state, (carry, word))
            return carry, None

        return jax.lax.scan(body, carry, words[:, :-1].T)[0]

    return fill


@lru_cache(maxsize=64)
def _loop(model: Layer, how: _How, steps: int, ends: tuple[int, ...]) -> Any:
    """`(params, state, carry, prompt, lengths, key, temperature, top_p) -> (new tokens, where they are)`."""
    step = _stepper(model, how)

    @jax.jit
    def run(params, state, carry, words, lengths, *numbers):
        rows, time = words.shape
        words = jnp.concatenate([words, jnp.zeros((rows, steps), words.dtype)], 1)

        def is_going_on(loop):
            t, _, _, ended = loop
            return (t < time + steps - 1) & ~jnp.all(ended)

        def body(loop):
            t, carry, words, ended = loop
            carry, found = step(params, state, carry, words[:, t], t, *numbers)
            given = t + 1 < lengths
            words = words.at[:, t + 1].set(jnp.where(given | ended, words[:, t + 1], found))
            ended |= ~given & (_isin(found, ends) | (t + 2 - lengths >= steps))
            return t + 1, carry, words, ended

        _, _, words, _ = jax.lax.while_loop(is_going_on, body, (jnp.int32(0), carry, words, jnp.zeros(rows, bool)))
        found = jnp.take_along_axis(words, lengths[:, None] + jnp.arange(steps), 1)
        stops = _isin(found, ends).astype(jnp.int32)
        there = jnp.cumsum(stops, 1) == stops  # none before
        return jnp.where(there, found, 0), there

    return run


def _isin(words, ends):
    return jnp.any(words[..., None] == jnp.array(ends, words.dtype), -1)


def _chosen(scores, how, key, temperature, top_p):
    """The token of each row."""
    if how.greedy:
        return jnp.argmax(scores, -1)
    scores = scores / temperature.astype(scores.dtype)
    if how.top_k is not None:
        least = jax.lax.top_k(scores, how.top_k)[0][:, -1:]
        scores = jnp.where(scores < least, -jnp.inf, scores)
    if how.nucleus:
        scores = jnp.where(scores < _least_of_nucleus(scores, top_p), -jnp.inf, scores)
    return jax.random.categorical(key, scores)


def _least_of_nucleus(scores, top_p):
    """The smallest score among the likeliest tokens that together have at least the probability `top_p`."""
    falling = -jnp.sort(-scores, -1)
    p = jax.nn.softmax(falling, -1)
    before = jnp.cumsum(p, -1) - p
    return jnp.min(jnp.where(before < top_p.astype(p.dtype), falling, jnp.inf), -1, keepdims=True)


# Checks


def _prompt(prompt: Any) -> tuple[Array, Array]:
    """The tokens of each prompt, those that are there first, and how many they are."""
    values = values_of(prompt)
    check_one_array("prompt", values, "give an array of integers")
    check_integers("prompt", values, DtypeError)
    check_shape("prompt", values, "(batch, time)", "add the batch axis with prompt[None]")
    words, there = jnp.asarray(values), jnp.ones(values.shape, bool)
    if is_padded(prompt):
        check_shape("prompt.where", prompt.where, "(batch, time)")
        words, there = to_the_front(jnp, words, jnp.asarray(prompt.where))
    lengths = jnp.sum(there, 1, dtype=jnp.int32)
    empty = words.shape[1] == 0 or (is_concrete(lengths) and bool((lengths == 0).any()))
    if empty:
        raise DataError("expected a token or more in each prompt, got none; begin with one that marks the start.")
    return words, lengths


def _drawing(key, temperature, top_k, top_p) -> _Drawing:
    temperature = nonnegative("temperature", temperature)
    top_k = None if top_k is None else check_count("top_k", top_k)
    if top_p is not None and unit_interval("top_p", top_p) == 0:
        raise ConfigError("expected top_p to be above 0, got 0; temperature=0 takes the likeliest token.")
    if temperature == 0:
        return _Drawing(_How(True, None, False), (None, None, None))
    if key is None:
        fix = "pass key=jax.random.key(seed), or temperature=0 for the likeliest tokens"
        raise MissingKeyError(f"expected a key to draw tokens with, got None; {fix}.")
    check_key(key)
    numbers = (key, jnp.float32(temperature), None if top_p is None else jnp.float32(top_p))
    return _Drawing(_How(False, top_k, top_p is not None), numbers)


def _ends(stop) -> tuple[int, ...]:
    if stop is None:
        return ()
    several = stop if isinstance(stop, tuple | list) else (stop,)
    return tuple(check_count("stop", one, 0) for one in several)


def _begun(model, params, state, prompt, steps, drawing) -> tuple[Array, Array, Any]:
    """The tokens of the prompts, how many they are, and the first carry, after the checks that need it."""
    steps = check_count("steps", steps)
    words, lengths = _prompt(prompt)
    check_kind("model", model, Layer, "a Layer")
    cell = model.rules.cell
    if cell is None:
        path, layer = _looking_at_all(model)
        fix = "attention steps with causal=True; a layer that looks ahead cannot generate"
        raise StructureError(f"expected a model that goes one position at a time, got {layer}{path}; {fix}.")
    example = jax.ShapeDtypeStruct(words.shape[:1], words.dtype)
    carry = cell.rules.start(params, state, example, words.shape[1] + steps - 1)
    (_, scores), _ = jax.eval_shape(cell.apply, params, state, (carry, example))
    check_one_array("the model's scores", scores, "give the model one output")
    check_shape("the model's scores", scores, f"({len(words)}, vocabulary)", "end the model with a layer of scores")
    if drawing.how.top_k is not None and drawing.how.top_k > scores.shape[1]:
        raise ConfigError(f"expected top_k to be at most {scores.shape[1]}, got {drawing.how.top_k}.")
    return words, lengths, carry


def _looking_at_all(model: Layer, path: str = "") -> tuple[str, Layer]:
    """The first layer without a cell, within containers of such, and its path."""
    if model.inside is not None:
        for place, layer in zip(model.inside.places, model.inside.layers, strict=True):
            if layer.rules.cell is None:
                return _looking_at_all(layer, path if place is None else f"{path}/{place}".lstrip("/"))
    return path and f" at {path}", model


def _check_found(found: Any) -> None:
    if not is_concrete(found) or not np.any(np.asarray(found) == _NOT_A_NUMBER):
        return
    row = np.argwhere(np.asarray(found) == _NOT_A_NUMBER)[0][0]
    fix = "its prompt may have a token outside of the vocabulary"
    raise DataError(f"expected scores that are numbers, got NaN in row {row}; {fix}.")
