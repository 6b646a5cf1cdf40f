"""`check_gradients`: gradients by hand against autodiff and numeric derivatives, in float64, leaf by leaf."""

from collections.abc import Callable, Sequence
from typing import Any

import jax

from funcnet.checking.comparing import ENGINES, Comparison, Limits
from funcnet.checking.drawing import ELSEWHERE, refuse_tracers, some_shapes
from funcnet.checking.inside import locate
from funcnet.checking.judging import DTYPES, WRONG
from funcnet.checking.report import GradientReport, Row
from funcnet.checking.subjects import Point, subjects_of
from funcnet.checks import check_count, positive
from funcnet.errors import ConfigError
from funcnet.made import leading
from funcnet.types import Layer

__all__ = ["check_gradients"]

FEW = 100  # elements that numeric derivatives check at inputs of other sizes, if they are the only reference


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
        refuse_tracers((x, y, params, state))
    limits = Limits(tuple(engines), most, tolerance, numeric_tolerance)
    short = [dtype for dtype in dtypes if dtype != "float64"]
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
                here = Comparison(subject, point, limits, draw)
                found, sampling = here.rows()
                found += [row for dtype in short for row in here.short_rows(dtype)]
                if all(row.ok for row in found) and some_shapes((x, y)):
                    point, found = _elsewhere(subject, draw, (x, y, params, state), limits) or (point, found)
                rows = _merged(rows, found)
                if isinstance(target, Layer) and any(row.verdict == WRONG for row in found):
                    located |= dict.fromkeys(locate(target, subject.mode, point, tolerance))
    if some_shapes((x, y)):
        sampling += "; also compared at inputs " + ", ".join(ELSEWHERE)
    return GradientReport(tuple(rows), tuple(located), sampling)


def _elsewhere(subject, draw, arguments, limits) -> tuple[Point, list[Row]] | None:
    """The first point with a row that is not right, and its rows: at inputs of other sizes, and at ties."""
    limits = limits._replace(most=min(limits.most, FEW))
    if "autodiff" in limits.engines:
        limits = limits._replace(engines=ENGINES[:2])
    for numbers in ELSEWHERE:
        point = subject.draw(draw, *arguments, numbers)
        found, _ = Comparison(subject, point, limits, draw, numbers).rows()
        if not all(row.ok for row in found):
            return point, found
    return None


def _merged(rows: list[Row], more: list[Row]) -> list[Row]:
    """The worst row over all draws, for each leaf."""
    kept = {(row.mode, row.dtype, row.leaf, row.engines): row for row in rows}
    for row in more:
        key = (row.mode, row.dtype, row.leaf, row.engines)
        old = kept.get(key)
        kept[key] = row if old is None or row.badness() > old.badness() else old
    return list(kept.values())
