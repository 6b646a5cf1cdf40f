"""funcnet: functional neural networks on JAX, with a hand-derived backward pass beside every forward pass.

Modules load when they are first used. So `import funcnet` costs nothing, and `funcnet --help` does not wait for jax.
"""

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from funcnet import (
        checking, checkpoints, compiler, data, deployment, errors, generation, gradients, initializers, layers, logs,
        losses, made, metrics, models, optimizers, parallel, plotting, pretraining, schedules, summaries, training,
        trees, types,
    )  # fmt: skip
    from funcnet.made import Made, constructor
    from funcnet.types import Gradient, Layer, Optimizer, Padded, Report, TrainState, Whole

__version__ = "0.1.0"

_MODULES = (
    "checking", "checkpoints", "compiler", "data", "deployment", "errors", "generation", "gradients", "initializers",
    "layers", "logs", "losses", "made", "metrics", "models", "optimizers", "parallel", "plotting", "pretraining",
    "schedules", "summaries", "training", "trees", "types",
)  # fmt: skip
_NAMES = dict.fromkeys(("Gradient", "Layer", "Optimizer", "Padded", "Report", "TrainState", "Whole"), "types") | {
    "Made": "made", "constructor": "made",
}  # fmt: skip

__all__ = [
    "Gradient", "Layer", "Made", "Optimizer", "Padded", "Report", "TrainState", "Whole", "checking", "checkpoints",
    "compiler", "constructor", "data", "deployment", "errors", "generation", "gradients", "initializers", "layers",
    "logs", "losses", "made", "metrics", "models", "optimizers", "parallel", "plotting", "pretraining", "schedules",
    "summaries", "training", "trees", "types",
]  # fmt: skip


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f"funcnet.{name}")
    if name in _NAMES:
        return getattr(importlib.import_module(f"funcnet.{_NAMES[name]}"), name)
    raise AttributeError(f"module 'funcnet' has no attribute {name!r}; it has {', '.join(__all__)}")


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
