"""The rows of the models, at sizes as small as their forms allow."""

import jax
import jax.numpy as jnp

from funcnet import layers, models
from funcnet.catalogue.rows import LayerRow

__all__ = ["LARGE_MODELS", "MODELS"]

MODELS: dict[str, LayerRow] = {
    "linear": LayerRow(models.linear(3)),
    "softmax_regression": LayerRow(models.softmax_regression(3), lambda batch, width: (batch, 2, width, 1)),
    "mlp": LayerRow(models.mlp((5, 4, 2), activation=layers.tanh)),
    "mlp_dropout": LayerRow(models.mlp((5, 2), dropout=0.2), random=True),
    "sigmoid_network": LayerRow(models.sigmoid_network((4, 2))),
    "recurrent_classifier": LayerRow(
        models.recurrent_classifier(2, features=(3,)), lambda batch, width: (batch, 3, width)
    ),
    "recurrent_classifier_bidirectional": LayerRow(
        models.recurrent_classifier(2, features=(2,), recurrence=layers.gru, bidirectional=True, dropout=0.2),
        lambda batch, width: (batch, 3, width),
        random=True,
    ),
    "perceptron": LayerRow(models.perceptron(3), straight_through=True),
}

#: Models that take seconds to compile. The laws of layers leave them out, and a test of models checks their gradients.
LARGE_MODELS: dict[str, LayerRow] = {
    "gpt": LayerRow(
        models.gpt(3, 4, blocks=2, features=4, heads=2),
        lambda batch, width: jax.ShapeDtypeStruct((batch, 4), jnp.int32),
    ),
    "lenet": LayerRow(models.lenet(3, features=(2, 3), hidden=(4,)), lambda batch, width: (batch, 12, 12, 1)),
    "vgg": LayerRow(
        models.vgg(3, blocks=((2, 3),), hidden=(4,), dropout=0.2),
        lambda batch, width: (batch, 4, 4, 2),
        random=True,
        counts=True,
    ),
    "vgg_plain": LayerRow(
        models.vgg(3, blocks=((2,), (3,)), hidden=(), normalize=False), lambda batch, width: (batch, 4, 4, 1)
    ),
    "resnet": LayerRow(models.resnet(3, depth=8, features=2), lambda batch, width: (batch, 4, 4, 1), counts=True),
    "mobilenet": LayerRow(
        models.mobilenet(3, features=2, blocks=((3, 1), (4, 2))), lambda batch, width: (batch, 4, 4, 1), counts=True
    ),
}
