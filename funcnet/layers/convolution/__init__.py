"""Windows that slide over an image: convolution, its gradients as functions of arrays, and pooling.

Any layer of images may use `windows`. `gradients` serves `conv` alone; how it computes differs by platform.
"""

from funcnet.layers.convolution.conv import conv, conv_transpose, depthwise_conv
from funcnet.layers.convolution.pooling import avg_pool, global_avg_pool, global_max_pool, max_pool

__all__ = [
    "avg_pool", "conv", "conv_transpose", "depthwise_conv", "global_avg_pool", "global_max_pool", "max_pool",
]  # fmt: skip
