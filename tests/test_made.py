"""Calls that know themselves: equality, sharing, spelling, errors led by the call."""

import gc
import weakref

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet import initializers, layers, losses, optimizers, schedules
from funcnet.errors import ConfigError, ShapeError
from funcnet.made import leading, spelled, within


def deep(n):
    model = layers.dense(3)
    for _ in range(n):
        model = layers.serial(model, layers.residual(layers.serial(layers.dense(3), layers.tanh())))
    return model


TWICE = {
    "dense": lambda: layers.dense(3, kernel_init=initializers.he_normal()),
    "container": lambda: deep(2),
    "named": lambda: layers.parallel(b=layers.dense(3), a=layers.relu()),
    "optimizer": lambda: optimizers.adam(schedules.warmup(schedules.cosine_decay(1e-3, 10), 3)),
    "wrapper": lambda: optimizers.clipped(optimizers.sgd(0.1), norm=1.0),
    "initializer": lambda: initializers.variance_scaling(2.0),
    "loss": lambda: losses.partial(losses.softmax_cross_entropy, label_smoothing=0.1),
    "sum of losses": lambda: losses.weighted_sum(a=(1.0, losses.huber), b=(0.5, losses.mean_squared_error)),
    "metric": lambda: fn.metrics.top_k_accuracy(3),
    "lists": lambda: layers.reshape((2, -1)),
}


@pytest.mark.parametrize("make", TWICE.values(), ids=TWICE.keys())
def test_what_is_written_twice_is_equal(make):
    one, two = make(), make()
    assert one is not two
    assert one == two
    assert hash(one) == hash(two)
    assert one.made is two.made
    assert len({one, two}) == 1


@pytest.mark.parametrize(
    "one, two",
    [
        (lambda: layers.dense(3), lambda: layers.dense(4)),
        (lambda: layers.dense(3), lambda: layers.dense(3, use_bias=False)),
        (
            lambda: layers.serial(a=layers.relu(), b=layers.tanh()),
            lambda: layers.serial(b=layers.tanh(), a=layers.relu()),
        ),
        (lambda: layers.leaky_relu(0.0), lambda: layers.leaky_relu(-0.0)),
        (lambda: optimizers.sgd(1), lambda: optimizers.sgd(1.0)),
        (lambda: optimizers.sgd(lambda step: 0.1), lambda: optimizers.sgd(lambda step: 0.1)),
        (lambda: layers.relu(), lambda: layers.tanh()),
    ],
)
def test_other_calls_are_not(one, two):
    assert one() != two()


def test_another_backward_is_another_layer():
    """Equality lies in the functions, or a mutant would be taken for the original."""
    layer = layers.dense(3)
    mutant = layer._replace(backward=lambda params, residuals, dy: layer.backward(params, residuals, 2 * dy))
    assert mutant != layer
    assert layers.serial(mutant) != layers.serial(layer)
    assert mutant.made is layer.made


def test_a_layer_of_a_user_is_never_taken_for_the_librarys():
    def softmax():
        return layers.elementwise(lambda x: 2 * x, lambda x, y: 2 + 0 * x)

    own = fn.constructor(softmax)
    assert str(own()) == str(layers.softmax()) == "softmax()"
    assert own() != layers.softmax()
    assert own().made.constructor is own
    assert own() == own()
    assert softmax() != softmax()  # without the decorator every one is its own
    assert softmax().made.constructor is None


def test_layer_is_still_a_pair():
    init, apply = layers.dense(2)[:2]
    params, state = init(jax.random.key(0), jnp.ones((1, 3)))
    assert apply(params, state, jnp.ones((1, 3)))[0].shape == (1, 2)


@pytest.mark.parametrize(
    "made, text",
    [
        (lambda: layers.dense(3, use_bias=True), "dense(3)"),
        (
            lambda: layers.dense(features=3, bias_init=initializers.normal(0.1)),
            "dense(3, bias_init=normal(stddev=0.1))",
        ),
        (lambda: layers.residual(layers.relu(), layers.identity()), "residual(relu(), shortcut=identity())"),
        (lambda: layers.serial(trunk=layers.relu(), head=layers.dense(1)), "serial(trunk=relu(), head=dense(1))"),
        (lambda: layers.parallel(layers.relu(), combine=None), "parallel(relu(), combine=None)"),
        (lambda: layers.reshape([2, -1]), "reshape((2, -1))"),
        (lambda: layers.reshape((6,)), "reshape((6,))"),
        (lambda: optimizers.frozen(optimizers.sgd(0.1), str.isupper), "frozen(sgd(0.1), isupper)"),
        (lambda: schedules.join([0.1, schedules.constant(0.2)], [5]), "join((0.1, constant(0.2)), (5,))"),
    ],
)
def test_a_call_prints_as_a_user_would_write_it(made, text):
    assert str(made().made) == spelled(made()) == text


def test_arguments_are_kept_by_name():
    made = layers.repeat(layers.relu(), 4).made
    assert (made.word, made.constructor, made.arguments["n"]) == ("repeat", layers.repeat, 4)
    assert made.arguments["inner"] == layers.relu()
    assert layers.conv(2, 3).made.arguments["padding"] == "SAME"
    with pytest.raises(TypeError, match="does not support item assignment"):
        made.arguments["n"] = 5


def test_lists_among_the_arguments_are_frozen():
    shape = [2, -1]
    layer = layers.reshape(shape)
    shape[0] = 5
    assert layer.apply((), (), jnp.ones((1, 4)))[0].shape == (1, 2, 2)


def test_equal_calls_are_found_again_at_any_depth_in_no_time():
    """Without sharing, each level would compare the ones below four times over: 4¹² comparisons."""
    assert hash(deep(12)) == hash(deep(12))
    assert deep(12) == deep(12)


def test_calls_and_arrays_among_their_arguments_do_not_live_for_ever():
    class Values(np.ndarray):
        """An array that can be referred to weakly."""

    values = np.ones(3).view(Values)

    @fn.constructor
    def shift(by):
        return layers.elementwise(lambda x: x + by, lambda x, y: 1 + 0 * x)

    made, array = weakref.ref(shift(values).made), weakref.ref(values)
    assert shift(values) == shift(values)
    assert shift(values) != shift(np.ones(3))  # what has no hash counts by identity
    del values
    gc.collect()
    assert made() is None
    assert array() is None


def test_wrong_arguments_are_pythons_own_error():
    with pytest.raises(TypeError, match=r"dense\(\) missing 1 required positional argument: 'features'"):
        layers.dense()
    with pytest.raises(TypeError, match=r"relu\(\) takes 0 positional arguments but 1 was given"):
        layers.relu(3)


def test_an_error_is_led_once_by_the_innermost_call():
    with pytest.raises(ConfigError, match=r"^dense\(0\): expected features to be a positive integer, got 0\.$"):
        layers.serial(layers.dense(0))
    model = layers.serial(layers.relu(), layers.repeat(layers.serial(layers.flatten(), layers.dense(3)), 2))
    params, state = model.init(jax.random.key(0), jnp.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"^serial\[1\] repeat serial\[1\] dense\(3\): expected params\['kernel'\]"):
        model.apply(params, state, jnp.ones((2, 4)))


def test_raw_errors_get_a_note_with_the_place():
    @fn.constructor
    def broken():
        return layers.elementwise(lambda x: 1 / 0, lambda x, y: x)

    with pytest.raises(ZeroDivisionError, match="division") as caught:
        layers.serial(layers.serial(broken()), layers.relu()).apply((((),), ()), (((),), ()), jnp.ones((1, 2)))
    assert caught.value.__notes__ == ["funcnet: raised in serial[0]", "funcnet: raised in serial[0]"]


def test_places_of_ones_own():
    with (
        pytest.raises(ConfigError, match=r"^tower\[2\] dense\(0\): expected"),
        within("tower[2]"),
    ):
        layers.dense(0)
    with pytest.raises(ConfigError, match=r"^inner: expected k$"), leading("fit"), leading("inner"):
        raise ConfigError("expected k")


def test_what_another_constructor_made_is_handed_on():
    assert fn.models.mlp((3, 2)).made.constructor is layers.serial
    assert layers.squeeze_excitation(4).made.constructor is layers.gated


def test_a_container_is_built_again_around_other_layers():
    model = layers.serial(trunk=layers.dense(3), head=layers.parallel(layers.relu(), layers.tanh(), combine=None))
    relu, *others = model.inside.layers
    again = model.inside.rebuild(layers.recompute(relu), *others)
    assert str(again) == "serial(trunk=recompute(dense(3)), head=parallel(relu(), tanh(), combine=None))"
    assert model.inside.rebuild(*model.inside.layers) == model


def test_equal_functions_are_one_program():
    traces = []

    @fn.constructor
    def counted(factor):
        def forward(x, *, key, train):
            traces.append(factor)
            return factor * x, None

        return layers.parameterless(forward, lambda residuals, dy: factor * dy)

    programs = {}
    for factor in (2.0, 2.0, 3.0):
        layer = counted(factor)
        programs.setdefault(layer.apply, jax.jit(layer.apply))((), (), jnp.ones(2))
    assert traces == [2.0, 3.0]
