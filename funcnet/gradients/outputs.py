"""Check that a model gives what its loss takes: with a softmax before a loss on logits it trains, but badly."""

import warnings

from funcnet import layers
from funcnet.errors import OutputWarning
from funcnet.made import spelled
from funcnet.types import Layer, LossFn

__all__ = ["check_output"]

# What the library's layers give. For other layers it is not known.
_LOGITS = (
    layers.batch_norm, layers.conv, layers.conv_transpose, layers.dense, layers.depthwise_conv, layers.layer_norm,
)  # fmt: skip
_GIVES = dict.fromkeys(_LOGITS, "logits") | {
    layers.binary_step: "steps",
    layers.log_sigmoid: "log-probabilities",
    layers.log_softmax: "log-probabilities",
    layers.relu: "no negative numbers",
    layers.sigmoid: "probabilities",
    layers.softmax: "class probabilities",
    layers.softplus: "no negative numbers",
    layers.tanh: "numbers within ±1",
}
_PASS_ON = (layers.dropout, layers.flatten, layers.identity, layers.reshape)

# (gives, takes): class probabilities are probabilities, and a softmax leaves log-probabilities as they are.
_ALSO_FIT = {("class probabilities", "probabilities"), ("log-probabilities", "logits")}

_FIX = {
    "logits": "leave that layer out: the loss wants the numbers before it",
    "probabilities": "end with sigmoid(), or take binary_cross_entropy_with_logits, which takes logits",
    "class probabilities": "end with softmax(), or take softmax_cross_entropy, which takes logits",
    "log-probabilities": "end with log_softmax(), or take softmax_cross_entropy, which takes logits",
}


def check_output(model: Layer, loss: LossFn) -> None:
    """OutputWarning if the model's last layer is known not to give what the loss takes."""
    takes = getattr(loss, "takes", None)
    last = _last(model)
    gives = _GIVES.get(last.made.constructor) if last is not None and last.made.constructor else None
    if takes is None or gives is None or gives == takes or (gives, takes) in _ALSO_FIT:
        return
    warnings.warn(
        f"{spelled(loss)}: expected a model that gives {takes}, got one that ends with {last!r}, which gives {gives}; "
        f"{_FIX[takes]}.",
        OutputWarning,
        stacklevel=5,  # the call of the engine, through its `@constructor`
    )


def _last(model: Layer) -> Layer | None:
    """The layer that makes the model's output; `None` if branches meet there."""
    if model.inside is None:
        return model
    if model.made.constructor is not layers.serial:
        return None
    for layer in reversed(model.inside.layers):
        if layer.made.constructor not in _PASS_ON:
            return _last(layer)
    return None
