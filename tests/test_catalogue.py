"""The catalogue: nothing public is left out, and each row holds what its name says."""

import jax
import numpy as np
import pytest

from funcnet import gradients, layers, losses, models
from funcnet.catalogue import CATALOGUE, LARGE_MODELS, LAYERS, LOSSES, MODELS, PENALTIES, SUMS, TREES
from funcnet.trees import apart
from funcnet.types import Layer

GROUPS = {
    "layers": LAYERS | TREES, "models": MODELS | LARGE_MODELS, "losses": LOSSES, "sums": SUMS, "penalties": PENALTIES,
}  # fmt: skip
# What makes no layer by itself, takes layers apart, or runs models.
MACHINERY = {
    "accumulated", "as_custom_vjp", "autodiff", "backprop", "map_layers", "merged", "per_example", "per_example_norms",
    "plain_layers", "saliency", "within",
}  # fmt: skip

OF_SEVERAL = {"linear_cross_entropy"}  # losses whose prediction is several arrays


@pytest.mark.parametrize(
    "group, public",
    [
        ("layers", {*layers.__all__, *gradients.__all__} - MACHINERY),
        ("models", set(models.__all__)),
        ("losses", {name for name in losses.__all__ if isinstance(getattr(losses, name), losses.Loss)} - OF_SEVERAL),
        ("sums", {"weighted_sum", *OF_SEVERAL}),
        ("penalties", {name for name in losses.__all__ if name.endswith("_penalty")}),
    ],
)
def test_every_public_constructor_has_a_row(group, public):
    assert public
    assert sorted(public - set(GROUPS[group])) == []
    # And every row is a form of one of them.
    assert [name for name in GROUPS[group] if not any(f"{name}_".startswith(f"{one}_") for one in public)] == []


def test_no_name_stands_twice():
    assert len(CATALOGUE) == sum(map(len, GROUPS.values()))


@pytest.mark.parametrize("name", CATALOGUE)
@pytest.mark.usefixtures("x64")
def test_rows_hold_what_their_names_say(name):
    target, x, y, _ = CATALOGUE[name]
    if isinstance(target, Layer):
        params, state = jax.eval_shape(lambda key: target.init(key, x), jax.random.key(0))
        y = jax.eval_shape(lambda *a: target.apply(*a, key=jax.random.key(0), train=True)[0], params, state, x)
        assert {leaf.shape[0] for leaf in jax.tree.leaves(apart((x, y))[0])} == {jax.tree.leaves(x)[0].shape[0]}
    else:
        call = target.made.arguments.get("function", target).made  # of a partial the loss itself
        assert name.startswith(call.word)
        assert np.isfinite(target(x) if y is None else target(x, y))


def test_forms_differ():
    assert len({repr((entry.target, entry.x, entry.y)) for entry in CATALOGUE.values()}) == len(CATALOGUE)
