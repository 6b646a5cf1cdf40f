"""Positions: what tells a layer that looks at all times which time is which."""

import math
from typing import Any

import jax
import jax.numpy as jnp

from funcnet import initializers
from funcnet.checks import check_count, check_floating, positive
from funcnet.dtypes import widen
from funcnet.errors import ShapeError
from funcnet.layers.layer import cell, layer
from funcnet.layers.sequences import closed, opened_sequence, positions_of
from funcnet.made import constructor
from funcnet.types import Layer, Rules

__all__ = ["position_embedding", "rotated", "sinusoidal_positions"]


@constructor
def position_embedding(
    length: int, *, embedding_init: initializers.Initializer = initializers.normal(0.02)
) -> Layer:  # fmt: skip
    """A learned vector for each position, y_t = x_t + P[t].

    Args:
        length: how many positions have a vector. No sequence may be longer.
        embedding_init: `(key, shape, dtype) -> array`.

    Input and output (batch, time, features), or `Padded`. In a `Padded` only the positions count at which there is
    something, so padding moves no position.
    Params: `embedding` (length, features), in the dtype of `x`.

    Backward. With g = ∂L/∂y
        dP_t = Σ_batch g_t,   dx = g.
    Rows of positions that do not occur get zeros. Kept: the positions, if the input is `Padded`.

    Per example: dP_t = g_t.

    One position at a time, the carry is the position. At a position ≥ length y is NaN.

    Raises:
        ConfigError: `length` is not a positive integer.
        ShapeError: `x` does not have three axes, is longer than `length`, or has another width than the params.
        DtypeError: `x` is not floating-point, or not of the params' dtype.

    References: Gehring, Auli, Grangier, Yarats, Dauphin, "Convolutional Sequence to Sequence Learning", ICML 2017.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> layer = fn.layers.position_embedding(3)
    >>> layer.apply({"embedding": jnp.array([[1.0], [2.0], [4.0]])}, (), jnp.zeros((1, 2, 1)))[0].ravel()
    Array([1., 2.], dtype=float32)
    """
    length = check_count("length", length)

    def leaves(x):
        values, _ = _checked(x)
        _check_length(values.shape[1], length)
        return {"embedding": (embedding_init, (length, values.shape[-1]), values.dtype)}

    def rows(params, positions, x):
        del x
        return jnp.asarray(params["embedding"]).at[positions].get(mode="fill", fill_value=jnp.nan)

    def gradient(params, positions, dy):
        table, g = params["embedding"], widen(dy)
        g = jnp.sum(g, 0, keepdims=True) if positions.shape[:1] == (1,) else g
        return {"embedding": jnp.zeros(table.shape, g.dtype).at[positions].add(g).astype(table.dtype)}

    def per_example(params, positions, dy):
        n, table = dy.shape[0], params["embedding"]
        places = jnp.arange(n)[:, None], _positions(positions, dy)
        return {"embedding": jnp.zeros((n, *table.shape), dy.dtype).at[places].add(dy)}

    def start(params, state, x, length_of_all):
        _check_length(length_of_all, length)
        return jnp.zeros((), jnp.int32)

    return _added(rows, gradient, start, leaves=leaves, rules=Rules(per_example, _per_example_square))


@constructor
def sinusoidal_positions(base: float = 10000.0) -> Layer:
    """Waves of several lengths that tell each position apart, y_t = x_t + s_t, without parameters.

        s_{t,2i} = sin(t ω_i),   s_{t,2i+1} = cos(t ω_i),   ω_i = base^(−2i / features).

    Args:
        base: sets the longest wave, of about 2π · base positions.

    Input and output (batch, time, features), or `Padded`, in which only the positions count at which there is
    something.

    Backward. s does not depend on x, so dx = ∂L/∂y. Kept: nothing.

    One position at a time, the carry is the position.

    Raises:
        ConfigError: `base` is not a number > 0.
        ShapeError: `x` does not have three axes.
        DtypeError: `x` is not floating-point.

    References: Vaswani et al., "Attention Is All You Need", NeurIPS 2017, section 3.5.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> fn.layers.sinusoidal_positions().apply((), (), jnp.zeros((1, 2, 2)))[0]
    Array([[[0.        , 1.        ],
            [0.84147096, 0.5403023 ]]], dtype=float32)
    """
    base = positive("base", base)

    def rows(params, positions, x):
        del params
        features = x.shape[-1]
        angle = _angles(positions, (features + 1) // 2, features, base, widen(jnp.zeros((), x.dtype)).dtype)
        waves = jnp.stack([jnp.sin(angle), jnp.cos(angle)], -1)
        return waves.reshape(*positions.shape, -1)[..., :features].astype(x.dtype)

    return _added(rows, lambda params, positions, dy: params, lambda *given: jnp.zeros((), jnp.int32))


def _added(rows: Any, gradient: Any, start: Any, *, leaves: Any = None, rules: Rules = Rules()) -> Layer:
    """A layer y_t = x_t + rows(params, position of t, x), and its cell.

    Args:
        rows: `(params, positions, x) -> (*positions.shape, features)`.
        gradient: `(params, positions, dy) -> dparams`, with positions (1, time) or (batch, time).
        start: the `start` of the cell.
    """

    def forward(params, state, x, *, key=None, train=False):
        del key, train
        values, where = _checked(x)
        positions = positions_of(where, values.shape[1])
        y = values + rows(params, positions, values)
        return closed(y, where), state, None if where is None else positions

    def backward(params, positions, dy):
        return gradient(params, _positions(positions, dy), dy), dy

    def init_at(key, x):
        position, x_t = x
        del position
        return made.init(key, jax.ShapeDtypeStruct((x_t.shape[0], 1, *x_t.shape[1:]), x_t.dtype))

    def forward_at(params, state, x, *, key=None, train=False):
        del key, train
        position, x_t = x
        return (position + 1, x_t + rows(params, position, x_t)), state, position

    def backward_at(params, position, dy):
        dy_t = dy[1]
        return gradient(params, position[None, None], dy_t[:, None]), (None, dy_t)

    rules = rules._replace(cell=cell(forward_at, backward_at, init_at, start))
    made = layer(forward, backward, leaves=leaves, trees=True, rules=rules)
    return made


def _positions(positions, dy):
    """Those that were kept, or for a batch without padding all."""
    return positions_of(None, dy.shape[1]) if positions is None else positions


def _per_example_square(params, positions, dy):
    """No position occurs twice in an example, but for padding, whose dy is zero."""
    del params, positions
    return jnp.sum(jnp.square(dy.astype(jnp.result_type(float))), (1, 2))


def _checked(x):
    values, where = opened_sequence(x)
    check_floating("x", values)
    return values, where


def _check_length(time, length):
    if time > length:
        fix = "make it longer, or cut the sequences"
        raise ShapeError(f"expected at most {length} positions, got {time}; {fix}.")


def _angles(positions, n, features, base, dtype):
    """position · base^(−2i / features) for i < n, of the shape (*positions.shape, n)."""
    frequencies = jnp.exp(jnp.arange(n, dtype=dtype) * (-2 * math.log(base) / features))
    return positions[..., None].astype(dtype) * frequencies


def rotated(x: jax.Array, positions: jax.Array, base: float, *, back: bool = False) -> jax.Array:
    """Pairs of features turned by an angle that grows with the position, a rotation of each vector.

    The features i and i + d/2 are a pair. With θ = position · base^(−2i/d)
        y_i = x_i cos θ − x_{i+d/2} sin θ,   y_{i+d/2} = x_i sin θ + x_{i+d/2} cos θ.
    The product of two vectors then depends on the difference of their positions alone. The backward of a rotation is
    the rotation `back`, by −θ.

    Args:
        x: (batch, …, time, d), d even.
        positions: (batch or 1, time).

    References: Su, Lu, Pan, Murtadha, Wen, Liu, "RoFormer", arXiv 2104.09864.

    >>> rotated(jnp.array([[[1.0, 0.0]]]), jnp.array([[1]]), 10000.0)
    Array([[[0.5403023 , 0.84147096]]], dtype=float32)
    """
    d, wide = x.shape[-1], widen(x)
    angle = _angles(positions, d // 2, d, base, wide.dtype)
    angle = angle.reshape(angle.shape[0], *[1] * (x.ndim - 3), *angle.shape[1:])
    cos, sin = jnp.cos(angle), -jnp.sin(angle) if back else jnp.sin(angle)
    one, other = wide[..., : d // 2], wide[..., d // 2 :]
    return jnp.concatenate([one * cos - other * sin, one * sin + other * cos], -1).astype(x.dtype)
