"""The checker finds nothing wrong with what is right: random shapes, ties, zeros, and sizes from 10⁻¹² to 10¹².

By default a seed for each layer and loss; `pytest tests/test_false_alarms.py --seeds 1000` for a thousand.
"""

import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import CASES, drawn_like

from funcnet.catalogue import LOSSES
from funcnet.checking import check_gradients
from funcnet.trees import map_leaves
from funcnet.types import Padded

KINDS = {
    "normal": lambda random, shape: random.normal(size=shape),
    "ties": lambda random, shape: random.integers(-2, 3, shape) / 2.0,
    "zeros": lambda random, shape: random.normal(size=shape) * random.integers(0, 2, shape),
    "all zero": lambda random, shape: np.zeros(shape),
    "large": lambda random, shape: random.choice([-1e4, 1e4], shape),
    "one size": lambda random, shape: random.normal(size=shape) * 10.0 ** random.integers(-12, 13),
    "any size": lambda random, shape: random.normal(size=shape) * 10.0 ** random.integers(-12, 13, shape),
}


@pytest.fixture
def randoms(request):
    """A generator a seed."""
    return [np.random.default_rng(seed) for seed in range(request.config.getoption("--seeds"))]


def numbers(random, shape):
    return KINDS[random.choice(list(KINDS))](random, shape)


def inputs(random, shape):
    """Such numbers in each floating leaf."""
    if isinstance(shape, Padded):
        return Padded(inputs(random, shape.values), drawn_like(random, shape).where)
    return numbers(random, shape.shape) if jnp.issubdtype(shape.dtype, jnp.floating) else drawn_like(random, shape)


@pytest.mark.parametrize("name", CASES)
def test_layers(name, randoms):
    case = CASES[name]
    for seed, random in enumerate(randoms):
        shapes = case.example(*random.integers(1, 4, 2).tolist())
        x = map_leaves(lambda leaf, random=random: inputs(random, leaf), shapes)
        modes = ("evaluation",) if seed % 4 == 3 and (case.random or case.counts) else ("training",)
        report = check_gradients(case.layer, x, engines=case.entry().engines, modes=modes, seed=seed)
        assert report.ok, (seed, x, report)


@pytest.mark.parametrize("name", LOSSES)
def test_losses(name, randoms):
    case = LOSSES[name]
    loss = case.entry().target
    for seed, random in enumerate(randoms):
        rows = random.integers(1, 5)
        shape = (rows, *case.prediction.shape[1:])
        prediction, target = numbers(random, shape), case.target[random.integers(0, len(case.target), rows)]
        if case.loss.takes in ("probabilities", "class probabilities"):
            prediction = np.clip(np.abs(prediction), 0.01, 0.99)
        report = check_gradients(loss, prediction, target, seed=seed)
        assert report.ok, (seed, prediction, target, report)
