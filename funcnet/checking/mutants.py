"""Deliberately wrong backward passes, and how many of them the check catches.

A checker is worth what it catches. `mutants` plants one mistake at a time in a correct gradient. `mutation_score`
counts the mutants that are caught, by the same functions by which `check_gradients` judges. A mutant is *equivalent* if
its gradient is right on every draw, for example a flipped sign in a gradient that is zero, or a mean over a batch of
one. Nobody could tell it apart, so it counts neither as caught nor as missed.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, is_dataclass, replace
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.checking.drawing import is_floating, refuse_tracers
from funcnet.checking.mistakes import (
    IN_THE_GRADIENT,
    IN_WHAT_IS_READ,
    in_the_formula,
    shared_by_ties,
    wrong_formula,
)
from funcnet.checking.programs import QUICKLY
from funcnet.checking.subjects import Point, Subject, arguments_of, by_hand, parted, run, subjects_of, there
from funcnet.checks import check_count
from funcnet.made import leading, spelled
from funcnet.trees import flatten_with_paths
from funcnet.types import Layer

__all__ = ["Mutant", "Score", "mutants", "mutation_score"]

FEW = 512  # inputs of an example, which are compared in pairs
SAME = 1e-13  # gradients nearer than this differ only by rounding, for example of a sum in another order
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
        return _made(target, subject.mode, subject.draw(seed, x, y, None, None))


def _made(target, mode, point):
    kinds = _of_layer(target, mode, point) if isinstance(target, Layer) else _of_loss(target, point)
    return tuple(Mutant(mistake, wrong) for mistake, wrong in kinds)


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
            for mutant, fate in zip(made, _fates(subject, made, draws, tolerance), strict=True):
                fates[fate].append(f"{subject.mode} {mutant.mistake}".strip())
    return Score(subjects[0].name, len(fates["caught"]), tuple(fates["missed"]), tuple(fates["equivalent"]))


def _fates(subject: Subject, made: Sequence[Mutant], points: Sequence[Point], tolerance: float) -> list[str]:
    """What becomes of each mutant over the points: "caught", "missed" or "equivalent"."""
    wrong = jax.jit(
        lambda point: [by_hand(mutant.target, subject.mode, point) for mutant in made], compiler_options=QUICKLY
    )
    differs, missed = np.zeros(len(made), bool), np.zeros(len(made), bool)
    for point in points:
        right, reference = map(_flat, subject.both(point)[:2])
        moved = _rounding(subject, point, right, reference)
        for i, gradient in enumerate(map(_flat, wrong(point))):
            # Twice, because the right gradient may be as far from the reference as rounding moves it.
            if not _same(gradient, right, TELLING, 2 * moved):
                differs[i] = True
                missed[i] |= _same(gradient, reference, tolerance, moved)
    return [str(fate) for fate in np.where(differs, np.where(missed, "missed", "caught"), "equivalent")]


def _rounding(subject, point, right, reference):
    """How far rounding may move each element. Where both gradients agree to the last places, that is nothing."""
    if (np.abs(right - reference) <= SAME * np.abs(reference)).all():
        return np.zeros(right.shape)
    return sum(map(_flat, subject.rounding(point)))


def _same(a, b, tolerance, moved):
    """Whether two gradients agree in every element. NaN agrees with nothing."""
    return bool((np.abs(a - b) <= tolerance * np.abs(b) + moved).all())


def _flat(tree):
    return np.concatenate([np.zeros(0), *(np.ravel(np.asarray(leaf)) for leaf in jax.tree.leaves(tree))])


def _numbers(i):
    """How the inputs of each draw are drawn: every fifth has ties, at which a maximum may hand its gradient wrongly."""
    return "with ties" if i % 5 == 4 else "normal"


def _of_layer(layer, mode, point) -> Iterator[tuple[str, Layer]]:
    layer = layer._replace(forward=_Once(layer.forward), backward=_Once(layer.backward))
    params = point.variables["params"]
    y, _, residuals = jax.eval_shape(lambda point: run(layer.forward, mode, point, point.variables), point)
    dy = jax.eval_shape(there, y, point.dy)
    dparams, dx = jax.eval_shape(layer.backward, params, residuals, dy)

    def mutant(backward, forward=layer.forward):
        return layer._replace(forward=forward, backward=backward, inside=None)

    def as_tree(dparams, dx):
        return {"params": dparams, "x": dx}

    for path, mistake, change in _in_leaves(as_tree(dparams, dx), _rows(dy)):

        def backward(params, residuals, dy, change=change):
            wrong = change(as_tree(*layer.backward(params, residuals, dy)))
            return wrong["params"], wrong["x"]

        yield f"{path}: {mistake}", mutant(backward)

    for mistake, read in _in_what_is_read(residuals):
        if _fits(read, residuals, dy):
            yield mistake, mutant(lambda params, residuals, dy, read=read: layer.backward(params, *read(residuals, dy)))

    def stale(params, state, x, *, key=None, train=False):
        """The residuals of another batch."""
        y, new_state, _ = layer.forward(params, state, x, key=key, train=train)
        key = None if key is None else jax.random.fold_in(key, 1)
        return y, new_state, layer.forward(params, state, _another_batch(x), key=key, train=train)[2]

    if any(leaf.size for leaf in jax.tree.leaves(residuals)):
        yield "residuals stale", mutant(layer.backward, stale)

    def keeps_x(params, state, x, *, key=None, train=False):
        y, new_state, residuals = layer.forward(params, state, x, key=key, train=train)
        return y, new_state, (residuals, x)

    def shared(params, kept, dy):
        residuals, x = kept
        dparams, dx = layer.backward(params, residuals, dy)
        return dparams, shared_by_ties(parted(x)[0], dx)

    inputs = jax.tree.leaves(point.variables["x"])
    if inputs and all(leaf.ndim > 1 and leaf.size <= FEW * leaf.shape[0] for leaf in inputs):
        yield "gradient shared by ties", mutant(shared, keeps_x)

    for mistake in in_the_formula(layer.backward, params, residuals, dy):
        yield mistake.name, mutant(wrong_formula(layer.backward, mistake))


class _Once:
    """A function that returns its last result again for the very same arguments.

    Most mutants of a layer share its two passes. In the one program of all mutants these are then traced and compiled
    once.
    """

    def __init__(self, function):
        self.function = function
        self.leaves, self.arguments, self.result = None, None, None

    def __call__(self, *args, **options):
        leaves, structure = jax.tree.flatten((args, options))
        arguments = structure, tuple(map(id, leaves))
        if arguments != self.arguments:
            self.result = self.function(*args, **options)
            self.arguments, self.leaves = arguments, leaves  # kept, so that no new array gets the id of an old one
        return self.result


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


def _of_loss(loss, point) -> Iterator[tuple[str, Any]]:
    """The mutants of a loss of a prediction and a target, or of a penalty or function of one tree."""
    first, *rest = arguments_of(point, point.variables)
    batch = _rows(first) if rest else 1

    def mutant(gradient):
        if is_dataclass(loss) and not isinstance(loss, type):
            return replace(loss, gradient=gradient)
        return _Wrong(loss, gradient)

    for path, mistake, change in _in_leaves(jax.eval_shape(loss.gradient, first, *rest), batch):
        yield (
            f"{path or 'prediction'}: {mistake}",
            mutant(lambda *args, change=change, **options: change(loss.gradient(*args, **options))),
        )  # fmt: skip

    if rest:
        times = lambda tree: jax.tree.map(lambda leaf: batch * leaf, tree)  # noqa: E731
        yield "sum for the mean", mutant(lambda p, t, **options: times(loss.gradient(p, t, **options)))
        yield "prediction stale", mutant(lambda p, t, **options: loss.gradient(_another_batch(p), t, **options))
    if jax.tree.leaves(rest):
        yield "targets shuffled", mutant(lambda p, t, **options: loss.gradient(p, _shuffled(t), **options))

    def formula(rest, options):
        return lambda first: loss.gradient(first, *rest, **options)

    for mistake in in_the_formula(formula(rest, {}), first):

        def gradient(first, *rest, mistake=mistake, **options):
            return wrong_formula(formula(rest, options), mistake)(first)

        yield mistake.name, mutant(gradient)


def _shuffled(target):
    return jax.tree.map(lambda leaf: jnp.roll(leaf, 1, 0) if leaf.ndim else leaf, target)


def _in_leaves(gradient, batch):
    """`(path, mistake, change of the tree)` for each floating leaf and each mistake that fits its shape."""
    structure = jax.tree.structure(gradient)
    for i, (path, leaf) in enumerate(flatten_with_paths(gradient)):
        for mistake, change in IN_THE_GRADIENT.items():
            if leaf.size and _fits(lambda g, change=change: change(g, batch), leaf):

                def changed(tree, i=i, change=change):
                    leaves = jax.tree.leaves(tree)
                    return jax.tree.unflatten(structure, [*leaves[:i], change(leaves[i], batch), *leaves[i + 1 :]])

                yield path, mistake, changed


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
