"""Whole models, made of the layers of `funcnet.layers`.

Their outputs are linear (logits) unless said otherwise. The losses of `funcnet.losses` take logits, which is more
precise than an activation followed by a logarithm.
"""

from funcnet.models.convolutional import lenet, mobilenet, resnet, softmax_regression, vgg
from funcnet.models.dense import linear, mlp, sigmoid_network
from funcnet.models.language import gpt
from funcnet.models.perceptron import perceptron
from funcnet.models.recurrent import recurrent_classifier

__all__ = [
    "gpt", "lenet", "linear", "mlp", "mobilenet", "perceptron", "recurrent_classifier", "resnet", "sigmoid_network",
    "softmax_regression", "vgg",
]  # fmt: skip
