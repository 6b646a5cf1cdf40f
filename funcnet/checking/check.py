"""`check_gradients`: hand-derived against automatic and numeric gradients, in float64, leaf by leaf."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from funcnet.checking.inside import locate
from funcnet.checking.numeric import differences, elements, sample
from funcnet.checking.report import GradientReport, Row
from funcnet.checking.subjects import Subject, function_subject, layer_subject, loss_subject
from funcnet.checks import check_count, positive
from funcnet.errors import ConfigError
from funcnet.trees import check_same_structure, flatten_with_paths
from funcnet.types import Layer

__all__ = ["check_gradients"]

ENGINES = ("backprop", "autodiff", "numeric")
DIRECTIONS = 8  # random directions beside a sample: they see every element a little


def check_gradients(
    target: Layer | Callable[..., Any],
    x: Any,
    y: Any = None,
    *,
    gradient: Callable[..., Any] | None = None,
    engines: Sequence[str] = ENGINES,
    params: Any = None,
    state: Any = None,
    modes: Sequence[str] = ("evaluation", "training"),
    seeds: int = 1,
    seed: int = 0,
    most: int = 2000,
    tolerance: float = 1e-10,
    numeric_tolerance: float = 1e-6,
) -> GradientReport:
    """Compare the gradients of a layer, a model, a loss or a function by hand, by autodiff and by finite differences.

    Everything runs in float64, whatever the caller's configuration, which stays as it is. Cotangents are random: the
    gradient of a plain sum through a normalisation is zero, and zero agrees with anything.

    Args:
        target: a `Layer` (a model is one too); a loss of `funcnet.losses` or your own; or a function with `gradient`.
        x: the input: an array, or a `jax.ShapeDtypeStruct` for a random one. For a loss the prediction; for a function
            its one argument, a tree.
        y: for a loss, its target.
        gradient: for a function `x -> scalar`, the hand-written `x -> tree like x`.
        engines: two or three of `"backprop"` (the hand-derived one), `"autodiff"` and `"numeric"`.
        params, state: of a layer; by default drawn by its `init`, then moved off their starting values, because zeros
            hide mistakes.
        modes: of a layer.
        seeds: how many draws of parameters, cotangents and keys.
        seed: the first of them.
        most: elements that finite differences look at one by one; beyond that a sample of each leaf, and random
            directions through it. The report says which.
        tolerance: largest error of backprop against autodiff, norm-relative for each leaf.
        numeric_tolerance: largest error against finite differences, relative for each element.

    Returns:
        A `GradientReport`. For a model it names the layers whose own formula is wrong.

    Raises:
        ConfigError: impossible arguments.
        StructureError: a gradient that has not the leaves and shapes of what it belongs to.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> report = fn.checking.check_gradients(fn.layers.dense(2), jax.ShapeDtypeStruct((3, 4), jnp.float32))
    >>> report.ok, [row.leaf for row in report.rows[:3]]
    (True, ['params/bias', 'params/kernel', 'x'])
    """
    if len(set(engines)) < 2 or not set(engines) <= set(ENGINES):
        raise ConfigError(f"check_gradients: expected engines to be at least two of {ENGINES}, got {tuple(engines)}.")
    check_count("check_gradients", "seeds", seeds)
    check_count("check_gradients", "most", most)
    tolerance = positive("check_gradients", "tolerance", tolerance)
    numeric_tolerance = positive("check_gradients", "numeric_tolerance", numeric_tolerance)
    rows: list[Row] = []
    located: dict[str, None] = {}
    with jax.enable_x64(True):
        if isinstance(target, Layer):
            subjects = [layer_subject(target, mode) for mode in modes]
        elif gradient is not None:
            subjects = [function_subject(target, gradient)]
        else:
            subjects = [loss_subject(target)]
        sampling = ""
        for subject in subjects:
            for draw in range(seed, seed + seeds):
                point = subject.draw(draw, x, y, params, state)
                pairs, sampling = _compare(subject, point, engines, most, draw, tolerance, numeric_tolerance)
                rows = _merged(rows, pairs)
                if isinstance(target, Layer) and not all(row.ok for row in pairs):
                    located |= dict.fromkeys(locate(target, subject.mode == "training", point, tolerance))
    return GradientReport(tuple(rows), tuple(located), sampling)


def _compare(subject: Subject, point, engines, most, seed, tolerance, numeric_tolerance):
    """The rows of one draw, and how finite differences chose their elements."""
    by_hand, by_autodiff = jax.jit(lambda point: (subject.by_hand(point), subject.by_autodiff(point)))(point)
    check_same_structure(f"{subject.name}.backward", "what they belong to", by_autodiff, "gradients", by_hand)
    floor = _rounding_floor(point)
    rows = []
    if {"backprop", "autodiff"} <= set(engines):
        rows += _leaf_rows(subject, ("backprop", "autodiff"), by_hand, by_autodiff, tolerance, floor)
    sampling = "every element compared"
    if "numeric" in engines:
        both = {"backprop": by_hand, "autodiff": by_autodiff}
        suspects = {name: both[name] for name in engines if name in both}
        more, sampling = _numeric_rows(subject, point, suspects, most, seed, numeric_tolerance)
        rows += more
    return rows, sampling


def _rounding_floor(point):
    """What may differ by rounding alone, where a gradient cancels to nothing: some ε of the numbers that went in."""
    numbers = [float(jnp.max(jnp.abs(leaf), initial=0)) for leaf in jax.tree.leaves(point.variables)]
    cotangent = float(jnp.linalg.norm(jnp.ravel(point.dy))) if point.dy is not None else 1.0
    return 64 * np.finfo(np.float64).eps * max([1.0, *numbers]) * cotangent


def _leaf_rows(subject, engines, suspect, reference, tolerance, floor):
    """One row a leaf, all elements, by hand against autodiff."""
    rows = []
    for (path, a), b in zip(flatten_with_paths(suspect), jax.tree.leaves(reference), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        ok = np.linalg.norm(a - b) <= tolerance * np.linalg.norm(b) + floor
        places = np.argwhere(np.ones(a.shape, bool))
        rows.append(_row(subject, path, engines, a.size, a.ravel(), b.ravel(), places, ok))
    return rows


def _numeric_rows(subject, point, suspects, most, seed, tolerance):
    """One row a leaf and engine against finite differences, and how their elements were chosen."""
    leaves = flatten_with_paths(point.variables)
    edges = np.cumsum([0, *(leaf.size for _, leaf in leaves)])
    chosen = sample([leaf.size for _, leaf in leaves], most, seed)

    def scalar(variables):
        return subject.scalar(point, variables)

    numeric = differences(scalar, point.variables, elements(chosen, edges[-1]), len(chosen))
    rows = []
    for name, suspect in suspects.items():
        flat = np.asarray(ravel_pytree(suspect)[0])[chosen]
        right = _agree(flat, numeric, np.sqrt(np.mean(np.square(flat))), tolerance)
        for (path, leaf), start, stop in zip(leaves, edges[:-1], edges[1:], strict=True):
            here = (chosen >= start) & (chosen < stop)
            places = np.stack(np.unravel_index(chosen[here] - start, leaf.shape or (1,)), -1)[:, : leaf.ndim]
            values, kinks = (flat[here], numeric.value[here]), numeric.kink[here]
            rows.append(_row(subject, path, (name, "numeric"), leaf.size, *values, places, right[here].all(), kinks))
    if len(chosen) == edges[-1]:
        return rows, f"finite differences at all {len(chosen)} elements"
    rows += _direction_rows(subject, point, scalar, suspects, seed, tolerance)
    return rows, (
        f"finite differences at {len(chosen)} of {edges[-1]} elements, sampled from each leaf, and along "
        f"{DIRECTIONS} random directions"
    )


def _direction_rows(subject, point, scalar, suspects, seed, tolerance):
    """A gradient's share along random directions through all leaves at once."""
    size = ravel_pytree(point.variables)[0].size
    directions = jax.random.normal(jax.random.key(seed), (DIRECTIONS, size)) / size**0.5
    numeric = differences(scalar, point.variables, lambda i: directions[i], DIRECTIONS)
    rows = []
    for name, suspect in suspects.items():
        flat = ravel_pytree(suspect)[0]
        shares = np.asarray(directions @ flat)
        right = _agree(shares, numeric, float(jnp.linalg.norm(flat)) / size**0.5, tolerance)
        places = np.arange(DIRECTIONS)[:, None]
        values = (shares, numeric.value)
        rows.append(
            _row(
                subject, "random directions", (name, "numeric"), DIRECTIONS, *values, places, right.all(), numeric.kink
            )
        )
    return rows


def _agree(suspect, numeric, size, tolerance):
    """Where a gradient agrees with finite differences; at a kink they cannot say otherwise."""
    allowed = tolerance * np.maximum(np.abs(suspect), 1e-3 * size) + numeric.error
    return (np.abs(suspect - numeric.value) <= allowed) | numeric.kink


def _row(subject, path, engines, size, a, b, places, ok, kinks=None):
    """A row from the numbers of two engines and their places; kinks are counted and left out."""
    usable = np.ones(a.shape, bool) if kinks is None else ~kinks
    distance, reference = np.linalg.norm((a - b)[usable]), np.linalg.norm(b[usable])
    worst = values = None
    ulps = 0.0
    if usable.any():
        gaps = np.where(usable, np.abs(a - b), -1)
        at = int(np.argmax(gaps))
        worst, values = tuple(int(i) for i in places[at]), (float(a[at]), float(b[at]))
        ulps = float(gaps[at] / np.spacing(max(abs(b[at]), np.finfo(np.float64).tiny)))
    return Row(
        target=subject.name,
        mode=subject.mode,
        leaf=path,
        engines=engines,
        size=int(size),
        checked=int(a.size),
        kinks=int((~usable).sum()),
        error=float(distance / reference if reference else np.inf if distance else 0.0),
        worst=worst,
        values=values,
        ulps=ulps,
        ok=bool(ok),
    )


def _merged(rows, more):
    """One row for each leaf over all draws: the worst."""
    kept = {(row.mode, row.leaf, row.engines): row for row in rows}
    for row in more:
        key = (row.mode, row.leaf, row.engines)
        old = kept.get(key)
        kept[key] = row if old is None or (not row.ok, row.error) > (not old.ok, old.error) else old
    return list(kept.values())
