"""Optimizers against those of optax and torch, 50 steps in float64: implementations that share nothing with these.

Runs where the two are installed (the extra `bench`): `pytest -m peers tests/test_optimizer_peers.py`.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnet.optimizers import adagrad, adam, adamw, lion, nadam, rmsprop, sgd

pytestmark = pytest.mark.peers

START, NOISE = np.random.default_rng(0).normal(size=6), np.random.default_rng(1).normal(size=(50, 6))


def gradient(p, noise):
    return p + 2 * np.sin(3 * p) + noise


def own_way(optimizer):
    state, seen, update = optimizer.init(jnp.asarray(START)), [], jax.jit(optimizer.update)
    for noise in NOISE:
        state = update(state, jnp.asarray(gradient(np.asarray(state.params), noise)))
        seen.append(np.asarray(state.params))
    return np.array(seen)


OPTAX = {
    "sgd": (sgd(0.1), lambda optax: optax.sgd(0.1)),
    "momentum": (sgd(0.02, momentum=0.9), lambda optax: optax.sgd(0.02, momentum=0.9)),
    "nesterov": (sgd(0.02, momentum=0.9, nesterov=True), lambda optax: optax.sgd(0.02, momentum=0.9, nesterov=True)),
    "rmsprop": (rmsprop(0.01, decay=0.9, eps_in_sqrt=True), lambda optax: optax.rmsprop(0.01)),
    "adam": (adam(0.05), lambda optax: optax.adam(0.05)),
    "adamw": (adamw(0.05, weight_decay=0.1), lambda optax: optax.adamw(0.05, weight_decay=0.1)),
    "lion": (lion(0.01), lambda optax: optax.lion(0.01, weight_decay=0.0)),
    "lion decay": (lion(0.01, weight_decay=0.1), lambda optax: optax.lion(0.01, weight_decay=0.1)),
}


@pytest.mark.parametrize("name", OPTAX)
def test_the_steps_of_optax(name, x64):
    optimizer, other = OPTAX[name]
    other = other(pytest.importorskip("optax"))
    p, seen = jnp.asarray(START), []
    state = other.init(p)
    with jax.numpy_dtype_promotion("standard"):
        for noise in NOISE:
            step, state = other.update(jnp.asarray(gradient(np.asarray(p), noise)), state, p)
            p = p + step
            seen.append(np.asarray(p))
    np.testing.assert_allclose(own_way(optimizer), seen, rtol=1e-12, atol=1e-12)


TORCH = {
    "nesterov": (
        sgd(0.02, momentum=0.9, nesterov=True),
        lambda torch, p: torch.optim.SGD(p, lr=0.02, momentum=0.9, nesterov=True),
    ),
    "dampening": (
        sgd(0.02, momentum=0.9, dampening=0.5),
        lambda torch, p: torch.optim.SGD(p, lr=0.02, momentum=0.9, dampening=0.5),
    ),
    "adagrad": (adagrad(0.1), lambda torch, p: torch.optim.Adagrad(p, lr=0.1)),
    "rmsprop": (
        rmsprop(0.01, centered=True, momentum=0.5),
        lambda torch, p: torch.optim.RMSprop(p, lr=0.01, centered=True, momentum=0.5),
    ),
    "adam": (adam(0.05), lambda torch, p: torch.optim.Adam(p, lr=0.05)),
    "amsgrad": (
        adam(0.05, b2=0.9, amsgrad=True),
        lambda torch, p: torch.optim.Adam(p, lr=0.05, betas=(0.9, 0.9), amsgrad=True),
    ),
    "nadam": (nadam(0.05), lambda torch, p: torch.optim.NAdam(p, lr=0.05)),
    "nadam decay": (nadam(0.05, momentum_decay=0.1), lambda torch, p: torch.optim.NAdam(p, 0.05, momentum_decay=0.1)),
}


@pytest.fixture
def torch64():
    """torch, whose scalars (such as the product of NAdam's momenta) else are of 32 bits."""
    torch = pytest.importorskip("torch")
    usual = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    yield torch
    torch.set_default_dtype(usual)


@pytest.mark.parametrize("name", TORCH)
def test_the_steps_of_torch(name, torch64, x64):
    optimizer, other = TORCH[name]
    p, seen = torch64.nn.Parameter(torch64.tensor(START)), []
    other = other(torch64, [p])
    for noise in NOISE:
        p.grad = torch64.tensor(gradient(p.detach().numpy(), noise))
        other.step()
        seen.append(p.detach().numpy().copy())
    np.testing.assert_allclose(own_way(optimizer), seen, rtol=1e-12, atol=1e-12)
