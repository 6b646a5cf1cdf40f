"""Programs for platforms that are not here: every layer and every loss is lowered for them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from layer_cases import CASES, draw, draw_shapes
from numerics import worst_leaf

from funcnet import layers, losses, optimizers, training
from funcnet.catalogue import LARGE_MODELS, LOSSES
from funcnet.checking.subjects import parted
from funcnet.gradients.cotangents import as_cotangent, as_gradient
from funcnet.training import feeds
from funcnet.training.loop import ONE_DEVICE
from funcnet.training.vectors import as_vectors, lies_on_tpu, rows_at

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


def loss_and_gradients(row):
    """`(prediction, target)` -> the loss, and its gradients by hand and by autodiff."""
    loss = losses.partial(row.loss, **row.options) if row.options else row.loss
    return lambda p, target: (loss(p, target), loss.gradient(p, target), jax.grad(loss)(p, target))


@pytest.mark.parametrize("name", LOSSES)
def test_every_loss_is_lowered_for_other_platforms(name):
    row = LOSSES[name]
    assert "cpu_only" not in lowered(loss_and_gradients(row), np.float32(row.prediction), np.asarray(row.target))


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


def test_data_on_a_tpu_are_vectors(monkeypatch):
    """And make the same run, with images in a tree too."""
    random, labels = np.random.default_rng(0), np.arange(20) % 3
    x = {"image": random.normal(size=(20, 4, 4, 1)).astype(np.float32), "row": np.float32(random.normal(size=(20, 5)))}
    image = layers.serial(layers.conv(2, 3), layers.tanh(), layers.flatten(), layers.dense(3))
    model, entropy = layers.each(image=image, row=layers.dense(3)), losses.softmax_cross_entropy
    loss = losses.weighted_sum(image=(1.0, entropy), row=(0.5, entropy))

    def trained():
        data = x, {"image": labels, "row": labels[::-1]}
        *_, last = training.fit(model, loss, optimizers.sgd(0.1), data, epochs=2, batch_size=8)
        return last

    before = trained()
    monkeypatch.setattr(feeds, "lies_on_tpu", lambda layout: True)
    after = trained()
    assert worst_leaf(before.state.optimizer, after.state.optimizer) <= 1e-6
    assert float(before.metrics["loss"]) == pytest.approx(float(after.metrics["loss"]), rel=1e-6)


def test_what_lies_on_a_tpu(monkeypatch):
    assert not lies_on_tpu(ONE_DEVICE)
    assert lies_on_tpu(ONE_DEVICE._replace(platform="tpu"))
    monkeypatch.setattr(jax, "default_backend", lambda: "tpu")
    assert lies_on_tpu(ONE_DEVICE)
    assert not lies_on_tpu(ONE_DEVICE._replace(platform="cpu"))
    images, labels = as_vectors((np.ones((5, 2, 3)), np.ones(5)))
    assert (images.array.shape, images.shape, labels.shape) == ((5, 6), (2, 3), (5,))
    assert rows_at((images, labels), np.array([1, 2]))[0].shape == (2, 2, 3)
