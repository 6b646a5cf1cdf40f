"""What the libraries that train with optax share."""

import optax

OPTIMIZERS = {"adam": optax.adam(1e-3), "sgd": optax.sgd(0.01), "momentum": optax.sgd(0.01, momentum=0.9)}


def mean_loss(scores, target):
    return optax.softmax_cross_entropy_with_integer_labels(scores, target).mean()
