"""Deliberately wrong backward passes, and how many of them the check catches.

A checker is worth what it catches. `mutants` plants one mistake at a time in a correct gradient. `mutation_score`
counts the mutants that are caught, by the same functions by which `check_gradients` judges. A mutant is *equivalent* if
its gradient is right on every draw, for example a flipped sign in a gradient that is zero, or a mean over a batch of
one. Nobody could tell it apart, so it counts neither as caught nor as missed.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, is_dataclass, replace
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checking.drawing import is_floating, refuse_tracers
from funcnet.checking.mistakes import (
    IN_THE_GRADIENT,
    IN_WHAT_IS_READ,
    either,
    in_the_formula,
    shared_by_ties,
    wrong_formula,
)
from funcnet.checking.programs import quickly
from funcnet.checking.subjects import Point, Subject, arguments_of, by_hand, parted, run, subjects_of, there
from funcnet.checks import check_count
from funcnet.made import leading, spelled
from funcnet.trees import flatten_with_paths
from funcnet.types import Layer

__all__ = ["Mutant", "Score", "mutants", "mutation_score"]

FEW = 512  # inputs of an example, which are compared in pairs
SAME = 1e-13  # gradients nearer than this differ only by rounding, for example of a sum in another order
STALE, SHARED = "residuals stale", "gradient shared by ties"
TELLING = 2e-10  # a change below this is too small for a check at its usual tolerance


class Mutant(NamedTuple):
    """A layer or loss that is right except for one mistake in its gradient."""

    mistake: str
    target: Any


class Score(NamedTuple):
    """How many mutants of one target were caught, and which were not."""

    name: str
    caught: int
    missed: tuple[str, ...]  #: the mistakes that were not caught on some draw on which they change the gradient
    equivalent: tuple[str, ...]  #: the mistakes that change the gradient on no draw

    @property
    def made(self) -> int:
        """How many mutants differ from the right one on some draw."""
        return self.caught + len(self.missed)

    @property
    def ok(self) -> bool:
        """Whether all of these were caught."""
        return not self.missed

    def __str__(self) -> str:
        missed = f"; missed: {', '.join(self.missed)}" if self.missed else ""
        return f"{self.name}: {self.caught} of {self.made} mutants caught, {len(self.equivalent)} equivalent{missed}"


def mutants(
    target: Layer | Callable[..., Any], x: Any, y: Any = None, *, mode: str = "training", seed: int = 0
) -> tuple[Mutant, ...]:
    """Mutants of a layer or a loss, one mistake each.

    The mistakes are made in three places:

    - in an array of the gradient: zeroed, one element of it zeroed, scaled by 1.001, with its sign flipped, divided by
      the batch size, transposed, reversed, averaged, with noise of 10⁻³, or handed whole to each of equal inputs;
    - in what the backward reads: residuals of another example or of another batch, one of them zeroed, masks inverted;
      dy ignored, shuffled, or without the first example;
    - in the formula: a term left out, a sum over the wrong axis.

    Those that the shapes allow are made.

    Args:
        target, x, y: as for `check_gradients`.
        mode: of a layer, whose residuals may depend on it.
        seed: of the draw on which the backward is traced.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> made = fn.checking.mutants(fn.layers.softmax(), jax.ShapeDtypeStruct((3, 4), jnp.float32))
    >>> len(made), made[0].mistake, made[-1].mistake
    (17, 'x: zeroed', 'second term of sum 1 left out')
    """
    with jax.enable_x64(True):
        with leading("mutants"):
            refuse_tracers((x, y))
            (subject,) = subjects_of(target, x, y, modes=[mode])
        made = _made(target, subject.mode, subject.draw(seed, x, y, None, None))
    return tuple(Mutant(mistake, made.with_mistake(number)) for number, mistake in enumerate(made.mistakes))


class _Made(NamedTuple):
    """A target, wrong in any one of some ways."""

    mistakes: tuple[str, ...]
    #: the number of a mistake -> the target with it. Of a traced number the program has all mistakes, and makes one.
    with_mistake: Callable[[Any], Any]


def _made(target, mode, point) -> _Made:
    return _of_layer(target, mode, point) if isinstance(target, Layer) else _of_loss(target, point)


def mutation_score(
    target: Layer | Callable[..., Any],
    x: Any,
    y: Any = None,
    *,
    modes: Sequence[str] | None = None,
    seeds: int = 20,
    seed: int = 0,
    tolerance: float = 1e-10,
) -> Score:
    """How many mutants of a layer or loss `check_gradients` would catch, against autodiff in float64.

    A mutant counts as caught if it is caught on every draw on which it changes the gradient by more than rounding
    does. If only shapes are given, the inputs of every fifth draw have ties.

    Args:
        target, x, y, modes, seed, tolerance: as for `check_gradients`.
        seeds: draws of parameters, inputs, cotangents and keys, for each mode.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> print(fn.checking.mutation_score(fn.layers.softmax(), jax.ShapeDtypeStruct((3, 4), jnp.float32), seeds=2))
    softmax(): 16 of 16 mutants caught, 1 equivalent
    """
    with leading("mutation_score"):
        check_count("seeds", seeds)
        refuse_tracers((x, y))
    fates: dict[str, list[str]] = {"caught": [], "missed": [], "equivalent": []}
    with jax.enable_x64(True):
        with leading("mutation_score"):
            subjects = subjects_of(target, x, y, modes=modes)
        for subject in subjects:
            draws = [subject.draw(seed + i, x, y, None, None, _numbers(i)) for i in range(seeds)]
            made = _made(target, subject.mode, draws[0])
            for mistake, fate in zip(made.mistakes, _fates(subject, made, draws, tolerance), strict=True):
                fates[fate].append(f"{subject.mode} {mistake}".strip())
    return Score(subjects[0].name, len(fates["caught"]), tuple(fates["missed"]), tuple(fates["equivalent"]))


def _fates(subject: Subject, made: _Made, points: Sequence[Point], tolerance: float) -> list[str]:
    """What becomes of each mutant over the points: "caught", "missed" or "equivalent"."""
    numbers = np.arange(len(made.mistakes))

    @quickly
    def wrong(point):
        # One by one, by one program: a program of them all takes far longer to compile than this takes to run.
        return jax.lax.map(lambda number: by_hand(made.with_mistake(number), subject.mode, point), numbers)

    differs, missed = np.zeros(len(numbers), bool), np.zeros(len(numbers), bool)
    for point in points:
        right, reference = map(_flat, subject.both(point)[:2])
        moved = _rounding(subject, point, right, reference)
        gradients = _flat(wrong(point), len(numbers))
        # Twice, because the right gradient may be as far from the reference as rounding moves it.
        changed = ~_same(gradients, right, TELLING, 2 * moved)
        differs |= changed
        missed |= changed & _same(gradients, reference, tolerance, moved)
    return [str(fate) for fate in np.where(differs, np.where(missed, "missed", "caught"), "equivalent")]


def _rounding(subject, point, right, reference):
    """How far rounding may move each element. Where both gradients agree to the last places, that is nothing."""
    if (np.abs(right - reference) <= SAME * np.abs(reference)).all():
        return np.zeros(right.shape)
    return sum(map(_flat, subject.rounding(point)))


def _same(a, b, tolerance, moved):
    """Whether gradients agree with another in every element. NaN agrees with nothing."""
    return (np.abs(a - b) <= tolerance * np.abs(b) + moved).all(-1)


def _flat(tree, *rows):
    """All elements of a tree in one row, or in some rows if its arrays have them."""
    return np.concatenate(
        [np.zeros((*rows, 0)), *(np.reshape(leaf, (*rows, -1)) for leaf in jax.tree.leaves(tree))], -1
    )


def _numbers(i):
    """How the inputs of each draw are drawn: every fifth has ties, at which a maximum may hand its gradient wrongly."""
    return "with ties" if i % 5 == 4 else "normal"


def _of_layer(layer: Layer, mode: str, point: Point) -> _Made:
    params = point.variables["params"]
    y, _, residuals = jax.eval_shape(lambda point: run(layer.forward, mode, point, point.variables), point)
    dy = jax.eval_shape(there, y, point.dy)
    gradient = _as_tree(*jax.eval_shape(layer.backward, params, residuals, dy))

    in_leaves = dict(_in_leaves(gradient, _rows(dy)))
    reads = {name: read for name, read in _in_what_is_read(residuals) if _fits(read, residuals, dy)}
    stale = [STALE] if any(leaf.size for leaf in jax.tree.leaves(residuals)) else []
    inputs = jax.tree.leaves(point.variables["x"])
    in_pairs = inputs and all(leaf.ndim > 1 and leaf.size <= FEW * leaf.shape[0] for leaf in inputs)
    formula = in_the_formula(layer.backward, params, residuals, dy)
    mistakes = (*in_leaves, *reads, *stale, *([SHARED] if in_pairs else []), *(mistake.name for mistake in formula))

    def with_mistake(number):
        made = _which(mistakes, number)

        def forward(params, state, x, *, key=None, train=False):
            def of_another_batch():
                another = None if key is None else jax.random.fold_in(key, 1)
                return layer.forward(params, state, _another_batch(x), key=another, train=train)[2]

            y, new_state, residuals = layer.forward(params, state, x, key=key, train=train)
            return y, new_state, (either(made[STALE], of_another_batch, residuals), x)

        def backward(params, kept, dy):
            residuals, x = kept
            for mistake, read in reads.items():
                residuals, dy = either(made[mistake], partial(read, residuals, dy), (residuals, dy))
            wrong = wrong_formula(layer.backward, formula, [made[mistake.name] for mistake in formula])
            dparams, dx = wrong(params, residuals, dy)
            dx = either(made[SHARED], partial(_shared, x, dx), dx)
            gradient = _changed(_as_tree(dparams, dx), in_leaves, made)
            return gradient["params"], gradient["x"]

        return layer._replace(forward=forward, backward=backward, inside=None)

    return _Made(mistakes, with_mistake)


def _which(mistakes, number):
    """Whether each mistake is the one of that number; of one that is not among them, False."""
    return defaultdict(bool, {mistake: number == i for i, mistake in enumerate(mistakes)})


def _as_tree(dparams, dx):
    return {"params": dparams, "x": dx}


def _shared(x, dx):
    return shared_by_ties(parted(x)[0], dx)


def _changed(gradient, changes, made):
    """A gradient with those of the changes that are made."""
    for mistake, change in changes.items():
        gradient = either(made[mistake], partial(change, gradient), gradient)
    return gradient


def _rows(tree):
    """How many rows a batch has."""
    return next((leaf.shape[0] for leaf in jax.tree.leaves(tree) if leaf.ndim), 1)


def _another_batch(x):
    """Arrays of the same shapes with other numbers."""
    return jax.tree.map(
        lambda leaf: 0.9 * leaf if is_floating(leaf) else jnp.roll(leaf, 1, 0) if leaf.ndim else leaf, x
    )


@dataclass(frozen=True)
class _Wrong:
    """A user's function with a gradient that is not its own."""

    value: Callable[..., Any]
    gradient: Callable[..., Any]

    def __call__(self, *args, **options):
        return self.value(*args, **options)

    @property
    def __name__(self):
        return spelled(self.value)


def _of_loss(loss: Any, point: Point) -> _Made:
    """The mutants of a loss of a prediction and a target, or of a penalty or function of one tree."""
    first, *rest = arguments_of(point, point.variables)
    batch = _rows(first) if rest else 1
    shapes = jax.eval_shape(loss.gradient, first, *rest)

    changes: dict[str, Callable[[Any], Any]] = dict(_in_leaves(shapes, batch))
    if rest:
        changes["sum for the mean"] = lambda gradient: jax.tree.map(lambda leaf: batch * leaf, gradient)
    formula = in_the_formula(lambda first: loss.gradient(first, *rest), first)
    stale = ["prediction stale"] if rest else []
    shuffled = ["targets shuffled"] if jax.tree.leaves(rest) else []
    mistakes = (*changes, *stale, *shuffled, *(mistake.name for mistake in formula))

    def with_mistake(number):
        made = _which(mistakes, number)

        def gradient(first, *rest, **options):
            first = either(made["prediction stale"], partial(_another_batch, first), first)
            rest = either(made["targets shuffled"], partial(_shuffled, rest), rest)
            right = lambda first: loss.gradient(first, *rest, **options)  # noqa: E731
            wrong = wrong_formula(right, formula, [made[mistake.name] for mistake in formula])
            return _changed(wrong(first), changes, made)

        if is_dataclass(loss) and not isinstance(loss, type):
            return replace(loss, gradient=gradient)
        return _Wrong(loss, gradient)

    return _Made(mistakes, with_mistake)


def _shuffled(target):
    return jax.tree.map(lambda leaf: jnp.roll(leaf, 1, 0) if leaf.ndim else leaf, target)


def _in_leaves(gradient, batch):
    """`(mistake, change of the tree)` for each floating leaf and each mistake that fits its shape."""
    structure = jax.tree.structure(gradient)
    for i, (path, leaf) in enumerate(flatten_with_paths(gradient)):
        for mistake, change in IN_THE_GRADIENT.items():
            if leaf.size and _fits(lambda g, change=change: change(g, batch), leaf):

                def changed(tree, i=i, change=change):
                    leaves = jax.tree.leaves(tree)
                    return jax.tree.unflatten(structure, [*leaves[:i], change(leaves[i], batch), *leaves[i + 1 :]])

                yield f"{path or 'prediction'}: {mistake}", changed


def _in_what_is_read(residuals):
    yield from IN_WHAT_IS_READ.items()
    leaves, structure = jax.tree.flatten(residuals)
    with_numbers = [i for i, leaf in enumerate(leaves) if leaf.size]
    for number, i in enumerate(with_numbers):
        if is_floating(leaves[i]):

            def zeroed(residuals, dy, i=i):
                leaves = jax.tree.leaves(residuals)
                return jax.tree.unflatten(structure, [*leaves[:i], 0 * leaves[i], *leaves[i + 1 :]]), dy

            yield f"residual {number} zeroed", zeroed


def _fits(change, *args):
    """Whether a mistake can be made in arrays of these shapes."""
    return jax.eval_shape(change, *args) is not None
