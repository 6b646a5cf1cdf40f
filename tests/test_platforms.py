"""Programs for platforms that are not here: every layer and every loss is lowered for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import CASES, draw, draw_shapes
from numerics import worst_leaf

from funcnet import losses
from funcnet.catalogue import LARGE_MODELS, LOSSES
from funcnet.checking.subjects import parted
from funcnet.gradients.cotangents import as_cotangent, as_gradient

ELSEWHERE = ("cuda", "rocm", "tpu")


def both_engines(layer):
    """`(params, state, x, key)` -> y, the new state, and the gradients by hand and by autodiff."""

    def run(params, state, x, key):
        y, new_state, residuals = layer.forward(params, state, x, key=key, train=True)
        dy = parted(y)[0]
        _, vjp = jax.vjp(lambda params, x: layer.apply(params, state, x, key=key, train=True)[0], params, x)
        return y, new_state, layer.backward(params, residuals, dy), as_gradient(vjp(as_cotangent(y, dy)))

    return run


def lowered(function, *args):
    """The text of the program for the other platforms, with the names of scopes."""
    return jax.jit(function).trace(*args).lower(lowering_platforms=ELSEWHERE).as_text(debug_info=True)


@pytest.mark.parametrize("name", CASES | LARGE_MODELS)
def test_every_layer_is_lowered_for_other_platforms(name):
    """Forward, and backward by hand and by autodiff, without the forms for a CPU."""
    case = (CASES | LARGE_MODELS)[name]
    assert "cpu_only" not in lowered(both_engines(case.layer), *draw_shapes(case, jnp.float32))


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_lowered_for_other_platforms(name):
    row = LOSSES[name]
    loss = losses.partial(row.loss, **row.options) if row.options else row.loss
    prediction, target = np.float32(row.prediction), np.asarray(row.target)

    def run(prediction, target):
        return loss(prediction, target), loss.gradient(prediction, target), jax.grad(loss)(prediction, target)

    assert "cpu_only" not in lowered(run, prediction, target)


def test_the_forms_for_a_cpu_are_seen():
    """So that the laws above can fail."""
    case = CASES["conv_1d_wide"]
    traced = jax.jit(both_engines(case.layer)).trace(*draw_shapes(case, jnp.float32))
    assert "cpu_only" in traced.lower(lowering_platforms=("cpu",)).as_text(debug_info=True)


@pytest.mark.parametrize("name", [
    "attention", "attention_grouped", "avg_pool", "avg_pool_no_pad", "batch_norm", "conv", "conv_strided",
    "group_norm", "layer_norm", "max_pool", "max_pool_overlapping", "silu",
])  # fmt: skip
def test_the_forms_for_a_tpu_give_the_same(x64, monkeypatch, name):
    case = CASES[name]
    args, run = draw(case), both_engines(case.layer)
    here = jax.jit(run)(*args)
    chosen = []

    def for_a_tpu(*args, default, **forms):
        chosen.append(forms)
        return forms.get("tpu", default)(*args)

    monkeypatch.setattr(jax.lax, "platform_dependent", for_a_tpu)
    with jax.default_matmul_precision("high"):  # a CPU knows no precisions, but traces anew what was traced before
        there = jax.jit(lambda *args: run(*args))(*args)
    assert chosen
    assert worst_leaf(here, there) <= 1e-13
