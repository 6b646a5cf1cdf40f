"""What `fit` checks before the first step: that data, model, loss and augmentation fit together."""

from collections.abc import Callable
from typing import Any

import jax

from funcnet.checks import check_kind, describe
from funcnet.data.checks import check_batches, check_order, count_rows, named_leaves
from funcnet.errors import ConfigError, FuncnetError, ShapeError
from funcnet.made import spelled
from funcnet.training.evaluation import check_target, resized, rows_of
from funcnet.training.step import create_state
from funcnet.trees import shapes
from funcnet.types import Key, Layout, Optimizer, TrainState

__all__ = ["as_augmented", "check_accumulate", "check_graphs", "first_state", "target_check"]


def first_state(model: Any, optimizer: Optimizer, key: Key, example: Any, layout: Layout, engine: Any) -> TrainState:
    """The state that training starts from. `engine` is the user's own engine, or `None`."""
    x, target = example[:2]
    try:
        return layout.init_state(lambda key: create_state(model, optimizer, key, x), key)
    except Exception as error:
        if engine is not None:
            got = f"{describe(model)} with {type(error).__name__}: {error}"
            fix = (
                f"With the engine {spelled(engine)} give fit a state=, create_state(model, optimizer, key, x, params=…)"
            )
            raise ConfigError(f"expected a model whose init takes x, got {got} {fix}.") from error
        check_order(x, target)
        check_batches(x, target)
        raise


def as_augmented(augment: Any, key: Key, example: tuple[Any, ...]) -> tuple[Any, ...]:
    """The shapes of a batch after `augment`, in which x and target must keep the rows."""
    check_kind("augment", augment, Callable, "a function (key, x, target) -> (x, target)")
    result = jax.eval_shape(augment, key, *example[:2])
    if not isinstance(result, tuple) or len(result) != 2:
        kind = f"a tuple of {len(result)}" if isinstance(result, tuple) else describe(result)
        raise ConfigError(f"expected augment to return the pair (x, target), got {kind}.")
    rows = rows_of(example)
    graphs = any(leaf.shape[:1] != (rows,) for leaf in jax.tree.leaves(example[0]))
    for what, tree in zip(("x", "target"), result, strict=True):
        for name, leaf in named_leaves(what, tree):
            if leaf.shape[:1] != (rows,) and not (graphs and what == "x"):
                got = f"{name} of shape {leaf.shape}"
                raise ShapeError(f"expected augment to return each of the {rows} rows of the batch, got {got}.")
    return (*result, *example[2:])


def target_check(
    loss: Any, prediction: Any, example: tuple[Any, ...], augmented: tuple[Any, ...]
) -> Callable[[tuple[Any, ...]], None]:
    """A function that checks target, `where` and `weights` of data or of a batch, as the loss takes them.

    Args:
        prediction: its shapes, for a batch like `augmented`.
        example, augmented: the shapes of a batch of the data, and of what augmentation makes of it.
    """
    rows = rows_of(example)
    targets = shapes(example[1]), shapes(augmented[1])
    if targets[0] != targets[1]:
        check_target(loss, prediction, *augmented[1:])
        try:  # labels that become one-hot rows are checked too
            check_target(loss, prediction, *example[1:])
        except FuncnetError:
            return lambda data: None

    return lambda data: check_target(loss, resized(prediction, rows, rows_of(data)), *data[1:])


def check_graphs(data: tuple[Any, ...], layout: Layout, accumulate: int) -> None:
    """If x has leaves of other lengths than the rows, a batch can be neither divided among devices nor cut."""
    rows = count_rows(data, graphs=True)
    others = [(name, len(leaf)) for name, leaf in named_leaves("x", data[0]) if len(leaf) != rows]
    if not others:
        return
    kind = "got {1} in {0} and {2} rows".format(*others[0], rows)
    if accumulate > 1:
        raise ConfigError(f"expected no accumulate= with an x that has no rows to cut, {kind}; take smaller batches.")
    try:
        layout.check_rows("fit", "rows", 1)  # one row, which several devices cannot share
    except ShapeError:
        wanted = "the same number of rows in every array of a batch on several devices"
        fix = "batches of graphs run on one device"
        raise ShapeError(f"expected {wanted}, {kind}; {fix}.") from None


def check_accumulate(accumulate: int, batch_size: int) -> None:
    """Check that the parts of a batch are equal."""
    if batch_size % accumulate:
        below = [k for k in range(1, min(accumulate, batch_size + 1)) if batch_size % k == 0]
        fix = f"take {below[-1]}, or another batch_size"
        raise ConfigError(f"expected accumulate to divide the {batch_size} rows of a batch, got {accumulate}; {fix}.")
