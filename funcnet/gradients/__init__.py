"""Gradients: the two engines, per-example gradients, saliency, layers with autodiff's backward, `jax.custom_vjp`."""

from funcnet.gradients.accumulation import accumulated
from funcnet.gradients.automatic import automatic, automatic_function
from funcnet.gradients.custom_vjp import as_custom_vjp
from funcnet.gradients.engines import autodiff, backprop
from funcnet.gradients.per_example import per_example, per_example_norms
from funcnet.gradients.saliency import saliency

__all__ = [
    "accumulated", "as_custom_vjp", "autodiff", "automatic", "automatic_function", "backprop", "per_example",
    "per_example_norms", "saliency",
]  # fmt: skip
