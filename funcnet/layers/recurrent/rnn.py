"""The simple recurrence: each state a dense layer of the input and of the state before."""

import jax.numpy as jnp

from funcnet import initializers
from funcnet.checks import check_choice, check_count
from funcnet.layers.recurrent.recurrence import Step, cell_of, layer_of
from funcnet.made import constructor
from funcnet.types import Layer

__all__ = ["rnn", "rnn_cell"]


@constructor
def rnn_cell(
    features: int,
    *,
    activation: str = "tanh",
    use_bias: bool = True,
    kernel_init: initializers.Initializer = initializers.lecun_normal(),
    recurrent_init: initializers.Initializer = initializers.orthogonal(),
    bias_init: initializers.Initializer = initializers.zeros,
) -> Layer:
    """One step of the simple recurrence, h_t = φ(x_t W + h_{t−1} U + b).

    x is the pair (h_{t−1}, x_t), and y the pair (h_t, h_t): the carry, and what is given out. `scan` runs it over time,
    and so does `rnn`, which is faster.

    Args, Params: as for `rnn`. The first carry is zero.

    Backward. Write g = ∂L/∂h_t, the sum of ∂L/∂ the carry and ∂L/∂ the output. With z_t the sum within φ,
        e = ∂L/∂z_t = g ⊙ φ′(z_t),   φ′ = 1 − h_t² for tanh,   φ′ = [h_t > 0] for relu,
        dW = x_tᵀ e,   dU = h_{t−1}ᵀ e,   db = Σ_batch e,   dx_t = e Wᵀ,   dh_{t−1} = e Uᵀ.
    Kept: x_t, h_{t−1}, h_t.

    Raises:
        ConfigError: `features` is not a positive integer, or `activation` has another value.
        ShapeError: x_t is not (batch, in).
        StructureError: the carry is not (batch, features).

    References: Elman, "Finding Structure in Time", Cognitive Science 1990.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> params = {"kernel": jnp.ones((1, 1)), "recurrent_kernel": jnp.ones((1, 1)), "bias": jnp.ones(1)}
    >>> (carry, y), _ = fn.layers.rnn_cell(1).apply(params, (), (jnp.zeros((1, 1)), -jnp.ones((1, 1))))
    >>> carry, y
    (Array([[0.]], dtype=float32), Array([[0.]], dtype=float32))
    """
    features = check_count("features", features)
    return cell_of(_step(activation), features, _leaves(features, use_bias, kernel_init, recurrent_init, bias_init))


@constructor
def rnn(
    features: int,
    *,
    activation: str = "tanh",
    reverse: bool = False,
    use_bias: bool = True,
    kernel_init: initializers.Initializer = initializers.lecun_normal(),
    recurrent_init: initializers.Initializer = initializers.orthogonal(),
    bias_init: initializers.Initializer = initializers.zeros,
) -> Layer:
    """Simple recurrent layer, h_t = φ(x_t W + h_{t−1} U + b) with h_0 = 0 before the first position.

    Args:
        features: width of h.
        activation: φ, `"tanh"` or `"relu"`.
        reverse: whether to run from the last position to the first. h_t stays at the place of x_t.
        use_bias: whether to add b.
        kernel_init, recurrent_init, bias_init: `(key, shape, dtype) -> array` for W, U and b.

    Input (batch, time, in), also as a `Padded`. Output (batch, time, features), h at all times. `last()` takes the last
    one. Where a `Padded` has nothing, h is held, and the output is zero.
    Params: `kernel` (in, features), `recurrent_kernel` (features, features), `bias` (features,).

    `scan(rnn_cell(…))` computes the same, and with `carry=True` takes another first state.

    Backward. h_t reaches L directly, through y_t = h_t, and through h_{t+1}. With g_t = ∂L/∂y_t and e_t = ∂L/∂z_t,
    where z_t is the sum within φ, for t from last to first
        e_t = (g_t + e_{t+1} Uᵀ) ⊙ φ′(z_t),
    with e = 0 after the last position. z_t = x_t W + h_{t−1} U + b then gives
        dW = Σ_t x_tᵀ e_t,   dU = Σ_t h_{t−1}ᵀ e_t,   db = Σ_t Σ_batch e_t,   dx_t = e_t Wᵀ,
    each as one product of all times. φ′ is 1 − h_t² for tanh, and [h_t > 0] for relu. Where there is nothing, h_t =
    h_{t−1}, so e_t = 0 and what arrives from h_{t+1} goes on to h_{t−1}. Kept: x, h.

    Raises:
        ConfigError: `features` is not a positive integer, or `activation` has another value.
        ShapeError: `x` is not (batch, time, in), or has another width than the params.
        DtypeError: `x` is not floating-point, or not of the params' dtype.

    References: Werbos, "Backpropagation Through Time", Proceedings of the IEEE 1990.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model = fn.layers.serial(fn.layers.rnn(8), fn.layers.rnn(8, reverse=True), fn.layers.last())
    >>> params, state = model.init(jax.random.key(0), jnp.ones((5, 7, 3)))
    >>> model.apply(params, state, jnp.ones((5, 7, 3)))[0].shape
    (5, 8)
    """
    features = check_count("features", features)
    step = _step(activation)
    cell = rnn_cell(
        features, activation=activation, use_bias=use_bias, kernel_init=kernel_init, recurrent_init=recurrent_init,
        bias_init=bias_init,
    )  # fmt: skip
    leaves = _leaves(features, use_bias, kernel_init, recurrent_init, bias_init)
    return layer_of(step, features, leaves, reverse, cell)


def _step(activation: str) -> Step:
    check_choice("activation", activation, ("tanh", "relu"))

    def advance(params, zx, zh, states):
        del params, states
        z = zx + zh
        # At 0 the slope of relu is 0, also under autodiff.
        h = jnp.tanh(z) if activation == "tanh" else jnp.where(z > 0, z, 0)
        return (h,), h

    def retreat(h, dafter):
        slope = 1 - h * h if activation == "tanh" else (h > 0).astype(h.dtype)
        return dafter[0] * slope, (0.0,)

    return Step(1, 1, advance, retreat)


def _leaves(features, use_bias, kernel_init, recurrent_init, bias_init):
    def leaves(width):
        return {
            "kernel": (kernel_init, (width, features)),
            "recurrent_kernel": (recurrent_init, (features, features)),
            "bias": use_bias and (bias_init, (features,)),
        }

    return leaves
