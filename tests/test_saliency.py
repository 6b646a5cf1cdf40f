"""Class saliency by the hand-derived backward, against autodiff and by hand."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import norm_relative

from funcnet import layers, models
from funcnet.errors import DtypeError, LabelError, ShapeError
from funcnet.gradients import saliency

MODELS = {
    "vgg": models.vgg(3, blocks=((4,), (5,)), hidden=(6,), dropout=0.3),
    "residual": layers.serial(
        layers.residual(layers.serial(layers.conv(2, 3), layers.batch_norm(), layers.tanh())),
        layers.global_avg_pool(), layers.dense(3),
    ),
}  # fmt: skip
IMAGES = np.random.default_rng(0).normal(size=(4, 6, 6, 2))


@pytest.mark.parametrize("name", MODELS)
@pytest.mark.parametrize("classes", [None, 2, np.array([0, 2, 1, 1])], ids=["predicted", "one", "each"])
def test_it_is_the_gradient_of_autodiff(x64, name, classes):
    model, x = MODELS[name], jnp.asarray(IMAGES)
    params, state = model.init(jax.random.key(0), x)
    # Statistics that are not the batch's own: in training mode the answer would be another.
    state = jax.tree.map(lambda leaf: 1.5 * leaf + 0.1, state)

    def score(image, c):
        scores, _ = model.apply(params, state, image[None])  # by itself: a batch must not matter
        return scores[0, jnp.argmax(scores[0]) if c is None else c]

    each = None if classes is None else jnp.broadcast_to(classes, 4)
    want = jax.jit(jax.vmap(jax.grad(score), (0, None if each is None else 0)))(x, each)
    got = jax.jit(functools.partial(saliency, model))(params, state, x, classes)
    assert (got.shape, got.dtype) == ((4, 6, 6), jnp.float64)
    assert norm_relative(got, np.abs(want).max(-1)) <= 1e-13
    assert (np.abs(want).max((1, 2, 3)) > 0).all()


def test_by_hand():
    """Of linear scores the saliency is the kernel's column, whatever the image."""
    kernel = np.random.default_rng(1).normal(size=(2 * 2 * 3, 5)).astype(np.float32)
    model, x = models.softmax_regression(5), jnp.ones((2, 2, 2, 3))
    maps = saliency(model, ((), {"kernel": jnp.asarray(kernel), "bias": jnp.zeros(5)}), ((), ()), x, jnp.array([4, 0]))
    want = [np.abs(kernel[:, c].reshape(2, 2, 3)).max(-1) for c in (4, 0)]
    np.testing.assert_array_equal(maps, want)


def test_volumes_and_sequences_have_saliency_too():
    model = models.softmax_regression(2)
    for shape in ((3, 4, 2), (3, 2, 2, 2, 1)):
        x = jnp.ones(shape)
        assert saliency(model, *model.init(jax.random.key(0), x), x).shape == shape[:-1]


@pytest.mark.parametrize(
    "x, classes, error, message",
    [
        (jnp.ones((4, 64)), None, ShapeError,
         r"saliency: expected x of shape \(batch, size, …, channels\), got \(4, 64\); reshape"),
        (jnp.ones((4, 2, 2, 1), jnp.int32), None, DtypeError, "saliency: expected x of a floating dtype"),
        (jnp.ones((4, 2, 2, 1)), np.array([0, 1]), ShapeError,
         r"saliency: expected classes of shape \(4,\), got \(2,\); give one per image, or one for all"),
        (jnp.ones((4, 2, 2, 1)), np.array([0.0, 1, 2, 0]), LabelError, "saliency: expected classes to be integers"),
        (jnp.ones((4, 2, 2, 1)), np.array([0, 1, 2, 3]), LabelError,
         r"saliency: expected classes in 0\.\.2, got 3 at row 3; number"),
        (jnp.ones((4, 2, 2, 1)), -1, LabelError, r"saliency: expected classes in 0\.\.2, got -1; number"),
    ],
)  # fmt: skip
def test_errors(x, classes, error, message):
    model = models.softmax_regression(3)
    params, state = model.init(jax.random.key(0), jnp.ones((4, 2, 2, 1)))
    with pytest.raises(error, match=message):
        saliency(model, params, state, x, classes)


def test_a_model_without_scores():
    model, x = layers.conv(3, 3), jnp.ones((4, 5, 5, 1))
    with pytest.raises(ShapeError, match=r"saliency: expected the model's scores of shape \(4, classes\), got"):
        saliency(model, *model.init(jax.random.key(0), x), x)
