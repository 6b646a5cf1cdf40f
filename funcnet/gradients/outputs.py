"""Whether what a model gives is what its loss takes: a softmax before a loss on logits trains, and trains badly."""

import warnings

from funcnet.errors import OutputWarning
from funcnet.types import Layer, LossFn

__all__ = ["check_output"]

# What the library's layers give, by the word before the bracket of their name. Of others nothing is known.
_LOGITS = ("batch_norm", "conv", "conv_transpose", "dense", "depthwise_conv", "layer_norm")
_GIVES = dict.fromkeys(_LOGITS, "logits") | {
    "binary_step": "steps",
    "log_sigmoid": "log-probabilities",
    "log_softmax": "log-probabilities",
    "relu": "no negative numbers",
    "sigmoid": "probabilities",
    "softmax": "probabilities",
    "softplus": "no negative numbers",
    "tanh": "numbers within ±1",
}
_PASS_ON = ("dropout", "flatten", "identity", "reshape")

_FIX = {
    "logits": "leave that layer out: the loss wants the numbers before it",
    "probabilities": "end with sigmoid(), or take binary_cross_entropy_with_logits, which takes logits",
    "log-probabilities": "end with log_softmax(), or take softmax_cross_entropy, which takes logits",
}


def check_output(model: Layer, loss: LossFn) -> None:
    """OutputWarning if the model's last layer is known not to give what the loss takes.

    Log-probabilities are logits too: a softmax leaves them as they are.
    """
    takes = getattr(loss, "takes", None)
    last = _last(model)
    gives = _GIVES.get(_word(last)) if last is not None else None
    if takes is None or gives is None or gives == takes or (gives, takes) == ("log-probabilities", "logits"):
        return
    warnings.warn(
        f"{getattr(loss, '__name__', 'loss')}: expected a model that gives {takes}, got one that ends with "
        f"{last!r}, which gives {gives}; {_FIX[takes]}.",
        OutputWarning,
        stacklevel=3,
    )


def _last(model: Layer) -> Layer | None:
    """The layer whose output the model's is; `None` where branches meet."""
    if not model.sublayers:
        return model
    if _word(model) != "serial":
        return None
    for layer in reversed(model.sublayers):
        if layer.sublayers or _word(layer) not in _PASS_ON:
            return _last(layer)
    return None


def _word(layer: Layer) -> str:
    return layer.name.partition("(")[0]
