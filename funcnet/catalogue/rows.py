"""The rows of the catalogue."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet.losses import Loss, partial
from funcnet.types import Layer

__all__ = ["Entry", "LayerRow", "LossRow"]

_ENGINES = ("backprop", "autodiff", "numeric")


class Entry(NamedTuple):
    """A target with an input, as `check_gradients` takes them."""

    target: Any  #: a layer, a loss, or a penalty
    x: Any  #: the input, or a tree of inputs; for a loss the prediction, for a penalty the parameters
    y: Any = None  #: the target of a loss
    engines: tuple[str, ...] = _ENGINES


def _features(batch: int, width: int) -> Any:
    return (batch, width)


class LayerRow(NamedTuple):
    """A layer or model with its input at any batch size and width, and what the laws expect of it.

    `random` and `counts` are not read from the layer. They are claims, which the laws check.
    """

    layer: Layer
    shape: Callable[[int, int], Any] = _features  #: (batch, width) -> the shape of the input, or a tree of shapes
    kink: bool = False  #: has a kink at 0, from which finite differences stay away
    random: bool = False  #: needs a key in training
    counts: bool = False  #: training changes its state
    straight_through: bool = False  #: its backward is deliberately not a derivative, so numeric ones cannot check it

    def example(self, batch: int = 3, width: int = 4, dtype: Any = jnp.float32) -> Any:
        """The input as shapes. Those without a dtype of their own get `dtype`."""
        return jax.tree.map(
            lambda one: jax.ShapeDtypeStruct(one, dtype) if _is_shape(one) else one,
            self.shape(batch, width),
            is_leaf=_is_shape,
        )

    def entry(self) -> Entry:
        """The row as `check_gradients` takes it."""
        return Entry(self.layer, self.example(), engines=_ENGINES[:2] if self.straight_through else _ENGINES)


class LossRow(NamedTuple):
    """A loss of one array with its options, a prediction and a target."""

    loss: Loss
    prediction: np.ndarray
    target: np.ndarray
    options: Mapping[str, Any] = MappingProxyType({})

    def entry(self) -> Entry:
        """The row as `check_gradients` takes it."""
        return Entry(partial(self.loss, **self.options) if self.options else self.loss, self.prediction, self.target)


def _is_shape(node: Any) -> bool:
    return type(node) is tuple and all(isinstance(size, int) for size in node)
