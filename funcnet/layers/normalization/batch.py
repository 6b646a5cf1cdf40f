"""Batch normalisation."""

import math

import jax.numpy as jnp

from funcnet import initializers
from funcnet.checks import fraction, positive
from funcnet.dtypes import at_least_float32, widen
from funcnet.errors import ConfigError, ShapeError
from funcnet.layers.layer import layer
from funcnet.layers.normalization import affine
from funcnet.made import constructor
from funcnet.numerics import inverse_root
from funcnet.types import Layer, Rules

__all__ = ["batch_norm"]


@constructor
def batch_norm(
    *,
    momentum: float = 0.9,
    epsilon: float = 1e-5,
    use_scale: bool = True,
    use_bias: bool = True,
    unbiased_running_var: bool = False,
    scale_init: initializers.Initializer = initializers.ones,
    bias_init: initializers.Initializer = initializers.zeros,
) -> Layer:
    """Each channel normalised to mean 0 and variance 1 over the batch, y = s (x − m) / √(v + ε) + b.

    In training m and v are the mean and the variance, Σ (x − m)² / n, of the channel's n numbers in this batch. The
    running statistics move towards them, mean ← μ mean + (1 − μ) m, and var in the same way. At evaluation m and v are
    the running statistics, so the output of an example does not depend on other examples.

    Args:
        momentum: μ in [0, 1), the weight of the old running value. The momentum of torch is the weight of the new
            value, 1 − μ.
        epsilon: ε > 0.
        use_scale, use_bias: whether to multiply by s, and whether to add b. The layer before the norm needs no bias of
            its own, because the mean contains it and is subtracted. The gradient of such a bias is 0 but for rounding.
            Adam divides it by its own size, so the bias wanders, and on several devices it wanders otherwise.
        unbiased_running_var: whether the running variance moves towards v n / (n − 1), as in torch.
        scale_init, bias_init: `(key, shape, dtype) -> array`.

    Input (batch, …, channels), for example images with any number of axes. Output of the shape and dtype of `x`.
    Params: `scale`, `bias` (channels,), in the dtype of `x`.
    State: `mean`, `var` (channels,), at first 0 and 1. All statistics are in float32 or wider. In bfloat16 a running
    mean would stop moving as soon as its steps are below 1/256 of it. Every row of a batch counts, even if a mask
    leaves it out of the loss.

    Backward. Write g = ∂L/∂y, r = 1/√(v + ε), x̂ = (x − m) r, d = s g = ∂L/∂x̂, and Σ for the sum over the n numbers of
    a channel. Since y = s x̂ + b, db = Σ g and ds = Σ g x̂. In training x_i reaches L
        through x̂_i itself:  d_i r,
        through m:           ∂L/∂m = −r Σ d and ∂m/∂x_i = 1/n make −r Σ d / n,
        through v:           ∂L/∂v = Σ d (x − m) · (−r³/2) and ∂v/∂x_i = 2 (x_i − m) / n make −r x̂_i Σ d x̂ / n,
    where v adds nothing through m, because Σ (x − m) = 0. With Σ d = s db and Σ d x̂ = s ds the sum of the three is
        dx = s r (g − db/n − x̂ ds/n).
    At evaluation m and v are constants, and dx = s r g. One pass over x and g gives all that dx needs, Σ g and Σ g (x −
    m). Kept: x, m, r, and the mode.

    Per example: the examples of a training batch share m and v, so no example has a gradient of its own. At evaluation
    the sums are taken over each example alone.

    Raises:
        ConfigError: a hyper-parameter is out of its range, or `gradients.per_example` is used in training.
        ShapeError: `x` has fewer than two axes, other channels than the params, or in training only one number for each
            channel.
        DtypeError: `x` is not floating-point, or not of the params' dtype.

    References: Ioffe, Szegedy, "Batch Normalization: Accelerating Deep Network Training by Reducing Internal Covariate
    Shift", ICML 2015.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> layer, x = fn.layers.batch_norm(), jnp.array([[1.0], [3.0]])
    >>> params, state = layer.init(jax.random.key(0), x)
    >>> y, state = layer.apply(params, state, x, train=True)
    >>> y.ravel(), state["mean"], state["var"]
    (Array([-0.999995,  0.999995], dtype=float32), Array([0.2], dtype=float32), Array([1.], dtype=float32))
    """
    momentum, epsilon = fraction("momentum", momentum), positive("epsilon", epsilon)

    def leaves(x):
        return affine.leaves(x, use_scale and scale_init, use_bias and bias_init)

    def start(x):
        channels, dtype = x.shape[-1], at_least_float32(x.dtype)
        return {"mean": jnp.zeros(channels, dtype), "var": jnp.ones(channels, dtype)}

    def forward(params, state, x, *, key=None, train=False):
        del key
        floats = widen(x)
        if train:
            mean, var, state = statistics(floats, state)
        else:
            mean, var = state["mean"], state["var"]
        r = inverse_root(var, epsilon)
        y = (floats - mean) * slope(params, r)
        y = y + params["bias"].astype(r.dtype) if use_bias else y
        return y.astype(x.dtype), state, {"x": x, "mean": mean, "r": r, "mode": () if train else None}

    def slope(params, r):
        return params["scale"].astype(r.dtype) * r if use_scale else r

    def statistics(x, state):
        """Mean and variance of the batch, and the state after it."""
        n = math.prod(x.shape[:-1])
        if n < 2:
            fix = "the variance of one number is 0; use larger batches, train=False, or layer_norm"
            raise ShapeError(f"expected two numbers or more per channel in training, got x of shape {x.shape}; {fix}.")
        mean = affine.totals(x) / n
        # From squared deviations, because in float32 E[x²] − E[x]² has no correct digit if the mean is 10⁴ times the
        # deviation.
        var = affine.totals(jnp.square(x - mean)) / n
        learnt = {"mean": mean, "var": var * (n / (n - 1)) if unbiased_running_var else var}
        moved = {leaf: momentum * old + (1 - momentum) * learnt[leaf] for leaf, old in state.items()}
        return mean, var, moved

    def wide(residuals, dy):
        """g and x − m, in the dtype of the statistics."""
        return dy.astype(residuals["r"].dtype), residuals["x"].astype(residuals["r"].dtype) - residuals["mean"]

    def backward(params, residuals, dy):
        x, r = residuals["x"], residuals["r"]
        g, deviation = wide(residuals, dy)
        dbias, dscale = affine.totals(g), affine.totals(g * deviation) * r
        if residuals["mode"] is not None:
            n = math.prod(x.shape[:-1])
            g = g - dbias / n - deviation * (r * dscale / n)
        return affine.gradients(x, dscale, dbias), (slope(params, r) * g).astype(x.dtype)

    def per_example(params, residuals, dy):
        del params
        if residuals["mode"] is not None:
            got = "one whose examples share their statistics in training; use group_norm or layer_norm"
            raise ConfigError(f"expected a layer that gives each example a gradient of its own, got {got}.")
        g, deviation = wide(residuals, dy)
        dscale = affine.within_examples(g * deviation) * residuals["r"]
        return affine.gradients(residuals["x"], dscale, affine.within_examples(g))

    return layer(forward, backward, leaves=leaves, state=start, rules=Rules(per_example))
