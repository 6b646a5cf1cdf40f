"""Models of language: what comes next, given what came."""

from funcnet import initializers, layers
from funcnet.checks import check_count, check_kind, fraction
from funcnet.made import constructor
from funcnet.types import Layer

__all__ = ["gpt"]


@constructor
def gpt(
    vocabulary: int,
    length: int,
    *,
    blocks: int = 12,
    features: int = 768,
    heads: int = 12,
    dropout: float = 0.0,
    repeat: bool = False,
) -> Layer:
    """GPT-2: words and positions as vectors, causal transformer blocks, a norm, and scores of the next word.

    With E the table of words, P that of positions, B_i the blocks (pre-norm, GELU in its tanh form, 4 · features wide
    inside) and N a layer norm,
        h_t = E[x_t] + P[t],   y = N(B_n(… B_1(h))) Eᵀ.
    E stands in two places (`layers.tied`). y_t sees x_1 … x_t alone, so each position is an example for
    `losses.softmax_cross_entropy` with the next word as its label.

    Args:
        vocabulary: how many words there are, 50257 in GPT-2.
        length: the longest sequence, 1024 in GPT-2.
        blocks, features, heads: the sizes. The defaults are those of the smallest GPT-2.
        dropout: the share dropped in training, as in the blocks and behind the positions. GPT-2 has 0.1.
        repeat: whether the blocks run in one `layers.repeat`, with stacked parameters. It compiles faster.

    Input (batch, time) of integers, or `Padded`. Output (batch, time, vocabulary). The layers are called `words`,
    `positions`, `blocks`, `norm` and `scores`, so a path is for example `blocks/0/0/0/1/query_kernel`.
    Kernels and E start normal with a standard deviation of 0.02, P with 0.01, and kernels at the end of a shortcut with
    0.02/√(2 blocks), so that the sum over all shortcuts does not grow with the depth. GPT-2 also has biases of keys,
    which change nothing (see `layers.attention`).

    Raises:
        ConfigError: a size is not a positive integer, or `dropout` is outside [0, 1).

    References: Radford, Wu, Child, Luan, Amodei, Sutskever, "Language Models are Unsupervised Multitask Learners",
    OpenAI 2019.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model = fn.models.gpt(50257, 1024)
    >>> params, _ = jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, 8), int))
    >>> f"{fn.trees.total_size(params):,}"
    '124,430,592'
    """
    blocks, rate = check_count("blocks", blocks), fraction("dropout", dropout)
    check_kind("repeat", repeat, bool, "True or False")
    start = initializers.normal(0.02)
    block = layers.transformer_block(
        features, heads, causal=True, dropout=rate, activation=layers.gelu(approximate=True), kernel_init=start,
        out_init=initializers.normal(0.02 / (2 * blocks) ** 0.5),
    )  # fmt: skip
    positions = layers.position_embedding(length, embedding_init=initializers.normal(0.01))
    model = layers.serial(
        words=layers.embedding(vocabulary, features, embedding_init=start),
        positions=layers.serial(positions, layers.dropout(rate)) if rate else positions,
        blocks=layers.repeat(block, blocks) if repeat else layers.serial(*[block] * blocks),
        norm=layers.layer_norm(),
        scores=layers.unembedding(vocabulary, embedding_init=start),
    )
    return layers.tied(model, {"scores/embedding": "words/embedding"})
