"""Gated recurrent units."""

import jax
import jax.numpy as jnp

from funcnet import initializers
from funcnet.checks import check_count
from funcnet.layers.recurrent.recurrence import Step, cell_of, gates_of, layer_of, per_gate
from funcnet.made import constructor
from funcnet.types import Layer

__all__ = ["gru", "gru_cell"]


@constructor
def gru_cell(
    features: int,
    *,
    use_bias: bool = True,
    kernel_init: initializers.Initializer = initializers.lecun_normal(),
    recurrent_init: initializers.Initializer = initializers.orthogonal(),
    bias_init: initializers.Initializer = initializers.zeros,
) -> Layer:
    """One step of gated recurrent units, from h_{t−1} and x_t to h_t.

    x is the pair (h_{t−1}, x_t), and y the pair (h_t, h_t): the carry, and what is given out. `scan` runs it over time,
    and so does `gru`, which is faster. The formula is that of `gru`.

    Args, Params: as for `gru`. The first carry is zero.

    Backward. Write g = ∂L/∂h_t, the sum of ∂L/∂ the carry and ∂L/∂ the output, and m = h_{t−1} U_n + b′ for what the
    reset gate multiplies. From h_t = (1 − u) ⊙ n + u ⊙ h_{t−1}
        e_u = g ⊙ (h_{t−1} − n) ⊙ u (1 − u),   e_n = g ⊙ (1 − u) ⊙ (1 − n²),   e_r = e_n ⊙ m ⊙ r (1 − r).
    These are the gradients of x_t W + b, e = (e_r, e_u, e_n). The product h_{t−1} U reaches n through the reset gate,
    so its gradient is e′ = (e_r, e_u, e_n ⊙ r). As for `dense`,
        dW = x_tᵀ e,   dU = h_{t−1}ᵀ e′,   db = Σ_batch e,   db′ = Σ_batch e_n ⊙ r,
        dx_t = e Wᵀ,   dh_{t−1} = g ⊙ u + e′ Uᵀ.
    Kept: x_t, h_{t−1}, the gates, m.

    Raises:
        ConfigError: `features` is not a positive integer.
        ShapeError: x_t is not (batch, in).
        StructureError: the carry is not (batch, features).

    References: Cho, van Merriënboer, Gulcehre, Bahdanau, Bougares, Schwenk, Bengio, "Learning Phrase Representations
    using RNN Encoder–Decoder", EMNLP 2014.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> cell = fn.layers.gru_cell(4)
    >>> params, state = cell.init(jax.random.key(0), (jnp.zeros((5, 4)), jnp.ones((5, 3))))
    >>> (carry, y), state = cell.apply(params, state, (jnp.zeros((5, 4)), jnp.ones((5, 3))))
    >>> carry.shape, y.shape
    ((5, 4), (5, 4))
    """
    features = check_count("features", features)
    return cell_of(_STEP, features, _leaves(features, use_bias, kernel_init, recurrent_init, bias_init))


@constructor
def gru(
    features: int,
    *,
    reverse: bool = False,
    use_bias: bool = True,
    kernel_init: initializers.Initializer = initializers.lecun_normal(),
    recurrent_init: initializers.Initializer = initializers.orthogonal(),
    bias_init: initializers.Initializer = initializers.zeros,
) -> Layer:
    """Gated recurrent units: a recurrence that mixes a candidate into its state.

        (a_r, a_u, a_n) = x_t W + b,   (q_r, q_u, q_n) = h_{t−1} U
        r = σ(a_r + q_r),   u = σ(a_u + q_u),   n = tanh(a_n + r ⊙ (q_n + b′))
        h_t = (1 − u) ⊙ n + u ⊙ h_{t−1}

    h is zero before the first position. The reset gate r multiplies the product, as in torch, cuDNN, flax and by
    default in Keras. In the paper it multiplies h_{t−1}. The order of the gates is that of torch: reset, update,
    candidate. Keras has the update gate first. torch's second biases of r and u are to be added to b.

    Args:
        features: width of h.
        reverse: whether to run from the last position to the first. h_t stays at the place of x_t.
        use_bias: whether to add b and b′.
        kernel_init, recurrent_init, bias_init: `(key, shape, dtype) -> array` for W, U and the biases, each gate by
            itself.

    Input (batch, time, in), also as a `Padded`. Output (batch, time, features), h at all times. `last()` takes the last
    one. Where a `Padded` has nothing, h is held, and the output is zero.
    Params: `kernel` (in, 3 features), `recurrent_kernel` (features, 3 features), `bias` (3 features,) and for b′
    `recurrent_bias` (features,).

    `scan(gru_cell(…))` computes the same, and with `carry=True` takes another first state.

    Backward. h_t reaches L directly, through y_t = h_t, and through the next step: through its product with U, and
    through u ⊙ h. With g_t = ∂L/∂y_t, and e_t, e′_t as the derivation of `gru_cell` has them for one step, for t from
    last to first
        dh_t = g_t + dh_{t+1} ⊙ u_{t+1} + e′_{t+1} Uᵀ,   e_t and e′_t from dh_t,
    with dh = e′ = 0 after the last position. Then
        dW = Σ_t x_tᵀ e_t,   dU = Σ_t h_{t−1}ᵀ e′_t,   dx_t = e_t Wᵀ,   db = Σ_t Σ_batch e_t,
    each as one product of all times, after the loop, and db′ is the sum of the last part of e′_t. Where there is
    nothing, h does not change, so e_t = e′_t = 0 and dh_t = dh_{t+1}. Kept: x, h, the gates, q_n + b′.

    Raises:
        ConfigError: `features` is not a positive integer.
        ShapeError: `x` is not (batch, time, in), or has another width than the params.
        DtypeError: `x` is not floating-point, or not of the params' dtype.

    References: Cho and others, "Learning Phrase Representations using RNN Encoder–Decoder", EMNLP 2014. Chung,
    Gulcehre, Cho, Bengio, "Empirical Evaluation of Gated Recurrent Neural Networks on Sequence Modeling", arXiv
    1412.3555.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> layer = fn.layers.gru(8)
    >>> params, state = layer.init(jax.random.key(0), jnp.ones((5, 7, 3)))
    >>> layer.apply(params, state, jnp.ones((5, 7, 3)))[0].shape
    (5, 7, 8)
    """
    features = check_count("features", features)
    cell = gru_cell(
        features, use_bias=use_bias, kernel_init=kernel_init, recurrent_init=recurrent_init, bias_init=bias_init
    )
    leaves = _leaves(features, use_bias, kernel_init, recurrent_init, bias_init)
    return layer_of(_STEP, features, leaves, reverse, cell)


def _advance(params, zx, zh, states):
    (ar, au, an), (qr, qu, m), (before,) = gates_of(zx, 3), gates_of(zh, 3), states
    if "recurrent_bias" in params:
        m = m + params["recurrent_bias"].astype(m.dtype)
    r, u = jax.nn.sigmoid(ar + qr), jax.nn.sigmoid(au + qu)
    n = jnp.tanh(an + r * m)
    return ((1 - u) * n + u * before,), (r, u, n, m, before)


def _retreat(kept, dafter):
    (r, u, n, m, before), (dh,) = kept, dafter
    dn = dh * (1 - u) * (1 - n * n)
    dz = [dn * m * r * (1 - r), dh * (before - n) * u * (1 - u), dn]
    return jnp.concatenate(dz, -1), (dh * u,)


def _through(kept, dz):
    dr, du, dn = gates_of(dz, 3)
    return jnp.concatenate([dr, du, dn * kept[0]], -1)


_STEP = Step(3, 1, _advance, _retreat, _through)


def _leaves(features, use_bias, kernel_init, recurrent_init, bias_init):
    def leaves(width):
        return {
            "kernel": (per_gate(kernel_init, 3), (width, 3 * features)),
            "recurrent_kernel": (per_gate(recurrent_init, 3), (features, 3 * features)),
            "bias": use_bias and (per_gate(bias_init, 3), (3 * features,)),
            "recurrent_bias": use_bias and (bias_init, (features,)),
        }

    return leaves
