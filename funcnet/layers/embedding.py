"""Words as vectors, and vectors as scores of words: the two layers that read a table of one row per word."""

from typing import Any

import jax.numpy as jnp

from funcnet import initializers
from funcnet.checks import check_count, check_floating, check_integers, check_shape, check_values
from funcnet.dtypes import widen
from funcnet.errors import DataError, DtypeError
from funcnet.layers.checks import check_entries
from funcnet.layers.dense import kernel_square, within_examples
from funcnet.layers.layer import layer
from funcnet.layers.sequences import closed, opened
from funcnet.made import constructor
from funcnet.types import Layer, Rules

__all__ = ["embedding", "unembedding"]


@constructor
def embedding(
    vocabulary: int,
    features: int,
    *,
    dtype: Any = None,
    embedding_init: initializers.Initializer = initializers.variance_scaling(1.0, "fan_out", "normal"),
) -> Layer:
    """A vector for each integer, y_n = E[x_n], the rows of a table.

    Args:
        vocabulary: how many integers there are. They are 0 … vocabulary − 1.
        features: width of the vectors.
        dtype: that of the table. By default it is JAX's default float dtype.
        embedding_init: `(key, shape, dtype) -> array`. The default is normal with variance 1/features, so that a vector
            has a length of about 1.

    Input (batch, …) of integers, or `Padded`. Output (batch, …, features) in the dtype of the table.
    Params: `embedding` (vocabulary, features), of any floating dtype.

    An integer outside of 0 … vocabulary − 1 is an error where its value can be read. Under `jit` it cannot. There its
    vector is NaN, as for labels in losses, and it has no gradient. At padded positions any integer may stand.

    Backward. y_nk = E[x_n]_k, so ∂y_nk/∂E_vj is 1 for v = x_n and j = k, else 0. With g = ∂L/∂y
        dE_v = Σ_{n: x_n = v} g_n.
    A word that stands several times gets the sum, and one that does not stand there gets zeros. Integers have no
    gradient, so dx = `None`. Kept: x.

    Per example: the same sum over the positions of the example alone. Its squared norm is Σ_nm (g_n · g_m) over the
    pairs of positions with x_n = x_m, without the table.

    Raises:
        ConfigError: `vocabulary` or `features` is not a positive integer.
        DtypeError: `x` does not hold integers.
        DataError: an integer of `x` is outside of 0 … vocabulary − 1.

    References: Bengio, Ducharme, Vincent, Jauvin, "A Neural Probabilistic Language Model", JMLR 3, 2003.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> layer = fn.layers.embedding(4, 2)
    >>> params, state = layer.init(jax.random.key(0), jnp.array([[0, 2, 2]]))
    >>> y, state, residuals = layer.forward(params, state, jnp.array([[0, 2, 2]]))
    >>> dparams, dx = layer.backward(params, residuals, jnp.ones((1, 3, 2)))
    >>> dparams["embedding"], dx
    (Array([[1., 1.],
           [0., 0.],
           [2., 2.],
           [0., 0.]], dtype=float32), None)
    """
    vocabulary, features = check_count("vocabulary", vocabulary), check_count("features", features)

    def init(key, x):
        _check_words(*opened(x, 0), vocabulary)
        chosen = jnp.result_type(float) if dtype is None else jnp.dtype(dtype)
        return {"embedding": embedding_init(key, (vocabulary, features), chosen)}, ()

    def forward(params, state, x, *, key=None, train=False):
        del key, train
        words, where = opened(x, 0)
        _check_words(words, where, vocabulary)
        _check_table(params, vocabulary, features)
        rows = _rows(words, where, vocabulary)
        y = jnp.asarray(params["embedding"]).at[rows].get(mode="fill", fill_value=jnp.nan)
        return closed(y, where), state, rows

    def backward(params, rows, dy):
        table = params["embedding"]
        zeros = widen(jnp.zeros_like(table))  # a sum of many halves would stop to grow
        return {"embedding": zeros.at[rows].add(widen(dy), mode="drop").astype(table.dtype)}, None

    def per_example(params, rows, dy):
        table, n = params["embedding"], dy.shape[0]
        places = jnp.arange(n).reshape(n, *[1] * (rows.ndim - 1)), rows
        zeros = widen(jnp.zeros((n, *table.shape), table.dtype))
        return {"embedding": zeros.at[places].add(widen(dy), mode="drop").astype(table.dtype)}

    def per_example_square(params, rows, dy):
        rows, g = rows.reshape(len(rows), -1), within_examples(dy).astype(jnp.result_type(float))
        same = (rows[:, :, None] == rows[:, None, :]) & (rows < vocabulary)[:, :, None]
        return jnp.maximum(jnp.sum(jnp.where(same, jnp.einsum("bnk,bmk->bnm", g, g), 0), (1, 2)), 0)

    return layer(
        forward, backward, init=init, trees=True, rules=Rules(per_example, per_example_square, positionwise=0)
    )  # fmt: skip


@constructor
def unembedding(
    vocabulary: int,
    *,
    embedding_init: initializers.Initializer = initializers.variance_scaling(1.0, "fan_out", "normal"),
) -> Layer:
    """A score for each word, y = x Eᵀ, from a table like that of `embedding`.

    It is the output layer of a language model. With `tied` the table is that of the embedding, in one leaf.

    Args:
        vocabulary: width of the output.
        embedding_init: `(key, shape, dtype) -> array`. The default is normal with variance 1/features.

    Input (batch, …, features), output (batch, …, vocabulary).
    Params: `embedding` (vocabulary, features), in the dtype of `x`.

    Backward. y_nv = Σ_j x_nj E_vj, so with g = ∂L/∂y
        dE = gᵀ x,   dx = g E.
    dE is computed as (xᵀ g)ᵀ, because a transposed operand is cheap on the right and slow on the left on a CPU, and the
    wide operand belongs there. Kept: x.

    Per example: as for `dense`, with the kernel Eᵀ.

    Raises:
        ConfigError: `vocabulary` is not a positive integer.
        ShapeError: `x` has fewer than two axes, or another width than the params.
        DtypeError: `x` is not floating-point, or not of the params' dtype.

    References: Press, Wolf, "Using the Output Embedding to Improve Language Models", EACL 2017.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> layer = fn.layers.unembedding(4)
    >>> layer.apply({"embedding": jnp.eye(4, 2)}, (), jnp.array([[5.0, 6.0]]))[0]
    Array([[5., 6., 0., 0.]], dtype=float32)
    """
    vocabulary = check_count("vocabulary", vocabulary)

    def leaves(x):
        check_floating("x", x)
        check_shape("x", x, "(batch, …, features)", "add the batch axis with x[None]")
        return {"embedding": (embedding_init, (vocabulary, x.shape[-1]))}

    def forward(params, state, x, *, key=None, train=False):
        del key, train
        return x @ params["embedding"].T, state, x

    def backward(params, x, dy):
        rows, drows = x.reshape(-1, x.shape[-1]), dy.reshape(-1, vocabulary)
        return {"embedding": (rows.T @ drows).T}, dy @ params["embedding"]

    def per_example(params, x, dy):
        del params
        return {"embedding": jnp.einsum("bnk,bni->bki", within_examples(dy), within_examples(x))}

    def per_example_square(params, x, dy):
        del params
        return kernel_square(*(within_examples(a).astype(jnp.result_type(float)) for a in (x, dy)))

    return layer(forward, backward, leaves=leaves, rules=Rules(per_example, per_example_square, positionwise=1))


def _rows(words, where, vocabulary):
    """The row of each word as int32: the first one where nothing is, and one behind the last for an impossible word."""
    possible = _possible(words, vocabulary)
    rows = jnp.where(possible, words, 0).astype(jnp.int32)
    rows = jnp.where(possible, rows, vocabulary)
    return rows if where is None else jnp.where(_spread(where, words.ndim), rows, 0)


def _possible(words, vocabulary):
    """Compared within the words' own dtype, in which the vocabulary may not be a number."""
    most = min(vocabulary - 1, jnp.iinfo(words.dtype).max)
    return (words >= 0) & (words <= most)


def _spread(where, ndim):
    return where.reshape(where.shape + (1,) * (ndim - where.ndim))


def _check_words(words, where, vocabulary):
    check_integers("x", words, DtypeError)
    check_shape("x", words, "(batch, …)", "add the batch axis with x[None]")
    wanted, fix = f"x in 0..{vocabulary - 1}", "number the words from 0, or make the vocabulary larger"
    check_values(DataError, wanted, words, where, lambda words: _possible(words, vocabulary), fix)


def _check_table(params, vocabulary, features):
    check_entries("params", params, ["embedding"])
    table, name = params["embedding"], "params['embedding']"
    check_floating(name, table, "take them from init of this very layer")
    check_shape(name, table, f"({vocabulary}, {features})", "take them from init of this very layer")
