"""Contrastive divergence: the gradient by which a restricted Boltzmann machine learns, and measures of its success."""

from typing import Any

import jax
import jax.numpy as jnp

from funcnet.checks import check_count, check_key
from funcnet.errors import ConfigError, MissingKeyError
from funcnet.gradients.engines import unpack
from funcnet.made import constructor, leading
from funcnet.pretraining.rbm import RBM
from funcnet.types import Array, Gradient, GradientFn, Key, Params

__all__ = ["contrastive_divergence", "gibbs", "pseudo_log_likelihood", "reconstruction_error"]


@constructor
def contrastive_divergence(machine: RBM, steps: int = 1) -> GradientFn:
    """The gradient of contrastive divergence, CD-k. It has the signature of the two engines, so `training.train_step`
    and every optimizer take it as it is.

    Maximum likelihood lowers the free energy of the data and raises it elsewhere. From p(v) = e^(−F(v)) / Z,
        ∂(−log p(v))/∂θ = ∂F(v)/∂θ − E_{v′ ~ p} ∂F(v′)/∂θ,
    where the last term is ∂ log Z/∂θ. It would need a sum over all states. Contrastive divergence uses v_k in place of
    v′. The k steps of `gibbs` from the data v₀ reach v_k. With ∂F/∂W = −v ⊗ p(h | v) and ⟨·⟩ the mean over the batch,
        dW = −(⟨v₀ᵀ p(h | v₀)⟩ − ⟨v_kᵀ p(h | v_k)⟩),   db = −⟨v₀ − v_k⟩,   dc = −⟨p(h | v₀) − p(h | v_k)⟩.
    This is the exact gradient of ⟨F(v₀)⟩ − ⟨F(v_k)⟩ with v_k held fixed. As k grows it becomes the gradient of the
    negative log-likelihood. The hidden units of the steps are drawn. Those of the products are probabilities, which
    keeps the mean and reduces the noise.

    A machine with `chains` takes v_k from its chains instead, and its state holds them for the next batch. This is
    persistent contrastive divergence: the few steps do not start from the data each time.

    Args:
        machine: of `rbm`.
        steps: k.

    The batch is `(v, target)` or `(v, target, where)`; the target is ignored. The returned `loss` is the number
    ⟨F(v₀)⟩ − ⟨F(v_k)⟩. It stays near 0 and does not measure progress. The returned `prediction` is v_k.

    Raises:
        ConfigError: `steps` is not a positive integer.
        MissingKeyError: when called without a key.
        DtypeError, ShapeError, DataError: when called, as for the machine.

    References: Hinton, "Training Products of Experts by Minimizing Contrastive Divergence", Neural Computation 2002;
    Tieleman, "Training Restricted Boltzmann Machines using Approximations to the Likelihood Gradient", ICML 2008.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> machine, optimizer = fn.pretraining.rbm(2), fn.optimizers.adam(0.1)
    >>> step = jax.jit(fn.training.train_step(fn.pretraining.contrastive_divergence(machine), optimizer))
    >>> v = jnp.array([[0.0, 1.0], [0.0, 1.0]])
    >>> state = fn.training.create_state(machine, optimizer, 0, v)
    >>> for _ in range(100):
    ...     state, metrics = step(state, (v, v))
    >>> machine.visible(state.optimizer.params, machine.hidden(state.optimizer.params, v))[0].round(1)
    Array([0., 1.], dtype=float32)
    """
    steps = check_count("steps", steps)

    def gradient(params, state, batch, key=None, /):
        if key is None:
            raise MissingKeyError("it draws random numbers, got key=None; pass key=jax.random.key(seed).")
        data, _, options = unpack(batch)
        data, weights = _marked(data, **options)
        persistent = not isinstance(state, tuple)
        reached = gibbs(machine, key, params, state if persistent else data, steps)
        also = jnp.full(len(reached), 1 / len(reached), data.dtype) if persistent else weights
        gap = weights @ machine.free_energy(params, data) - also @ machine.free_energy(params, reached)
        positive = machine.free_energy_gradient(params, data, weights)
        negative = machine.free_energy_gradient(params, reached, also)
        grads = jax.tree.map(jnp.subtract, positive, negative)
        return Gradient(gap, grads, reached if persistent else state, reached)

    return gradient


def _marked(v, where=None, weights=None):
    """The rows, with 0 in those that do not count, and the weights of their mean."""
    v = jnp.asarray(v)
    if where is None and weights is None:
        return v, jnp.full(len(v), 1 / len(v), v.dtype)
    marks = jnp.ones(len(v), v.dtype) if weights is None else jnp.asarray(weights, v.dtype)
    if where is not None:
        v, marks = jnp.where(where[:, None], v, 0), jnp.where(where, marks, 0)
    total = marks.sum()
    return v, marks / jnp.where(total == 0, 1, total)


def gibbs(machine: RBM, key: Key, params: Params, v: Any, steps: int) -> Array:
    """Steps of block Gibbs sampling, h ~ p(h | v), then v ~ p(v | h). After many steps v follows p(v).

    Args:
        machine: of `rbm`.
        key: a PRNG key; step i draws from `fold_in(key, i)`.
        params: of the machine.
        v: (batch, visible), the start of the chains.
        steps: how many, 0 for v itself.

    Returns: (batch, visible).

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> machine, v = fn.pretraining.rbm(2), jnp.zeros((1000, 1))
    >>> params, _ = machine.init(jax.random.key(0), v)
    >>> params["visible_bias"] = jnp.array([2.0])  # σ(2) = 0.88
    >>> bool(abs(fn.pretraining.gibbs(machine, jax.random.key(1), params, v, 1).mean() - 0.88) < 0.05)
    True
    """
    with leading("gibbs"):
        check_key(key)
        steps = check_count("steps", steps, 0)

    def step(i, v):
        hidden_key, visible_key = jax.random.split(jax.random.fold_in(key, i))
        return machine.sample_visible(visible_key, params, machine.sample_hidden(hidden_key, params, v))

    machine.hidden(params, v)  # its checks see the values of v; the checks within the loop do not
    return jax.lax.fori_loop(0, steps, step, jnp.asarray(v))


def reconstruction_error(machine: RBM, params: Params, v: Any) -> Array:
    """Mean squared difference of v and its reconstruction, the mean of the visible units given p(h | v).

    It is cheap and common, but it is not what training minimises. It also falls when the chains mix worse.

    Returns: (), the mean over all elements.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> machine, v = fn.pretraining.rbm(2), jnp.ones((4, 3))
    >>> params, _ = machine.init(jax.random.key(0), v)
    >>> zeros = jax.tree.map(jnp.zeros_like, params)
    >>> fn.pretraining.reconstruction_error(machine, zeros, v)  # each is reconstructed as ½
    Array(0.25, dtype=float32)
    """
    return jnp.mean(jnp.square(machine.visible(params, machine.hidden(params, v)) - v))


def pseudo_log_likelihood(machine: RBM, params: Params, v: Any) -> Array:
    """Σ_i log p(v_i | all other v), for binary visible units.

    Like the likelihood it is largest at the true parameters. It needs no sum over all states.

    With ṽ the row v whose unit i is flipped, p(v_i | others) = e^(−F(v)) / (e^(−F(v)) + e^(−F(ṽ))) = σ(F(ṽ) − F(v)).

    Args:
        machine: of `rbm`, with binary visible units.
        params: of the machine.
        v: (batch, visible); numbers between 0 and 1 are rounded.

    Returns: (), the mean over the rows.

    Raises:
        ConfigError: the visible units are Gaussian.

    References: Besag, "Statistical Analysis of Non-Lattice Data", The Statistician 1975.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> machine, v = fn.pretraining.rbm(2), jnp.ones((4, 3))
    >>> params, _ = machine.init(jax.random.key(0), v)
    >>> zeros = jax.tree.map(jnp.zeros_like, params)
    >>> fn.pretraining.pseudo_log_likelihood(machine, zeros, v)  # 3 log ½
    Array(-2.0794415, dtype=float32)
    """
    if machine.kind != "binary":
        raise ConfigError(f"pseudo_log_likelihood: expected a machine with binary visible units, got {machine}.")
    v = jnp.round(v)
    energy = machine.free_energy(params, v)

    def of_unit(i):
        flipped = v.at[:, i].set(1 - v[:, i])
        return -jnp.logaddexp(energy - machine.free_energy(params, flipped), 0)

    return jax.lax.map(of_unit, jnp.arange(v.shape[1])).sum(0).mean()
