"""What is traced and compiled, and how often: equal configurations share their programs."""

from collections import Counter
from dataclasses import dataclass
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnet import gradients, initializers, layers, losses, metrics, optimizers, training
from funcnet.made import constructor

_compiled: list[str] = []


def _listen(event, duration, **about):
    if event.endswith("backend_compile_duration"):
        _compiled.append(about.get("fun_name", ""))


jax.monitoring.register_event_duration_secs_listener(_listen)

X = np.random.default_rng(0).normal(size=(40, 6)).astype(np.float32)
LABELS = np.arange(40) % 3


def compiled(function):
    """The names of the programs that are compiled while it runs."""
    before = len(_compiled)
    jax.block_until_ready(function())
    return _compiled[before:]


def network(*between):
    blocks = (layer for _ in range(4) for layer in (layers.dense(7), layers.relu()))
    return layers.serial(*blocks, *between, layers.dense(3))


def run(model=None, **options):
    """A run written anew each time, so that nothing is the same object twice."""
    settings = {"engine": "backprop", "epochs": 1, "batch_size": 16, "validation": (X[:10], LABELS[:10])}
    settings |= {"metrics": {"accuracy": metrics.accuracy()}} | options
    loss = settings.pop("loss", losses.softmax_cross_entropy)
    adam = optimizers.clipped(optimizers.adam(1e-3), norm=1.0)
    reports = training.fit(model or network(), loss, adam, (X, LABELS), **settings)
    return [report.metrics for report in reports][-1]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"engine": "autodiff", "penalty": losses.partial(losses.l2_penalty, strength=0.1)},
        {"loss": losses.partial(losses.softmax_cross_entropy, label_smoothing=0.1)},
        {"accumulate": 2},
    ],
    ids=["plain", "penalty", "partial_loss", "accumulate"],
)
def test_two_equal_runs_compile_the_programs_of_one(options):
    assert compiled(lambda: run(**options))
    assert compiled(lambda: run(**options)) == []


def test_evaluation_and_validation_share_a_program():
    model, named = network(), {"accuracy": metrics.accuracy()}
    *_, last = training.fit(
        model, losses.softmax_cross_entropy, optimizers.sgd(0.1), (X, LABELS), epochs=1, metrics=named,
        validation=(X[:10], LABELS[:10]),
    )  # fmt: skip
    state = last.state
    params, own = state.optimizer.params, state.model

    def evaluate(rows, **options):
        loss = losses.softmax_cross_entropy
        data = X[:rows], LABELS[:rows]
        return training.evaluate(network(), loss, params, own, data, metrics=named, key=state.key, **options)

    assert compiled(lambda: evaluate(10)) == []
    assert compiled(lambda: evaluate(33, batch_size=10)) == []  # the last batch is as large as the others
    assert "jit(accumulate)" in compiled(lambda: evaluate(11))


def test_fit_traces_init_once_and_forward_once_for_each_program():
    traced = Counter()

    @constructor
    def counting():
        def init(key, x):
            traced["init"] += 1
            return (), ()

        def forward(params, state, x, *, key=None, train=False):
            traced["training" if train else "evaluation"] += 1
            return x, state, None

        return layers.layer(forward, lambda params, residuals, dy: (params, dy), init=init)

    run(network(counting()))
    # In evaluation for the shapes of the layer behind it, for those of the prediction, and for the program itself.
    assert traced == {"init": 1, "training": 1, "evaluation": 3}


def test_leaves_of_one_shape_share_the_program_that_draws_them():
    model = layers.serial(*(layers.dense(9) for _ in range(5)), layers.conv(5, 3))
    x = jax.ShapeDtypeStruct((2, 4, 4, 9), jnp.float32)
    first = compiled(lambda: model.init(jax.random.key(0), x))
    assert first.count("jit(_drawn)") == 2
    assert compiled(lambda: model.init(jax.random.key(1), x)) == []
    assert compiled(lambda: layers.conv(5, 3).init(jax.random.key(1), x)) == []
    assert compiled(lambda: initializers.lecun_normal()(jax.random.key(2), (9, 9), jnp.float32)) == []


@dataclass(eq=True)  # and so without a hash
class Scaled:
    factor: float

    def __call__(self, prediction, target):
        return self.factor * jnp.mean(jnp.square(prediction - jax.nn.one_hot(target, 3)))


def test_a_loss_without_a_hash_is_taken():
    with pytest.raises(TypeError, match="unhashable"):
        hash(Scaled(2.0))
    options = {"engine": "autodiff", "batch_size": 20}
    got = run(loss=Scaled(2.0), **options)
    want = run(loss=partial(lambda p, t: 2 * jnp.mean(jnp.square(p - jax.nn.one_hot(t, 3)))), **options)
    assert got == want
    params, state = network().init(jax.random.key(0), X)
    twice = training.evaluate(network(), Scaled(2.0), params, state, (X, LABELS))
    once = training.evaluate(network(), Scaled(1.0), params, state, (X, LABELS))
    assert twice["loss"] == 2 * once["loss"]


def test_a_program_goes_by_a_short_name():
    """jax keeps compiled programs in files of their names, which for a deep model must not be the whole call."""
    deep = layers.serial(*[network()] * 9)
    gradient = gradients.autodiff(deep, losses.weighted_sum(a=(1.0, losses.mean_squared_error)))
    loss = losses.partial(losses.softmax_cross_entropy, label_smoothing=0.1)
    names = [function.__name__ for function in (deep.apply, gradient, loss, optimizers.adam(1e-3).update)]
    assert names == ["serial", "autodiff", "partial", "adam"]
