"""`check_gradients`: gradients by hand against autodiff and numeric derivatives, in float64, leaf by leaf."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from funcnet.checking.inside import locate
from funcnet.checking.judging import DTYPES, agree, agree_with_differences, as_precise, norm_relative, rounding_floor
from funcnet.checking.numeric import differences, sample
from funcnet.checking.report import GradientReport, Row
from funcnet.checking.subjects import Subject, is_floating, subjects_of, widened
from funcnet.checks import check_count, positive
from funcnet.errors import ConfigError
from funcnet.made import leading
from funcnet.trees import check_same_structure, flatten_with_paths
from funcnet.types import Layer

__all__ = ["check_gradients"]

ENGINES = ("backprop", "autodiff", "numeric")
DIRECTIONS = 8  # random directions in addition to a sample; each of them touches every element


def check_gradients(
    target: Layer | Callable[..., Any],
    x: Any,
    y: Any = None,
    *,
    gradient: Callable[..., Any] | None = None,
    engines: Sequence[str] = ENGINES,
    params: Any = None,
    state: Any = None,
    modes: Sequence[str] | None = None,
    dtypes: Sequence[str] = ("float64",),
    seeds: int = 1,
    seed: int = 0,
    most: int = 2000,
    tolerance: float = 1e-10,
    numeric_tolerance: float = 1e-6,
) -> GradientReport:
    """Compare the gradients of a layer, a model, a loss or a function: by hand, by autodiff, by finite differences.

    It runs in float64, whatever the caller's configuration, and does not change that configuration. Cotangents are
    random, because the gradient of a plain sum through a normalisation is zero, and zero agrees with anything.

    Args:
        target: a `Layer`, which may be a whole model; a loss of `funcnet.losses` or your own; or a function, together
            with `gradient`.
        x: the input: an array, a `jax.ShapeDtypeStruct` for a random array, or a tree of either. Random integers are 0
            or 1. For a `Padded` of shapes the lengths are random too. For a loss x is the prediction, and for a
            function its one argument.
        y: for a loss, its target, given in the same way; `None` if the loss needs no target. A penalty has no target:
            `check_gradients(l2_penalty, params)`.
        gradient: for a function `x -> scalar`, its hand-written gradient `x -> tree like x`.
        engines: two or three of `"backprop"` (the gradient by hand), `"autodiff"` and `"numeric"` (extrapolated central
            differences, and complex steps if the target takes complex numbers).
        params, state: of a layer. By default its `init` draws them. The parameters are then moved away from their
            starting values, because zeros hide mistakes.
        modes: of a layer, `"evaluation"` and `"training"`. By default both. If they are the same program, it is checked
            once, and the rows of the report say `"both"`.
        dtypes: `"float64"` and, if wanted, shorter ones: `"float32"`, `"float16"`, `"bfloat16"`. In a short dtype the
            gradient by hand must be about as near to the exact one as autodiff's gradient in that dtype is.
        seeds: how many draws of parameters, cotangents and keys.
        seed: the first seed. Each further draw takes the next integer.
        most: how many elements numeric derivatives check one by one. Beyond that they check a sample of each leaf, and
            random directions through all leaves. The report says which.
        tolerance: largest error of backprop against autodiff, norm-relative for each leaf.
        numeric_tolerance: largest error against central differences, relative for each element. For complex steps
            `tolerance` is used.

    Returns:
        A `GradientReport`. For a model it names the layers whose own formula is wrong.

    Raises:
        ConfigError: impossible arguments.
        StructureError: a gradient does not have the leaves and shapes of what it belongs to.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> report = fn.checking.check_gradients(fn.layers.dense(2), jax.ShapeDtypeStruct((3, 4), jnp.float32))
    >>> report.ok, [row.leaf for row in report.rows[:3]]
    (True, ['params/bias', 'params/kernel', 'x'])
    """
    if len(set(engines)) < 2 or not set(engines) <= set(ENGINES):
        raise ConfigError(f"check_gradients: expected engines to be at least two of {ENGINES}, got {tuple(engines)}.")
    if "float64" not in dtypes or not set(dtypes) <= set(DTYPES):
        raise ConfigError(f"check_gradients: expected dtypes among {DTYPES}, including float64, got {tuple(dtypes)}.")
    with leading("check_gradients"):
        check_count("seeds", seeds)
        check_count("most", most)
        tolerance = positive("tolerance", tolerance)
        numeric_tolerance = positive("numeric_tolerance", numeric_tolerance)
    rows: list[Row] = []
    located: dict[str, None] = {}
    sampling = ""
    with jax.enable_x64(True):
        with leading("check_gradients"):
            subjects = subjects_of(target, x, y, modes=modes, gradient=gradient, params=params, state=state)
        for subject in subjects:
            for draw in range(seed, seed + seeds):
                point = subject.draw(draw, x, y, params, state)
                if not jax.tree.leaves(point.variables):
                    raise ConfigError(
                        "check_gradients: expected parameters or inputs of a floating dtype, got none in "
                        f"{subject.name}; there is no gradient to compare."
                    )
                found, sampling = _compare(subject, point, engines, most, draw, tolerance, numeric_tolerance)
                for dtype in dtypes:
                    if dtype != "float64":
                        found += _short_rows(subject, point, dtype)
                rows = _merged(rows, found)
                if isinstance(target, Layer) and not all(row.ok for row in found):
                    located |= dict.fromkeys(locate(target, subject.mode, point, tolerance))
    return GradientReport(tuple(rows), tuple(located), sampling)


def _compare(subject: Subject, point, engines, most, seed, tolerance, numeric_tolerance):
    """The float64 rows of one draw, and how finite differences chose their elements."""
    by_hand, by_autodiff = subject.both(point)
    with leading(f"{subject.name}.backward"):
        check_same_structure("what they belong to", by_autodiff, "gradients", by_hand)
    rows, floor = [], rounding_floor(point)
    if {"backprop", "autodiff"} <= set(engines):
        rows += _leaf_rows(subject, by_hand, by_autodiff, tolerance, floor)
    sampling = "every element compared"
    if "numeric" in engines:
        both = {"backprop": by_hand, "autodiff": by_autodiff}
        suspects = {name: both[name] for name in engines if name in both}
        more, sampling = _numeric_rows(subject, point, suspects, most, seed, (tolerance, numeric_tolerance, floor))
        rows += more
    return rows, sampling


def _leaf_rows(subject, by_hand, by_autodiff, tolerance, floor):
    """One row per leaf, over all elements: by hand against autodiff."""
    rows = []
    for path, a, b in _leaves(by_hand, by_autodiff):
        rows.append(_row(subject, path, ENGINES[:2], a.size, a, b, _places(a.shape), agree(a, b, tolerance, floor)))
    return rows


def _short_rows(subject, point, dtype):
    """One row per leaf: by hand in a short dtype, against autodiff in float64 at the same rounded numbers."""
    short = jax.tree.map(lambda leaf: leaf.astype(dtype) if is_floating(leaf) else leaf, point)
    by_hand, by_autodiff = subject.both(short)
    _, exact = subject.both(widened(short))
    floor = rounding_floor(short, dtype)
    rows = []
    for (path, a, b), (_, other, _) in zip(_leaves(by_hand, exact), _leaves(by_autodiff, exact), strict=True):
        ok = as_precise(a, other, b, dtype, floor)
        rows.append(_row(subject, path, ENGINES[:2], a.size, a, b, _places(a.shape), ok, dtype=dtype))
    return rows


def _leaves(suspect, reference):
    """`(path, array, array)` of each leaf of two trees, as NumPy's float64."""
    for (path, a), b in zip(flatten_with_paths(suspect), jax.tree.leaves(reference), strict=True):
        yield path, np.asarray(a, np.float64), np.asarray(b, np.float64)


def _places(shape):
    return np.argwhere(np.ones(shape, bool))


def _numeric_rows(subject, point, suspects, most, seed, tolerances):
    """One row per leaf and engine against numeric derivatives, and how their elements were chosen."""
    leaves = flatten_with_paths(point.variables)
    edges = np.cumsum([0, *(leaf.size for _, leaf in leaves)])
    chosen = sample([leaf.size for _, leaf in leaves], most, seed)
    numeric = differences(*subject.sampled(point, chosen))
    rows = []
    for name, suspect in suspects.items():
        flat = np.asarray(ravel_pytree(suspect)[0])[chosen]
        right = agree_with_differences(flat, numeric, np.sqrt(np.mean(np.square(flat))), *tolerances)
        for (path, leaf), start, stop in zip(leaves, edges[:-1], edges[1:], strict=True):
            here = (chosen >= start) & (chosen < stop)
            places = np.stack(np.unravel_index(chosen[here] - start, leaf.shape or (1,)), -1)[:, : leaf.ndim]
            values, kinks = (flat[here], numeric.value[here]), numeric.kink[here]
            rows.append(_row(subject, path, (name, "numeric"), leaf.size, *values, places, right[here].all(), kinks))
    steps = f", {numeric.exact.sum()} of them by complex step" if numeric.exact.any() else ""
    if len(chosen) == edges[-1]:
        return rows, f"numeric derivatives at all {len(chosen)} elements{steps}"
    rows += _direction_rows(subject, point, suspects, seed, tolerances)
    return rows, (
        f"numeric derivatives at {len(chosen)} of {edges[-1]} elements{steps}, sampled from each leaf, and along "
        f"{DIRECTIONS} random directions"
    )


def _direction_rows(subject, point, suspects, seed, tolerances):
    """One row per engine: derivatives along random directions through all leaves at once."""
    size = ravel_pytree(point.variables)[0].size
    directions = jax.random.normal(jax.random.key(seed), (DIRECTIONS, size)) / size**0.5
    numeric = differences(*subject.sampled(point, directions))
    places, kinks = _places((DIRECTIONS,)), numeric.kink
    rows = []
    for name, suspect in suspects.items():
        flat = np.asarray(ravel_pytree(suspect)[0])
        shares = np.asarray(directions) @ flat
        ok = agree_with_differences(shares, numeric, np.linalg.norm(flat) / size**0.5, *tolerances).all()
        engines = (name, "numeric")
        rows.append(
            _row(subject, "random directions", engines, DIRECTIONS, shares, numeric.value, places, ok, kinks)
        )  # fmt: skip
    return rows


def _row(subject, path, engines, size, a, b, places, ok, kinks=None, dtype="float64"):
    """A row from the numbers of two engines and their places. Kinks are counted, and left out of the errors."""
    a, b = a.ravel(), b.ravel()
    usable = np.ones(a.shape, bool) if kinks is None else ~kinks
    worst = values = None
    ulps = 0.0
    if usable.any():
        gaps = np.where(usable, np.abs(a - b), -1)
        at = int(np.argmax(gaps))
        worst, values = tuple(int(i) for i in places[at]), (float(a[at]), float(b[at]))
        with np.errstate(over="ignore"):  # a large gap, in units of a spacing near 0
            ulps = float(gaps[at] / _spacing(b[at], dtype))
    return Row(
        target=subject.name,
        mode=subject.mode,
        dtype=dtype,
        leaf=path,
        engines=engines,
        size=int(size),
        checked=int(a.size),
        kinks=int((~usable).sum()),
        error=norm_relative(a[usable], b[usable]),
        worst=worst,
        values=values,
        ulps=ulps,
        ok=bool(ok),
    )


def _spacing(number, dtype):
    """The distance between neighbouring numbers of a dtype, near this number."""
    return jnp.finfo(dtype).eps * 2.0 ** np.floor(np.log2(max(abs(number), float(jnp.finfo(dtype).tiny))))


def _merged(rows, more):
    """The worst row over all draws, for each leaf."""
    kept = {(row.mode, row.dtype, row.leaf, row.engines): row for row in rows}
    for row in more:
        key = (row.mode, row.dtype, row.leaf, row.engines)
        old = kept.get(key)
        kept[key] = row if old is None or (not row.ok, row.error) > (not old.ok, old.error) else old
    return list(kept.values())
