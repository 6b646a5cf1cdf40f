"""Models: their layers, the textbook derivation of the three-layer sigmoid network, and networks for images."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import worst_leaf

from funcnet import checking, gradients, initializers, layers, losses, models, optimizers, training
from funcnet.catalogue import CATALOGUE, LARGE_MODELS
from funcnet.errors import ConfigError

KEY = jax.random.key(0)


@pytest.mark.parametrize(
    "model, layers_in_order",
    [
        (models.mlp((3,)), ["dense(3, kernel_init=he_normal())"]),
        (
            models.mlp((5, 4, 3), activation=layers.tanh, kernel_init=initializers.zeros),
            [
                "dense(5, kernel_init=zeros)", "tanh()",
                "dense(4, kernel_init=zeros)", "tanh()", "dense(3, kernel_init=zeros)",
            ],
        ),
        (
            models.mlp((5, 3), dropout=0.5, use_bias=False, activation=lambda: layers.leaky_relu(0.1)),
            [
                "dense(5, use_bias=False, kernel_init=he_normal())", "leaky_relu(negative_slope=0.1)", "dropout(0.5)",
                "dense(3, use_bias=False, kernel_init=he_normal())",
            ],
        ),
        (
            models.sigmoid_network([4, 2], bias_init=initializers.ones),
            [
                "dense(4, kernel_init=xavier_normal(), bias_init=ones)", "sigmoid()",
                "dense(2, kernel_init=xavier_normal(), bias_init=ones)", "sigmoid()",
            ],
        ),
        (
            models.recurrent_classifier(3, features=(5, 4), recurrence=layers.rnn, dropout=0.1),
            ["rnn(5)", "dropout(0.1)", "rnn(4)", "dropout(0.1)", "last()", "dense(3)"],
        ),
    ],
)  # fmt: skip
def test_the_layers(model, layers_in_order):
    assert [str(layer) for layer in model.inside.layers] == layers_in_order


def test_linear_is_one_dense_layer():
    model = models.linear(2)
    assert model == layers.dense(2)
    params, state = model.init(KEY, jnp.ones((1, 3)))
    x = jnp.arange(12.0).reshape(4, 3)
    np.testing.assert_allclose(model.apply(params, state, x)[0], x @ params["kernel"] + params["bias"], rtol=1e-6)


def test_the_initializers_reach_every_layer():
    model = models.mlp((4, 3), kernel_init=initializers.constant(0.5), bias_init=initializers.ones)
    params, _ = model.init(KEY, jnp.ones((1, 2)))
    for layer_params in (params[0], params[2]):
        assert (layer_params["kernel"] == 0.5).all()
        assert (layer_params["bias"] == 1).all()


def test_the_output_is_linear():
    model = models.mlp((4, 2))
    params, state = model.init(KEY, jnp.ones((1, 3)))
    params[-1]["bias"] = jnp.array([-100.0, 100.0])
    y, _ = model.apply(params, state, jnp.zeros((1, 3)))
    assert y.tolist() == [[-100, 100]]


def test_an_activation_with_parameters_has_its_own_in_each_layer():
    params, _ = models.mlp((4, 3, 2), activation=layers.prelu).init(KEY, jnp.ones((1, 2)))
    assert [sorted(p) for p in params[1::2]] == [["negative_slope"], ["negative_slope"]]


def test_the_textbook_derivation(x64):
    """L = ½ Σ (ŷ − y)², example by example in columns, as it is written; funcnet's kernels are the transposes."""
    rng = np.random.default_rng(0)
    model = models.sigmoid_network((5, 2))
    params, state = model.init(KEY, jax.ShapeDtypeStruct((1, 3), jnp.float64))
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape)), params)
    x, target = rng.normal(size=(7, 3)), rng.uniform(size=(7, 2))

    def sigma(z):
        return 1 / (1 + np.exp(-z))

    W1, W2 = (np.asarray(params[i]["kernel"]).T for i in (0, 2))
    b1, b2 = (np.asarray(params[i]["bias"])[:, None] for i in (0, 2))
    expected = [np.zeros_like(a) for a in (W1, b1, W2, b2)]
    expected_dx, outputs = [], []
    for row, y in zip(x, target, strict=True):
        column, y = row[:, None], y[:, None]
        a1 = sigma(W1 @ column + b1)
        a2 = sigma(W2 @ a1 + b2)
        dz2 = (a2 - y) * a2 * (1 - a2)
        dz1 = W2.T @ dz2 * a1 * (1 - a1)
        for total, part in zip(expected, (dz1 @ column.T, dz1, dz2 @ a1.T, dz2), strict=True):
            total += part
        outputs.append(a2[:, 0])
        expected_dx.append((W1.T @ dz1)[:, 0])

    prediction, _, residuals = model.forward(params, state, x)
    grads, dx = model.backward(params, residuals, prediction - target)  # ∂L/∂ŷ = ŷ − y
    np.testing.assert_allclose(prediction, outputs, rtol=1e-14)
    np.testing.assert_allclose(dx, expected_dx, rtol=1e-13)
    for i, W, b in ((0, *expected[:2]), (2, *expected[2:])):
        np.testing.assert_allclose(grads[i]["kernel"], W.T, rtol=1e-13)
        np.testing.assert_allclose(grads[i]["bias"], b[:, 0], rtol=1e-13)


def test_a_step_down_the_gradient_lowers_the_loss(x64):
    """Each parameter moves by −η times its gradient: the loss falls by η ‖∇L‖², up to O(η²)."""
    model = models.sigmoid_network((5, 2))
    x, target = jnp.linspace(-1, 1, 12).reshape(4, 3), jnp.linspace(0, 1, 8).reshape(4, 2)
    params, state = model.init(KEY, x)

    def loss(params):
        return 0.5 * jnp.sum((model.apply(params, state, x)[0] - target) ** 2)

    prediction, _, residuals = model.forward(params, state, x)
    grads, _ = model.backward(params, residuals, prediction - target)
    eta = 1e-6
    moved = jax.tree.map(lambda p, g: p - eta * g, params, grads)
    fall = eta * sum(jnp.sum(g**2) for g in jax.tree.leaves(grads))
    assert float((loss(params) - loss(moved)) / fall) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize(
    "message, call",
    [
        (r"mlp\(\(\)\): expected features to be a tuple of widths, at least one, got \(\)", lambda: models.mlp(())),
        (r"mlp\(10\): expected features to be a tuple of widths", lambda: models.mlp(10)),
        (r"mlp\(\(4, 0\)\): expected each of features to be a positive integer, got 0", lambda: models.mlp((4, 0))),
        (r"sigmoid_network\(\(\)\): expected features", lambda: models.sigmoid_network(())),
        (r"sigmoid_network\(\('a',\)\): expected each of features .* got 'a'", lambda: models.sigmoid_network(("a",))),
        (r"dense\(0\): expected features to be a positive integer, got 0", lambda: models.linear(0)),
        (
            r"mlp\(\(4,\), dropout=True\): expected dropout .* in \[0, 1\), got True",
            lambda: models.mlp((4,), dropout=True),
        ),
        (
            r"mlp\(\(4,\), dropout=1.0\): expected dropout .* in \[0, 1\), got 1.0",
            lambda: models.mlp((4,), dropout=1.0),
        ),
    ],
)
def test_impossible_arguments(message, call):
    with pytest.raises(ConfigError, match=message):
        call()


@pytest.mark.parametrize(
    "written, message, activation",
    [
        (r"relu\(\)", r"to be a constructor, got relu\(\); leave out its \(\)", layers.relu()),
        ("'relu'", "to make a layer, such as layers.tanh, got 'relu'", "relu"),
        ("<lambda>", "to make a layer, such as layers.tanh", lambda: jnp.tanh),
    ],
)
def test_activations_are_constructors_of_layers(written, message, activation):
    with pytest.raises(ConfigError, match=rf"^mlp\(\(4, 2\), activation={written}\): expected activation {message}"):
        models.mlp((4, 2), activation=activation)


# Models for images.


@pytest.mark.parametrize("name", LARGE_MODELS)
def test_image_models(name):
    """By hand, by autodiff and numerically, in both modes; in a model the check looks inside residual blocks too."""
    entry = CATALOGUE[name]
    report = checking.check_gradients(entry.target, entry.x, most=300)
    assert report.ok, str(report)
    assert max(row.error for row in report.rows if row.engines == ("backprop", "autodiff")) <= 1e-13


def test_resnet_20_steps_alike_with_both_engines(x64):
    """On images of 32 × 32, as it is."""
    model, loss, optimizer = models.resnet(), losses.softmax_cross_entropy, optimizers.sgd(0.1)
    random = np.random.default_rng(0)
    x, target = jnp.asarray(random.normal(size=(2, 32, 32, 3))), jnp.array([3, 7])
    state = training.create_state(model, optimizer, 0, x)
    results = []
    for engine in (gradients.backprop, gradients.autodiff):
        gradient = engine(model, loss)
        computed = jax.jit(gradient)(state.optimizer.params, state.model, (x, target), KEY)
        results.append((computed, optimizer.update(state.optimizer, computed.grads)))
    (by_hand, updated), (by_autodiff, also_updated) = results
    assert by_hand.loss == pytest.approx(float(by_autodiff.loss), rel=1e-13)
    assert worst_leaf(by_hand.grads, by_autodiff.grads) <= 1e-11  # 20 layers of normalisation over two images
    assert worst_leaf(by_hand.state, by_autodiff.state) <= 1e-13
    assert worst_leaf(updated.params, also_updated.params) <= 1e-12


def test_scores_from_pixels(x64):
    """Softmax regression and the support vector machine are one model, with two losses."""
    model = models.softmax_regression(3)
    images, labels = jnp.asarray(np.random.default_rng(0).normal(size=(4, 2, 2, 1))), jnp.array([0, 2, 1, 1])
    params, state = model.init(KEY, images)
    scores = np.asarray(images).reshape(4, 4) @ np.asarray(params[1]["kernel"])
    np.testing.assert_allclose(model.apply(params, state, images)[0], scores, rtol=1e-14)
    margins = np.maximum(0, scores - scores[np.arange(4), labels][:, None] + 1)
    margins[np.arange(4), labels] = 0
    penalty = losses.partial(losses.l2_penalty, strength=0.5)
    svm = gradients.backprop(model, losses.multiclass_hinge, penalty=penalty)(params, state, (images, labels))
    expected = margins.sum(1).mean() + float(penalty(params))
    assert float(svm.loss) == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize(
    "message, make",
    [
        (r"resnet\(depth=21\): expected depth to be 6 n \+ 2, .* got 21", lambda: models.resnet(depth=21)),
        (r"resnet\(depth=2\): expected depth to be an integer >= 8, got 2", lambda: models.resnet(depth=2)),
        (
            r"vgg\(blocks=\(32, 64\)\): expected blocks to be tuples of features",
            lambda: models.vgg(blocks=(32, 64)),
        ),
        (r"expected each of blocks to be a positive integer, got 0", lambda: models.vgg(blocks=((0,),))),
        (r"expected each of hidden to be a positive integer, got 'a'", lambda: models.vgg(hidden=("a",))),
        (r"expected dropout to be a finite number in \[0, 1\), got 1", lambda: models.vgg(dropout=1)),
        (r"mobilenet\(blocks=\(64,\)\): expected blocks to be pairs", lambda: models.mobilenet(blocks=(64,))),
        (r"lenet\(features=\(6,\)\): expected features of two convolutions", lambda: models.lenet(features=(6,))),
    ],
)
def test_impossible_image_models(message, make):
    with pytest.raises(ConfigError, match=message):
        make()
