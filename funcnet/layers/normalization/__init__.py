"""Normalisation: numbers brought to mean 0 and variance 1, over the batch or within each example."""

from funcnet.layers.normalization.batch import batch_norm
from funcnet.layers.normalization.example import group_norm, instance_norm, layer_norm, rms_norm

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "rms_norm"]
