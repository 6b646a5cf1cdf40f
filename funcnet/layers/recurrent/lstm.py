"""Long short-term memory."""

import jax
import jax.numpy as jnp

from funcnet import initializers
from funcnet.checks import check_count, number
from funcnet.layers.recurrent.recurrence import Step, cell_of, gates_of, layer_of, per_gate
from funcnet.made import constructor
from funcnet.types import Layer

__all__ = ["lstm", "lstm_cell"]


@constructor
def lstm_cell(
    features: int,
    *,
    use_bias: bool = True,
    forget_bias: float = 1.0,
    kernel_init: initializers.Initializer = initializers.lecun_normal(),
    recurrent_init: initializers.Initializer = initializers.orthogonal(),
    bias_init: initializers.Initializer = initializers.zeros,
) -> Layer:
    """One step of long short-term memory, from (h_{t−1}, c_{t−1}) and x_t to (h_t, c_t).

    x is the pair ((h_{t−1}, c_{t−1}), x_t), and y the pair ((h_t, c_t), h_t): the carry, and what is given out. `scan`
    runs it over time, and so does `lstm`, which is faster. The formula is that of `lstm`.

    Args, Params: as for `lstm`. The first carry is zero.

    Backward. Write dh = ∂L/∂h_t, the sum of ∂L/∂ the carry and ∂L/∂ the output, and dc for ∂L/∂c_t of the carry. c_t
    also reaches h_t = o ⊙ tanh(c_t), so that s = dc + dh ⊙ o ⊙ (1 − tanh²(c_t)) is all of ∂L/∂c_t. Then
        e_i = s ⊙ g ⊙ i (1 − i),              e_f = s ⊙ c_{t−1} ⊙ f (1 − f),
        e_g = s ⊙ i ⊙ (1 − g²),               e_o = dh ⊙ tanh(c_t) ⊙ o (1 − o),
        dc_{t−1} = s ⊙ f,
    and with e = (e_i, e_f, e_g, e_o), as for `dense`,
        dW = x_tᵀ e,   dU = h_{t−1}ᵀ e,   db = Σ_batch e,   dx_t = e Wᵀ,   dh_{t−1} = e Uᵀ.
    Kept: x_t, h_{t−1}, c_{t−1}, the gates, tanh(c_t).

    Raises:
        ConfigError: `features` is not a positive integer, or `forget_bias` not a number.
        ShapeError: x_t is not (batch, in).
        StructureError: the carry is not two arrays (batch, features).

    References: Hochreiter, Schmidhuber, "Long Short-Term Memory", Neural Computation 1997.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> decoder = fn.layers.scan(fn.layers.lstm_cell(4), carry=True)
    >>> x = ((jnp.ones((5, 4)), jnp.zeros((5, 4))), jnp.ones((5, 7, 3)))
    >>> params, state = decoder.init(jax.random.key(0), x)
    >>> ((h, c), y), state = decoder.apply(params, state, x)
    >>> h.shape, c.shape, y.shape
    ((5, 4), (5, 4), (5, 7, 4))
    """
    features = check_count("features", features)
    leaves = _leaves(features, use_bias, forget_bias, kernel_init, recurrent_init, bias_init)
    return cell_of(_STEP, features, leaves)


@constructor
def lstm(
    features: int,
    *,
    reverse: bool = False,
    use_bias: bool = True,
    forget_bias: float = 1.0,
    kernel_init: initializers.Initializer = initializers.lecun_normal(),
    recurrent_init: initializers.Initializer = initializers.orthogonal(),
    bias_init: initializers.Initializer = initializers.zeros,
) -> Layer:
    """Long short-term memory: a recurrence whose memory c changes only through gates.

        (z_i, z_f, z_g, z_o) = x_t W + h_{t−1} U + b
        i = σ(z_i),   f = σ(z_f),   g = tanh(z_g),   o = σ(z_o)
        c_t = f ⊙ c_{t−1} + i ⊙ g,   h_t = o ⊙ tanh(c_t)

    h and c are zero before the first position. The order of the gates is that of torch and Keras: input, forget,
    candidate, output. torch has a second bias, which is to be added to this one.

    Args:
        features: width of h and c.
        reverse: whether to run from the last position to the first. h_t stays at the place of x_t.
        use_bias: whether to add b.
        forget_bias: is added to what `bias_init` gives for the forget gate, as in Keras. torch and flax have 0.
        kernel_init, recurrent_init, bias_init: `(key, shape, dtype) -> array` for W, U and b, each gate by itself.

    Input (batch, time, in), also as a `Padded`. Output (batch, time, features), h at all times. `last()` takes the last
    one. Where a `Padded` has nothing, h and c are held, and the output is zero.
    Params: `kernel` (in, 4 features), `recurrent_kernel` (features, 4 features), `bias` (4 features,).

    `scan(lstm_cell(…))` computes the same, and with `carry=True` takes another first state.

    Backward. h_t reaches L directly, through y_t = h_t, and through the next step. c_t reaches it through h_t and
    through c_{t+1}. With g_t = ∂L/∂y_t, and e_t as the derivation of `lstm_cell` has it for one step, for t from last
    to first
        dh_t = g_t + e_{t+1} Uᵀ,   s_t = s_{t+1} ⊙ f_{t+1} + dh_t ⊙ o_t ⊙ (1 − tanh²(c_t)),   e_t from dh_t and s_t,
    with e = s = 0 after the last position. z_t = x_t W + h_{t−1} U + b then gives
        dW = Σ_t x_tᵀ e_t,   dU = Σ_t h_{t−1}ᵀ e_t,   db = Σ_t Σ_batch e_t,   dx_t = e_t Wᵀ,
    each as one product of all times, after the loop. Where there is nothing, h and c do not change, so e_t = 0 and what
    arrives goes on to the step before. Kept: x, h, c, the gates, tanh(c).

    Raises:
        ConfigError: `features` is not a positive integer, or `forget_bias` not a number.
        ShapeError: `x` is not (batch, time, in), or has another width than the params.
        DtypeError: `x` is not floating-point, or not of the params' dtype.

    References: Hochreiter, Schmidhuber, "Long Short-Term Memory", Neural Computation 1997. Gers, Schmidhuber, Cummins,
    "Learning to Forget", Neural Computation 2000. Jozefowicz, Zaremba, Sutskever, "An Empirical Exploration of
    Recurrent Network Architectures", ICML 2015, on the bias of the forget gate.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model = fn.layers.serial(fn.layers.lstm(8), fn.layers.last(), fn.layers.dense(2))
    >>> params, state = model.init(jax.random.key(0), jnp.ones((5, 7, 3)))
    >>> params[0]["bias"][8:16]
    Array([1., 1., 1., 1., 1., 1., 1., 1.], dtype=float32)
    >>> model.apply(params, state, jnp.ones((5, 7, 3)))[0].shape
    (5, 2)
    """
    features = check_count("features", features)
    leaves = _leaves(features, use_bias, forget_bias, kernel_init, recurrent_init, bias_init)
    cell = lstm_cell(
        features, use_bias=use_bias, forget_bias=forget_bias, kernel_init=kernel_init, recurrent_init=recurrent_init,
        bias_init=bias_init,
    )  # fmt: skip
    return layer_of(_STEP, features, leaves, reverse, cell)


def _advance(params, zx, zh, states):
    del params
    zi, zf, zg, zo = gates_of(zx + zh, 4)
    i, f, g, o = jax.nn.sigmoid(zi), jax.nn.sigmoid(zf), jnp.tanh(zg), jax.nn.sigmoid(zo)
    before = states[1]
    c = f * before + i * g
    squashed = jnp.tanh(c)
    return (o * squashed, c), (i, f, g, o, before, squashed)


def _retreat(kept, dafter):
    (i, f, g, o, before, squashed), (dh, dc) = kept, dafter
    dc = dc + dh * o * (1 - squashed * squashed)
    dz = [dc * g * i * (1 - i), dc * before * f * (1 - f), dc * i * (1 - g * g), dh * squashed * o * (1 - o)]
    return jnp.concatenate(dz, -1), (0.0, dc * f)


_STEP = Step(4, 2, _advance, _retreat)


def _leaves(features, use_bias, forget_bias, kernel_init, recurrent_init, bias_init):
    forget_bias = number("forget_bias", forget_bias)

    def bias(key, shape, dtype):
        first = per_gate(bias_init, 4)(key, shape, dtype)
        return first.at[features : 2 * features].add(jnp.asarray(forget_bias, dtype))

    def leaves(width):
        return {
            "kernel": (per_gate(kernel_init, 4), (width, 4 * features)),
            "recurrent_kernel": (per_gate(recurrent_init, 4), (features, 4 * features)),
            "bias": use_bias and (bias, (4 * features,)),
        }

    return leaves
