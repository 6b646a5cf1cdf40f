"""Losses made of losses: weighted sums, and the share of a part of a batch."""

import functools
import inspect
import operator
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import jax
import jax.numpy as jnp

from funcnet.checks import check_choice, describe, nonnegative
from funcnet.dtypes import widen
from funcnet.errors import ConfigError
from funcnet.losses.loss import Loss
from funcnet.losses.reduction import as_floats
from funcnet.made import Part, constructor, own_call, spelled, within_layer
from funcnet.trees import total
from funcnet.types import LossFn

__all__ = ["share", "weighted_sum"]


@constructor
def weighted_sum(**parts: tuple[float, LossFn]) -> Loss[...]:
    """A sum of losses, Σ_k c_k L_k: the loss of a model with several outputs, or several losses of one output.

    If the prediction is a dict, each part gets the entry of its name. Otherwise each part gets the whole prediction.
    The same holds for the target, but a part without an entry in a dict of targets gets `None`. `where` and `weights`
    are one for all parts, or a dict with one for each. A part without an entry in that dict counts everything. Each
    part is reduced by itself, `"mean"` or `"sum"`. `counted` is a dict with one number per part.

    Args:
        parts: for each name a pair of the factor c ≥ 0 and the loss. The loss is one of `funcnet.losses`, or a function
            `(prediction, target) -> ()`. With such a function the sum has no hand-derived gradient and no `counted`.

    Gradient. ∂/∂p Σ_k c_k L_k = Σ_k c_k ∂L_k/∂p. If the prediction is a dict, the gradient is a dict too, with `None`
    for entries that no part reads. `gradient` itself is `None` if a part has no gradient.

    Raises:
        ConfigError: no parts, a name that is not an identifier, a part that is not such a pair, a negative factor,
            another reduction, or `where` or `weights` of unknown parts.
        StructureError: the prediction is a dict without an entry for a part. The parts raise their own errors too.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> loss = fn.losses.weighted_sum(digit=(1.0, fn.losses.softmax_cross_entropy), ink=(0.5, fn.losses.huber))
    >>> loss
    weighted_sum(digit=(1.0, softmax_cross_entropy), ink=(0.5, huber))
    >>> prediction = {"digit": jnp.zeros((1, 2)), "ink": jnp.array([3.0]), "code": jnp.ones((1, 8))}
    >>> target = {"digit": jnp.array([1]), "ink": jnp.array([0.5])}
    >>> loss(prediction, target), loss.gradient(prediction, target)["code"]
    (Array(1.6931472, dtype=float32), None)
    """
    if not parts:
        raise ConfigError("expected at least one part, got none; name one, as in digit=(1.0, softmax_cross_entropy).")
    for name, part in parts.items():
        if not name.isidentifier():
            raise ConfigError(f"expected names of letters, digits and _, got {name!r}; rename the part.")
        if not (isinstance(part, tuple) and len(part) == 2 and callable(part[1])):
            raise ConfigError(f"expected {name} to be a pair (factor, loss), got {describe(part)}.")
    return _added({name: (nonnegative(f"the factor of {name}", c), loss) for name, (c, loss) in parts.items()})


def _added(parts: Mapping[str, tuple[float, LossFn]]) -> Loss[...]:
    """The weighted sum of parts."""

    def each(run, prediction, target, reduction, where, weights):
        """`run(part, options)` of every part, by name. An error in it names the part."""
        check_choice("reduction", reduction, ("mean", "sum"))
        done = {}
        for name, part in whole.each_part(prediction, target, where, weights).items():
            options = part.options | ({} if reduction == "mean" else {"reduction": reduction})
            _check_options(name, part.loss, options)
            with within_layer(f"[{name}]"):
                done[name] = run(part, options)
        return done

    def value(prediction, target, *, reduction="mean", where=None, weights=None):
        def run(part, options):
            value = part.loss(part.prediction, part.target, **options)
            return part.weight * widen(value), value

        # Wide, because in half precision a factor may be infinite whose product is not.
        terms, values = zip(*each(run, prediction, target, reduction, where, weights).values(), strict=True)
        with jax.numpy_dtype_promotion("standard"):  # one part may be in half precision
            return functools.reduce(operator.add, terms).astype(jnp.result_type(*values))

    def gradient(prediction, target, *, reduction="mean", where=None, weights=None):
        def run(part, options):
            slopes = part.loss.gradient(part.prediction, part.target, **options)
            return jax.tree.map(lambda leaf: (part.weight * widen(leaf)).astype(leaf.dtype), slopes)

        slopes = each(run, prediction, target, reduction, where, weights)
        if isinstance(prediction, dict):
            return {name: slopes.get(name) for name in prediction}
        return total(slopes.values())

    def check(prediction, target, *, where=None, weights=None):
        def run(part, options):
            if (own := getattr(part.loss, "check", None)) is not None:
                own(part.prediction, part.target, **options)

        each(run, prediction, target, "mean", where, weights)

    def counted(prediction, target, *, reduction="mean", where=None, weights=None):
        def run(part, options):
            return part.loss.counted(part.prediction, part.target, **options)

        return each(run, prediction, target, reduction, where, weights)

    def every(attribute):
        return all(getattr(loss, attribute, None) is not None for _, loss in parts.values())

    whole = Loss(
        value,
        gradient if every("gradient") else None,
        own_call("weighted_sum"),
        check=check,
        counted=counted if every("counted") else None,
        parts=parts,
    )
    return whole


def _check_options(name, loss, options):
    """Check that the loss of a part takes its options. A user's own loss may be `(prediction, target) -> ()`."""
    known = inspect.signature(loss).parameters
    missing = [] if any(p.kind is p.VAR_KEYWORD for p in known.values()) else [o for o in options if o not in known]
    if missing:
        got = f"{spelled(loss)}{inspect.signature(loss)}"
        fix = f"add it to the arguments, or give {missing[0]} as a dict without {name}"
        raise ConfigError(f"expected the loss of {name} to take {missing[0]}=, got {got}; {fix}.")


def share(loss: Any, totals: Any) -> Loss[...]:
    """What a part of a batch adds to its mean: Σ c v over the part, divided by the total of the whole batch.

    The values of all parts add up to the loss of the whole batch, and their gradients add up to its gradient. This
    holds however the batch was split, also with `where`, weights and class weights. Each term of a `weighted_sum` has
    its own total.

    Args:
        loss: a loss that has `counted`.
        totals: `loss.counted(prediction, target, where=…, weights=…)` of the whole batch, which may be traced. The sum
            of the counts of the parts will do too, but not if the loss has `reduction="sum"` fixed: such a loss is
            divided by 1.

    Raises:
        ConfigError: the loss is not a mean of values.

    >>> import jax.numpy as jnp, funcnet as fn
    >>> p, t, where = jnp.array([1.0, 2.0, 5.0]), jnp.zeros(3), jnp.array([True, True, False])
    >>> loss = fn.losses.mean_squared_error
    >>> part = fn.losses.share(loss, loss.counted(p, t, where=where))
    >>> loss(p, t, where=where), part(p[:1], t[:1], where=where[:1]) + part(p[1:], t[1:], where=where[1:])
    (Array(2.5, dtype=float32), Array(2.5, dtype=float32))
    """
    if getattr(loss, "counted", None) is None and not getattr(loss, "parts", None):
        name, fix = spelled(loss), "make it with losses.loss and weights="
        raise ConfigError(f"{name}: expected a loss that is a mean of values, got one without counted; {fix}.")
    if loss.parts:
        whole = _added({name: (c, share(part, totals[name])) for name, (c, part) in loss.parts.items()})
    else:
        whole = _of_total(loss, totals)
    made = own_call(loss.made.word)
    roles = {role: getattr(whole, role) for role in ("value", "gradient", "check")}
    return replace(
        whole,
        **{role: Part(made, role, function) for role, function in roles.items() if function is not None},
        made=made, counted=None, parts=None, takes=None,
    )  # fmt: skip


def _of_total(loss: Loss[...], count: Any) -> Loss[...]:
    """The sum divided by `count`. The weights are divided, because the sum itself may be infinite in half precision."""
    count = jnp.asarray(count)
    scale = 1 / jnp.where(count == 0, 1, count)

    def weighed(function):
        def call(prediction, target, *, where=None, weights=None):
            scaled = scale if weights is None else scale * as_floats(weights, scale)
            return function(prediction, target, reduction="sum", where=where, weights=scaled)

        return call

    return replace(loss, value=weighed(loss), gradient=loss.gradient and weighed(loss.gradient))
