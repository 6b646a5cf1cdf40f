"""`descent`, of which optimizers are made, and `rescaled`: an optimizer of one's own, slots of any tree, mistakes.

That what is made of it obeys the laws of all optimizers is in `test_optimizers`.
"""

import math
from typing import NamedTuple

import chex
import jax
import jax.numpy as jnp
import pytest

from funcnet.errors import ConfigError, ShapeError, StructureError
from funcnet.made import constructor
from funcnet.optimizers import adam, adamw, descent, frozen, rescaled, sgd

PARAMS = {"bias": jnp.ones(2), "kernel": jnp.ones((3, 2))}


class Own(NamedTuple):
    step: jax.Array
    params: jax.Array
    scale: jax.Array
    first: object = None
    second: object = None


def test_t_counts_from_one_and_the_schedule_from_zero():
    """d = t and the rate is the step, so that p = −Σ (t − 1) t."""
    optimizer = descent(Own, lambda step: step, lambda p, g, t: (t + 0 * g,))
    state, seen = optimizer.init(jnp.zeros(())), []
    for _ in range(4):
        state = optimizer.update(state, jnp.ones(()))
        seen.append(float(state.params))
    assert seen == [0, -2, -8, -20]


def own(direction, **options):
    @constructor
    def mine(learning_rate):
        return descent(Own, learning_rate, direction, **options)

    return mine(0.1)


def stepped(direction, slots=("first", "second")):
    optimizer = own(direction, slots=slots)
    return optimizer.update(optimizer.init({"w": jnp.ones((2, 3))}), {"w": jnp.ones((2, 3))})


def test_slots_of_a_tree_for_each_leaf():
    """Adafactor's rows and columns of a matrix, in float32 beside half precision."""

    def direction(p, g, t, factors):
        rows, columns = jnp.mean(jnp.square(g), -1), jnp.mean(jnp.square(g), -2)
        factors = {"rows": factors["rows"] + rows, "columns": factors["columns"] + columns}
        square = jnp.outer(factors["rows"], factors["columns"]) / jnp.mean(factors["rows"])
        return g / jnp.sqrt(square), factors

    def zeros(p):
        return {"rows": jnp.zeros(p.shape[0], p.dtype), "columns": jnp.zeros(p.shape[1], p.dtype)}

    optimizer = own(direction, slots={"first": zeros})
    params = {"half": jnp.zeros((2, 3), jnp.bfloat16), "whole": jnp.zeros((2, 1))}
    grads = {"half": jnp.ones((2, 3), jnp.bfloat16), "whole": jnp.array([[1.0], [-2.0]])}
    state = optimizer.init(params)
    after = jax.jit(optimizer.update)(state, grads)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(after.first))
    assert jax.tree.structure(after) == jax.tree.structure(state)
    # Squares of rank one, here 1 and (1, 4), are kept exactly: every number moves by the rate.
    chex.assert_trees_all_close(after.first["whole"], {"rows": jnp.array([1.0, 4.0]), "columns": jnp.array([2.5])})
    chex.assert_trees_all_close(after.params["whole"], jnp.array([[-0.1], [0.1]]), rtol=1e-6)
    chex.assert_trees_all_close(after.params["half"], jnp.full((2, 3), -0.1, jnp.bfloat16), rtol=1e-2)


def test_slots_begin_as_said():
    slots = {"first": 0.5, "second": lambda p: (p, {"n": 3})}
    state = own(lambda p, g, t, *slots: (g, *slots), slots=slots).init({"w": jnp.full(2, 4.0)})
    chex.assert_trees_all_equal(state.first, {"w": jnp.full(2, 0.5)})
    chex.assert_trees_all_equal(state.second, {"w": (jnp.full(2, 4.0), {"n": jnp.array(3)})})
    assert state.second["w"][0] is not state.params["w"]
    assert not any(leaf.weak_type for leaf in jax.tree.leaves(state))
    chex.assert_trees_all_equal(stepped(lambda p, g, t, first: (g, first), ["first"]).second, ())
    chex.assert_trees_all_equal(stepped(lambda p, g, t, *both: (g, *both), {"first": (), "second": 1}).first, ())


@pytest.mark.parametrize(
    "make, error, message",
    [
        (lambda: own(max, slots=["third"]), ConfigError,
         r"^mine\(0\.1\): expected State to be a NamedTuple with the fields step, params, third, scale, got Own"),
        (lambda: descent(dict, 0.1, max), ConfigError, r"^expected State to be a NamedTuple .*, got dict with none"),
        (lambda: own(max, weight_decay=-1), ConfigError, r"^mine\(0\.1\): expected weight_decay to be a finite number"),
        (lambda: own(max, mask=3), ConfigError, r"^mine\(0\.1\): expected mask to be a regular expression or"),
        (lambda: stepped(lambda p, g, t, *slots: g), StructureError,
         r"^mine\(0\.1\): expected direction\(p, g, t, \*slots\) to return \(d, first, second\), got an array of"),
        (lambda: stepped(lambda p, g, t, *slots: (g, *slots, 1)), StructureError, r"\(d, first, second\), got 4"),
        (lambda: stepped(lambda p, g, t: g, []), StructureError, r"to return \(d,\), got an array"),
        (lambda: stepped(lambda p, g, t, *slots: (g[0], *slots)), StructureError,
         r"return d like p, float32\[2, 3\], got float32\[3\]; keep tree, shapes and dtypes"),
        (lambda: stepped(lambda p, g, t, first, second: (g, first, (second, 1))), StructureError,
         r"return second like what it got, float32\[2, 3\], got float32\[2, 3\], "),
        (lambda: stepped(lambda p, g, t, first, second: (g, first > 0, second)), StructureError,
         r"return first like what it got, float32\[2, 3\], got bool\[2, 3\]"),
        (lambda: sgd(0.1, momentum=0.9).update(sgd(0.1).init({"w": jnp.ones(1)}), {"w": jnp.ones(1)}), StructureError,
         r"^sgd\(0\.1, momentum=0\.9\): expected state\.velocity to be a tree like params, got a tuple \(\); t"),
        (lambda: sgd(0.1).update(adam(0.1).init(jnp.ones(1)), jnp.ones(1)), StructureError,
         r"^sgd\(0\.1\): expected state from init or update of this very optimizer, got a AdamState"),
    ],
)  # fmt: skip
def test_mistakes_in_an_optimizer_of_ones_own(make, error, message):
    with pytest.raises(error, match=message):
        make()


# The scale of the rate.


def test_a_scale_of_zero_stops_and_the_step_goes_on():
    state = rescaled(adamw(0.1).init(jnp.ones(2)), 0)
    state = adamw(0.1).update(state, jnp.ones(2))
    assert (float(state.scale), int(state.step), state.params.tolist()) == (0, 1, [1, 1])


def test_rescaled_finds_states_in_any_tree():
    trained = {
        "optimizer": frozen(sgd(0.1), lambda path: path == "bias").init(PARAMS),
        "scale": jnp.ones(2),
        "other": None,
    }
    after = rescaled(trained, 2)
    assert after["optimizer"].inner.scale == 2
    chex.assert_trees_all_equal(after["scale"], trained["scale"])


def test_params_may_have_a_leaf_called_scale():
    state = rescaled(sgd(0.1).init({"scale": jnp.ones(2)}), 2)
    assert (float(state.scale), state.params["scale"].tolist()) == (2, [1, 1])


class OwnState(NamedTuple):
    step: jax.Array
    params: jax.Array


@pytest.mark.parametrize(
    "state, factor, error, message",
    [
        (OwnState(0, jnp.ones(1)), 0.5, StructureError, r"^rescaled: expected the state of an optimizer with the"),
        ((OwnState(0, 1), sgd(0.1).init(jnp.ones(1))), 0.5, StructureError, r"^rescaled: .* got a OwnState"),
        ({"kernel": jnp.ones(1)}, 0.5, StructureError,
         r"^rescaled: .* with the field scale, got a dict .*; give your own optimizer's state that field"),
        (sgd(0.1).init(jnp.ones(1)), -0.5, ConfigError, r"^rescaled: expected factor to be .* >= 0, got -0\.5"),
        (sgd(0.1).init(jnp.ones(1)), math.nan, ConfigError, r"^rescaled: expected factor to be .* got nan"),
        (sgd(0.1).init(jnp.ones(1)), "half", ConfigError, r"^rescaled: expected factor to be .* got 'half'"),
        (sgd(0.1).init(jnp.ones(1)), jnp.ones(2), ShapeError,
         r"^rescaled: expected factor of shape \(\), got \(2,\); give one number"),
    ],
    ids=["none", "one of two", "params", "negative", "nan", "text", "array"],
)  # fmt: skip
def test_what_cannot_be_rescaled(state, factor, error, message):
    with pytest.raises(error, match=message):
        rescaled(state, factor)
