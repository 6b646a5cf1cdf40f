"""Normalisation: over the batch, within each example, or among neighbouring channels.

`affine` holds the scale and the bias of the first two. Only this folder uses it.
"""

from funcnet.layers.normalization.batch import batch_norm
from funcnet.layers.normalization.example import group_norm, instance_norm, layer_norm, rms_norm
from funcnet.layers.normalization.local import local_response_norm

__all__ = ["batch_norm", "group_norm", "instance_norm", "layer_norm", "local_response_norm", "rms_norm"]
