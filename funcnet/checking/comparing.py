"""The comparison of gradients at one point: by hand, by autodiff and by numeric derivatives, leaf by leaf."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from funcnet.checking.drawing import is_floating, widened
from funcnet.checking.judging import (
    ENOUGH,
    NOT_DECIDED,
    RIGHT,
    VERDICTS,
    WRONG,
    as_precise,
    judged,
    norm_relative,
    trifles,
    verdict,
)
from funcnet.checking.kinks import between_the_sides, settled_at_kinks
from funcnet.checking.numeric import Differences, Suspicion, derivatives, sample, where
from funcnet.checking.report import Row
from funcnet.checking.subjects import Point, Subject
from funcnet.made import leading
from funcnet.trees import check_same_structure, flatten_with_paths, total_size

__all__ = ["ENGINES", "Comparison", "Limits"]

ENGINES = ("backprop", "autodiff", "numeric")
DIRECTIONS = 8  # random directions in addition to a sample; each of them touches every element


class _Leaf:
    """Where the elements of one leaf are in the flat gradient."""

    def __init__(self, path: str, shape: tuple[int, ...], start: int):
        self.path, self.shape, self.start, self.size = path, shape, start, int(np.prod(shape))

    @property
    def stop(self) -> int:
        return self.start + self.size

    def places(self, flat: np.ndarray) -> np.ndarray:
        """The indices of elements of the flat gradient, (count, axes)."""
        return np.stack(np.unravel_index(flat - self.start, self.shape or (1,)), -1)[:, : len(self.shape)]


class Limits(NamedTuple):
    """What a check was asked for."""

    engines: Sequence[str]
    most: int
    tolerance: float
    numeric_tolerance: float


@dataclass(frozen=True)
class Comparison:
    """The gradients of a subject at one point."""

    subject: Subject
    point: Point
    limits: Limits
    seed: int
    numbers: str = "normal"  #: how the inputs were drawn, if they were

    def rows(self) -> tuple[list[Row], str]:
        """The float64 rows, and how numeric derivatives chose their elements."""
        with np.errstate(invalid="ignore", over="ignore", divide="ignore"):  # the verdicts tell what is not finite
            return self._rows()

    def _rows(self):
        rows = []
        if not total_size(self.point.variables) or (self.point.dy is not None and not total_size(self.point.dy)):
            return list(self._without_numbers()), "nothing to compare"
        if {"backprop", "autodiff"} <= set(self.limits.engines):
            rows += self._by_autodiff()
        if "numeric" not in self.limits.engines:
            return rows, "every element compared"
        more, sampling = self._by_differences()
        return rows + more, sampling

    @cached_property
    def both(self) -> dict[str, np.ndarray]:
        """The flat gradients by hand and by autodiff."""
        by_hand, by_autodiff, _ = self.trees
        return {name: _flat(tree) for name, tree in zip(ENGINES, (by_hand, by_autodiff), strict=False)}

    @cached_property
    def trees(self) -> tuple[Any, Any, Any]:
        by_hand, by_autodiff, size = self.subject.both(self.point)
        with leading(f"{self.subject.name}.backward"):
            check_same_structure("what they belong to", by_autodiff, "gradients", by_hand)
        return by_hand, by_autodiff, size

    @cached_property
    def rounding(self) -> np.ndarray:
        """How far rounding may move the difference of both gradients, flat. It is found only where it is needed."""
        by_hand, by_autodiff = self.subject.rounding(self.point)
        return _flat(by_hand) + _flat(by_autodiff)

    @cached_property
    def trifles(self) -> np.ndarray:
        _, by_autodiff, size = self.trees
        found = trifles(by_autodiff, self.point.variables, float(size))
        return np.concatenate([np.zeros(0), *map(np.ravel, found)])

    @property
    def _leaves(self) -> Iterator[_Leaf]:
        start = 0
        for path, leaf in flatten_with_paths(self.point.variables):
            yield _Leaf(path, leaf.shape, start)
            start += leaf.size

    def _without_numbers(self):
        """The rows of a gradient of nothing, for example of a batch without rows."""
        a, b = (self.both[name] for name in ENGINES[:2])
        for leaf in self._leaves:
            here = np.arange(leaf.start, leaf.stop)
            row = self._row(leaf, self.limits.engines[:2], here, a[here], b[here], np.zeros(leaf.size, int))
            yield row._replace(verdict=NOT_DECIDED, reason="the input or the output has no elements")

    def _by_autodiff(self):
        """One row per leaf, over all elements: by hand against autodiff."""
        a, b = (self.both[name] for name in ENGINES[:2])
        if self.numbers != "normal" and not np.isfinite(b).all():  # nobody asked for inputs at which it overflows
            states = np.zeros(a.shape, int)
        else:
            states = judged(a, b, self.limits.tolerance, lambda: self.rounding, self.trifles)
        wrong = states == VERDICTS.index(WRONG)
        if wrong.any() and self._may_be_at_kinks():
            states[wrong] = settled_at_kinks(
                self.subject.sampled, self.point, a, b, wrong, self.limits.numeric_tolerance
            )
        for leaf in self._leaves:
            here = np.arange(leaf.start, leaf.stop)
            yield self._row(leaf, ENGINES[:2], here, a[here], b[here], states[here], at_kinks=wrong[here])

    def _may_be_at_kinks(self):
        """Whether elements of the variables are equal or 0, as hardly any are that are drawn as normal numbers."""
        numbers = np.asarray(ravel_pytree(self.point.variables)[0])
        return self.numbers != "normal" or len(np.unique(np.append(numbers, 0))) <= len(numbers)

    def _by_differences(self):
        """One row per leaf and engine against numeric derivatives, and how their elements were chosen."""
        leaves = list(self._leaves)
        chosen = sample([leaf.size for leaf in leaves], self.limits.most, self.seed)
        numeric, found = self._numeric(chosen, self._at_elements)
        rows = []
        for name, (values, states) in found.items():
            for leaf in leaves:
                here = (chosen >= leaf.start) & (chosen < leaf.stop)
                pair = values[here], numeric.value[here]
                engines, kinks = (name, "numeric"), numeric.kink[here]
                rows.append(self._row(leaf, engines, chosen[here], *pair, states[here], kinks, kinks))
        steps = f", {numeric.exact.sum()} of them by complex step" if numeric.exact.any() else ""
        total = total_size(self.point.variables)
        if len(chosen) == total:
            return rows, f"numeric derivatives at all {total} elements{steps}"
        rows += self._along_directions()
        return rows, (
            f"numeric derivatives at {len(chosen)} of {total} elements{steps}, sampled from each leaf, and along "
            f"{DIRECTIONS} random directions"
        )

    def _numeric(self, directions, judge):
        """Numeric derivatives along directions, and `{engine: (its derivatives, the verdicts on them)}`.

        Where they do not agree, they are taken again, with what rounding does to the scalar here, and with steps that
        suit the slopes.
        """
        engines = [name for name in self.limits.engines if name != "numeric"]

        def judged_by(numeric):
            return {name: judge(self.both[name], directions, numeric) for name in engines}

        first = derivatives(self.subject.sampled, self.point, directions)
        found = judged_by(first)
        if not any(states.any() for _, states in found.values()):
            return first, found
        slopes = np.max([np.abs(values) for values, _ in found.values()], axis=0)
        suspicion = Suspicion(slopes, float(self.trees[2]), float(self.subject.noise(self.point)))
        second = derivatives(self.subject.sampled, self.point, directions, suspicion)
        again = judged_by(second)
        gains = [found[name][1] - again[name][1] for name in engines]
        numeric = where(np.min(gains, axis=0) >= 0, second, first)
        return numeric, judged_by(numeric)

    def _at_elements(self, gradient: np.ndarray, chosen: np.ndarray, numeric: Differences):
        """Elements of a gradient, and the verdicts on them. At a kink numeric derivatives prove little."""
        values, limits = gradient[chosen], self.limits
        off, allowed = np.abs(values - numeric.value), limits.numeric_tolerance * np.abs(values) + numeric.error
        known = np.isfinite(numeric.value) & np.isfinite(numeric.error)
        near = (off <= allowed) | numeric.exact | numeric.kink
        if not near[known].all():
            near |= off <= allowed + self.rounding[chosen]
        states = np.where(near, 0, np.where(known, VERDICTS.index(WRONG), VERDICTS.index(NOT_DECIDED)))
        if "autodiff" not in limits.engines:  # then nothing else tells
            blurred = numeric.error > np.maximum(ENOUGH * np.abs(values), self.trifles[chosen])
            states[near & blurred] = VERDICTS.index(NOT_DECIDED)
        exact = np.flatnonzero(numeric.exact)
        here, by_step = chosen[exact], numeric.value[exact]
        states[exact] = judged(
            values[exact], by_step, limits.tolerance, lambda: self.rounding[here], self.trifles[here]
        )
        hand, autodiff = (self.both[name][chosen] for name in ENGINES[:2])
        told = (np.abs(hand - autodiff) <= limits.tolerance * np.abs(autodiff)) | between_the_sides(values, numeric)
        states[numeric.kink] = np.where(told, 0, VERDICTS.index(NOT_DECIDED))[numeric.kink]
        return values, states

    def _along_directions(self):
        """One row per engine: derivatives along random directions through all leaves at once."""
        numbers = _flat(self.point.variables)
        random = np.random.default_rng(self.seed)
        directions = random.normal(size=(DIRECTIONS, numbers.size)) * np.maximum(1, np.abs(numbers)) / numbers.size**0.5
        numeric, found = self._numeric(directions, self._along)
        leaf = _Leaf("random directions", (DIRECTIONS,), 0)
        for name, (shares, states) in found.items():
            engines, here = (name, "numeric"), np.arange(DIRECTIONS)
            yield self._row(leaf, engines, here, shares, numeric.value, states, numeric.kink, numeric.kink)

    def _along(self, gradient: np.ndarray, directions: np.ndarray, numeric: Differences):
        """The derivatives along some directions, and the verdicts on them."""
        shares = directions @ gradient
        allowed = self.limits.numeric_tolerance * (np.abs(directions) @ np.abs(gradient)) + numeric.error
        near = (np.abs(shares - numeric.value) <= allowed) | numeric.kink
        known = np.isfinite(numeric.value) & np.isfinite(allowed)
        return shares, np.where(near, 0, np.where(known, VERDICTS.index(WRONG), VERDICTS.index(NOT_DECIDED)))

    def short_rows(self, dtype: str) -> list[Row]:
        """One row per leaf: by hand in a short dtype, against autodiff in float64 at the same rounded numbers."""
        with np.errstate(invalid="ignore", over="ignore"):
            return list(self._short_rows(dtype))

    def _short_rows(self, dtype):
        short = jax.tree.map(lambda leaf: leaf.astype(dtype) if is_floating(leaf) else leaf, self.point)
        by_hand, by_autodiff = map(_flat, self.subject.both(short)[:2])
        exact = _flat(self.subject.both(widened(short))[1])
        moved: list[np.ndarray] = []

        def rounding(here):
            if not moved:
                moved.append(_flat(self.subject.rounding(short)[1]))
            return moved[0][here]

        for leaf in self._leaves:
            here = np.arange(leaf.start, leaf.stop)
            a, other, b = by_hand[here], by_autodiff[here], exact[here]
            ok = as_precise(a, other, b, dtype, lambda here=here: rounding(here))
            states = np.full(a.shape, 0 if ok else VERDICTS.index(WRONG))
            yield self._row(leaf, ENGINES[:2], here, a, b, states, dtype=dtype)

    def _row(self, leaf, engines, here, a, b, states, kinks=None, at_kinks=None, dtype="float64"):
        """A row from the numbers of two engines at some places. Kinks are counted, and left out of the errors."""
        usable = np.ones(a.shape, bool) if kinks is None else ~kinks
        found = verdict([states])
        worst = values = None
        ulps = 0.0
        if usable.any():
            gaps = np.where(usable & (states == states[usable].max()), np.abs(a - b), -1)
            at = int(np.argmax(gaps))
            ulps = float(gaps[at] / _spacing(b[at], dtype))
            worst = tuple(int(i) for i in leaf.places(here)[at])
            values = float(a[at]), float(b[at])
        return Row(
            target=self.subject.name,
            mode=self.subject.mode,
            dtype=dtype,
            leaf=leaf.path,
            engines=engines,
            size=leaf.size,
            checked=int(a.size),
            kinks=int((~usable).sum()),
            error=norm_relative(a[usable], b[usable]),
            worst=worst,
            values=values,
            ulps=ulps,
            verdict=found,
            reason=self._reason(found, states, b, at_kinks),
        )

    def _reason(self, found, states, b, at_kinks):
        """Why a row is not right, in words."""
        if found == RIGHT:
            return ""
        here = states == VERDICTS.index(found)
        inputs = "" if self.numbers == "normal" else f", at inputs {self.numbers}"
        count = f"{here.sum()} of {states.size} elements"
        if found == WRONG:
            return f"{count} differ by more than rounding explains{inputs}"
        if (here & ~np.isfinite(b)).any():
            return f"the reference is not finite in {count}{inputs}"
        if at_kinks is not None and (here & at_kinks).any():
            return f"{count} lie at a kink, and outside the slopes on its two sides{inputs}"
        return f"rounding could hide a mistake in {count}{inputs}"


def _flat(tree: Any) -> np.ndarray:
    """All elements of a tree as NumPy's float64."""
    return np.concatenate([np.zeros(0), *(np.ravel(np.asarray(leaf, np.float64)) for leaf in jax.tree.leaves(tree))])


def _spacing(number, dtype):
    """The distance between neighbouring numbers of a dtype, near this number."""
    return jnp.finfo(dtype).eps * 2.0 ** np.floor(np.log2(max(abs(number), float(jnp.finfo(dtype).tiny))))
