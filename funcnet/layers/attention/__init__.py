"""Attention: the layer, its products for short and for long sequences, and its cache for one position at a time."""

from funcnet.layers.attention.layer import attention

__all__ = ["attention"]
