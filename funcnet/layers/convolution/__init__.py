"""Windows that slide over an image: convolution, its gradients as functions of arrays, and pooling.

Any layer for images may use `windows`. Only `conv` uses `gradients`, which computes differently on different platforms.
"""

from funcnet.layers.convolution.conv import conv, conv_transpose, depthwise_conv
from funcnet.layers.convolution.pooling import avg_pool, global_avg_pool, global_max_pool, max_pool

__all__ = [
    "avg_pool", "conv", "conv_transpose", "depthwise_conv", "global_avg_pool", "global_max_pool", "max_pool",
]  # fmt: skip
