"""The attention layer: projections around the weighted means, and their backward."""

import jax
import jax.numpy as jnp

from funcnet import initializers
from funcnet.checks import check_count, check_floating, check_kind, check_multiple, fraction, positive
from funcnet.errors import ConfigError, ShapeError, StructureError
from funcnet.layers.attention.cache import stepping
from funcnet.layers.attention.products import Looks, attended, attended_back
from funcnet.layers.attention.projections import Heads, apart, bias_sum, projected, together
from funcnet.layers.attention.sight import sight_of
from funcnet.layers.checks import check_training_key
from funcnet.layers.layer import layer
from funcnet.layers.positions import rotated
from funcnet.layers.sequences import closed, opened_sequence
from funcnet.made import constructor
from funcnet.types import Layer, Rules

__all__ = ["attention"]


@constructor
def attention(
    heads: int,
    *,
    kv_heads: int | None = None,
    head_features: int | None = None,
    causal: bool = False,
    window: int | None = None,
    rotary: float | None = None,
    dropout: float = 0.0,
    use_bias: bool = True,
    kernel_init: initializers.Initializer = initializers.lecun_normal(),
    out_init: initializers.Initializer | None = None,
    bias_init: initializers.Initializer = initializers.zeros,
) -> Layer:
    """Each position looks at the others: y_i = Σ_j w_ij v_j, where w_i is a softmax over how well j fits i.

    For each head, with q = x W_q + b_q, k = c W_k + b_k and v = c W_v + b_v of d features each,
        s_ij = q_i · k_j / √d,   w_ij = e^(s_ij) / Σ_j e^(s_ij),   o_i = Σ_j w_ij v_j,
    where the sums run over the keys that i sees. The outputs of all heads side by side give y = o W_o + b_o. The
    context c is x itself. For a pair (x, c) it is another sequence (cross-attention).

    Args:
        heads: how many heads there are.
        kv_heads: how many of keys and values there are. Groups of heads / kv_heads heads share theirs. By default each
            head has its own.
        head_features: d. The default is the width of `x` divided by `heads`.
        causal: whether i sees only the positions up to its own.
        window: i sees only positions less than `window` away from its own.
        rotary: turns q and k by angles that grow with their positions, with this base, for example 10000.0. The score
            then depends on the distance of two positions.
        dropout: the share of the weights w that is dropped in training, which needs a key then.
        use_bias: whether to add the b.
        kernel_init, bias_init: `(key, shape, dtype) -> array`.
        out_init: the same for W_o. The default is `kernel_init`.

    Input (batch, time, features), or a pair with a context (batch, context time, context features) for a layer that is
    not causal and has neither window nor rotary positions. Each may be `Padded`. What is padded is not seen, and only
    the other positions are counted. If i sees no key at all, o_i = 0. Output (batch, time, features), `Padded` like x.
    Params: `query_kernel` (features, heads · d), `key_kernel` and `value_kernel` (context features, kv_heads · d),
    `out_kernel` (heads · d, features), and `query_bias`, `value_bias`, `out_bias`, with `rotary` also `key_bias`.
    Without it b_k = 0, because it would add q_i · b_k to all scores of i, which the softmax cancels.

    For long sequences no array holds a weight for each pair of positions. The sums are computed over blocks of keys,
    one after the other (online softmax). With m the largest score so far, l = Σ e^(s_j − m) and o = Σ e^(s_j − m) v_j,
    a block with the scores s gives
        m′ = max(m, max_j s_j),   l′ = e^(m − m′) l + Σ_j e^(s_j − m′),   o′ = e^(m − m′) o + Σ_j e^(s_j − m′) v_j,
    and at the end o/l is the weighted mean, because the factor e^(−m) cancels. Blocks that no query sees are left out.

    Backward. With g = ∂L/∂y the output product is that of `dense`: do = g W_oᵀ, dW_o = oᵀ g, db_o = Σ g. For one head,
    o_i is linear in v and in w,
        dv_j = Σ_i w_ij do_i,   dw_ij = do_i · v_j,
    and the softmax gives, as its own layer does,
        ds_ij = w_ij (dw_ij − D_i)   with   D_i = Σ_j w_ij dw_ij = do_i · o_i.
    In blocks D comes from the last form, which needs no sum over keys. The score is linear in q and in k,
        dq_i = Σ_j ds_ij k_j / √d,   dk_j = Σ_i ds_ij q_i / √d,
    where dk and dv are summed over the heads of a group. A rotation is undone by the rotation by −θ. Then as in `dense`
        dW_q = xᵀ dq,   dW_k = cᵀ dk,   dW_v = cᵀ dv,   dx = dq W_qᵀ,   dc = dk W_kᵀ + dv W_vᵀ,
    and the biases get the sums of dq, dk and dv. If c is x, dx is the sum of both. In blocks the weights are computed
    again from the logarithm λ_i = m + log l of each query, w_ij = e^(s_ij − λ_i).
    Dropout: o_i = Σ_j w_ij r_ij v_j with r_ij = 0 or 1/(1 − rate). So w is replaced by w ⊙ r in dv, and dw_ij = r_ij
    do_i · v_j. D_i = do_i · o_i holds as before.
    Kept: x, c, q, k, v, o, and w for short sequences or λ for long ones. r is drawn again from the key.

    Per example: the same without the sum over the batch.

    One position at a time, the carry is the cache: keys and values of the positions so far, at most `window`, and how
    many there were. There is such a cell if `causal`. It only steps: it has no backward.

    Raises:
        ConfigError: an option has an impossible value, or `heads` is not a multiple of `kv_heads`.
        ShapeError: `x` does not have three axes, its width is not a multiple of `heads`, the params do not fit it, or
            the context has other rows or another dtype than `x`.
        StructureError: a pair is given to a layer that is causal or has a window or rotary positions.
        DtypeError: `x` is not floating-point, or not of the params' dtype.
        MissingKeyError: in training with dropout without a key.

    References: Vaswani et al., "Attention Is All You Need", NeurIPS 2017. Milakov, Gimelshein, "Online normalizer
    calculation for softmax", arXiv 1805.02867. Dao, Fu, Ermon, Rudra, Ré, "FlashAttention", NeurIPS 2022. Ainslie et
    al., "GQA", EMNLP 2023.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> layer = fn.layers.attention(2, causal=True)
    >>> x = jax.random.normal(jax.random.key(0), (1, 3, 4))
    >>> params, state = layer.init(jax.random.key(1), x)
    >>> y, _ = layer.apply(params, state, x)
    >>> y.shape, bool(jnp.allclose(y[:, :2], layer.apply(params, state, x[:, :2])[0]))
    ((1, 3, 4), True)
    """
    sizes = _sizes(heads, kv_heads, head_features, rotary)
    looks = _looks(causal, window, dropout)
    alone = causal or window is not None or rotary is not None

    def leaves(x):
        (values, _), (context, _) = _opened(x, alone)
        own = sizes.of_width(values.shape[-1])
        wide, narrow = own.heads * own.d, own.kv_heads * own.d
        kernels = {"query": (values, wide), "key": (context, narrow), "value": (context, narrow)}
        shapes = {name: (array.shape[-1], width) for name, (array, width) in kernels.items()}
        shapes["out"] = (wide, values.shape[-1])
        starts = dict.fromkeys(shapes, kernel_init) | {"out": out_init or kernel_init}
        entries = {f"{name}_kernel": (starts[name], shape, values.dtype) for name, shape in shapes.items()}
        if use_bias:
            used = [name for name in shapes if name != "key" or rotary is not None]
            entries |= {f"{name}_bias": (bias_init, shapes[name][1:], values.dtype) for name in used}
        return entries

    def forward(params, state, x, *, key=None, train=False):
        (values, where), (context, there) = _opened(x, alone)
        own = sizes.of_width(values.shape[-1])
        if train and looks.rate:
            check_training_key(key)
        drawn = key if train and looks.rate else None
        sight = sight_of(where, values.shape[1], there, context.shape[1])
        q, k, v = _turned(_projected(params, values, context, own), sight, rotary)
        o, kept = attended(q, k, v, sight, looks, drawn)
        y = projected(params, "out", together(o.astype(values.dtype)))
        crossed = context if isinstance(x, tuple) else None
        residuals = {"x": values, "context": crossed, "qkv": (q, k, v), "o": o, "kept": kept, "key": drawn}
        return closed(y, where), state, residuals | {"where": where, "there": there if isinstance(x, tuple) else None}

    def differences(params, residuals, dy):
        """`(dq, dk, dv)` before heads are taken apart, each (batch, time, width)."""
        (q, k, v), o, crossed = residuals["qkv"], residuals["o"], residuals["context"] is not None
        where, there = residuals["where"], residuals["there" if crossed else "where"]
        sight = sight_of(where, q.shape[3], there, k.shape[2])
        do = apart(dy @ params["out_kernel"].T, sizes.of_width(dy.shape[-1]), "query")
        gradients = attended_back(q, k, v, sight, looks, residuals["key"], o, residuals["kept"], do)
        return [together(g) for g in _turned(gradients, sight, rotary, back=True)]

    def pairs(params, residuals, dy):
        """For each projection its input and the gradient of its output."""
        x = residuals["x"]
        context = x if residuals["context"] is None else residuals["context"]
        dq, dk, dv = differences(params, residuals, dy)
        return {
            "query": (x, dq),
            "key": (context, dk),
            "value": (context, dv),
            "out": (together(residuals["o"].astype(x.dtype)), dy),
        }

    def gradients(found, product, total):
        return {f"{name}_kernel": product(a, g) for name, (a, g) in found.items()} | {
            f"{name}_bias": total(g) for name, (_, g) in found.items()
        }

    def backward(params, residuals, dy):
        found = pairs(params, residuals, dy)
        dx, dk, dv = (found[name][1] @ params[f"{name}_kernel"].T for name in ("query", "key", "value"))
        dx = dx + dk + dv if residuals["context"] is None else (dx, dk + dv)
        return gradients(found, _kernel_gradient, bias_sum), dx

    def per_example(params, residuals, dy):
        found = pairs(params, residuals, dy)
        return gradients(found, lambda a, g: jnp.einsum("bti,bto->bio", a, g), lambda g: jnp.sum(g, 1))

    def init_at(key, x):
        return made.init(key, jax.ShapeDtypeStruct((x.shape[0], 1, *x.shape[1:]), x.dtype))

    cell = stepping(sizes, window, rotary, init_at) if causal else None
    made = layer(forward, backward, leaves=leaves, trees=True, rules=Rules(per_example, cell=cell))
    return made


def _sizes(heads, kv_heads, head_features, rotary):
    heads = check_count("heads", heads)
    kv_heads = heads if kv_heads is None else check_count("kv_heads", kv_heads)
    check_multiple("heads", heads, kv_heads, "the number of kv_heads", "choose a divisor", ConfigError)
    d = None if head_features is None else check_count("head_features", head_features)
    return Heads(heads, kv_heads, d, rotary is not None and bool(positive("rotary", rotary)))


def _looks(causal, window, dropout):
    check_kind("causal", causal, bool, "True or False")
    if window is not None:
        window = check_count("window", window)
    return Looks(causal, window, fraction("dropout", dropout))


def _projected(params, x, context, own):
    for_each = {"query": x, "key": context, "value": context}
    return [apart(projected(params, name, array), own, name) for name, array in for_each.items()]


def _turned(qkv, sight, rotary, back=False):
    """q and k turned by the angles of their positions, and v as it is."""
    q, k, v = qkv
    if rotary is None:
        return q, k, v
    return rotated(q, sight.queries, rotary, back=back), rotated(k, sight.keys, rotary, back=back), v


def _kernel_gradient(a, g):
    return a.reshape(-1, a.shape[-1]).T @ g.reshape(-1, g.shape[-1])


def _opened(x, alone):
    """Values and `where` of x and of its context, which is x itself if it is not a pair."""
    if not isinstance(x, tuple):
        own = _opened_one(x)
        return own, own
    if len(x) != 2 or alone:
        fix = "positions of two sequences do not compare" if alone else "a pair is (x, context)"
        wanted = "one sequence" if alone else "a sequence or a pair"
        raise StructureError(f"expected x to be {wanted}, got a tuple of {len(x)}; {fix}.")
    own, other = map(_opened_one, x)
    if other[0].dtype != own[0].dtype or len(other[0]) != len(own[0]):
        got = f"{other[0].shape} {other[0].dtype} for x of {own[0].shape} {own[0].dtype}"
        raise ShapeError(f"expected a context with the rows and the dtype of x, got {got}.")
    return own, other


def _opened_one(x):
    values, where = opened_sequence(x)
    check_floating("x", values)
    return values, where
