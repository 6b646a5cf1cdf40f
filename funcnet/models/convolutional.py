"""Models for images (batch, height, width, channels)."""

from collections.abc import Callable
from typing import Any

from funcnet import layers
from funcnet.checks import check_count, fraction
from funcnet.errors import ConfigError
from funcnet.initializers import he_normal, zeros
from funcnet.made import constructor
from funcnet.types import Layer

__all__ = ["lenet", "mobilenet", "resnet", "softmax_regression", "vgg"]


@constructor
def softmax_regression(classes: int = 10) -> Layer:
    """Scores of the classes from the pixels alone, s = W x + b with x the image as one row.

    With `losses.softmax_cross_entropy` it is softmax regression; with `losses.multiclass_hinge` and
    `penalty=losses.partial(losses.l2_penalty, strength=…)` the multiclass support vector machine.

    Input (batch, …), output (batch, classes).

    Raises:
        ConfigError: `classes` is not a positive integer.

    >>> import funcnet as fn
    >>> fn.models.softmax_regression(10)
    serial(flatten(), dense(10))
    """
    return layers.serial(layers.flatten(), layers.dense(classes))


@constructor
def lenet(
    classes: int = 10,
    *,
    features: tuple[int, int] = (6, 16),
    hidden: tuple[int, ...] = (120, 84),
    activation: Callable[[], Layer] = layers.tanh,
) -> Layer:
    """LeNet-5: two 5 × 5 convolutions, each followed by average pooling, and dense layers.

    The first convolution pads the image with zeros and so keeps its size. The original has this padding in its images,
    of 32 × 32. Unlike in the original, the second convolution sees all channels, and the output is linear.

    Args:
        classes: width of the output.
        features: of the two convolutions.
        hidden: widths of the hidden dense layers.
        activation: a constructor, `layers.tanh` as in the original or `layers.relu`, called once per hidden layer.

    Input (batch, height, width, channels) of at least 12 × 12, 28 × 28 × 1 for MNIST; output (batch, classes).

    Raises:
        ConfigError: a width is not a positive integer, or `features` are not two.

    References: LeCun, Bottou, Bengio, Haffner, "Gradient-based learning applied to document recognition", Proc. IEEE
    1998, section II.B.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model = fn.models.lenet()
    >>> images = jax.ShapeDtypeStruct((1, 28, 28, 1), jnp.float32)
    >>> params, state = jax.eval_shape(model.init, jax.random.key(0), images)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    61706
    """
    if not isinstance(features, tuple) or len(features) != 2:
        raise ConfigError(f"expected features of two convolutions, such as (6, 16), got {features!r}.")
    dense = [layer for width in hidden for layer in (layers.dense(width), activation())]
    return layers.serial(
        layers.conv(features[0], 5), activation(), layers.avg_pool(2),
        layers.conv(features[1], 5, padding="VALID"), activation(), layers.avg_pool(2), layers.flatten(),
        *dense, layers.dense(classes),
    )  # fmt: skip


@constructor
def vgg(
    classes: int = 10,
    *,
    blocks: tuple[tuple[int, ...], ...] = ((32, 32), (64, 64), (128, 128)),
    hidden: tuple[int, ...] = (128,),
    dropout: float = 0.0,
    normalize: bool = True,
) -> Layer:
    """VGG: blocks of 3 × 3 convolutions with ReLU, a 2 × 2 max pooling after each block, and dense layers.

    Args:
        classes: width of the output.
        blocks: for each block the features of its convolutions.
        hidden: widths of the hidden dense layers.
        dropout: share dropped in training, of whole channels after each block and of the hidden units; 0 for none.
        normalize: whether batch normalisation stands between each convolution and its ReLU. The convolution then has
            no bias, because the normalisation would remove it.

    Input (batch, height, width, channels) with sides of at least 2 ** len(blocks); output (batch, classes).

    Raises:
        ConfigError: `blocks` or `hidden` hold something other than positive integers, or `dropout` is outside [0, 1).

    References: Simonyan, Zisserman, "Very Deep Convolutional Networks for Large-Scale Image Recognition", ICLR 2015.

    >>> import funcnet as fn
    >>> fn.models.vgg(blocks=((8,),), hidden=(), normalize=False)
    serial(conv(8, 3, kernel_init=he_normal()), relu(), max_pool(2), flatten(), dense(10))
    """
    dropout = fraction("dropout", dropout)
    if not isinstance(blocks, tuple) or not all(isinstance(block, tuple) and block for block in blocks):
        raise ConfigError(f"expected blocks to be tuples of features, such as ((32, 32), (64, 64)), got {blocks!r}.")
    stack: list[Layer] = []
    for block in blocks:
        for features in block:
            stack += _convolution(check_count("each of blocks", features), 3, normalize=normalize)
        stack.append(layers.max_pool(2))
        if dropout:
            stack.append(layers.dropout(dropout, broadcast_dims=(1, 2)))
    stack.append(layers.flatten())
    for width in hidden:
        stack += [layers.dense(check_count("each of hidden", width), kernel_init=he_normal()), layers.relu()]
        if dropout:
            stack.append(layers.dropout(dropout))
    return layers.serial(*stack, layers.dense(classes))


@constructor
def resnet(classes: int = 10, *, depth: int = 20, features: int = 16) -> Layer:
    """Residual network for small images: a convolution, three stages of residual blocks, global average pooling, a
    dense layer.

    A block is y = relu(x + F(x)). F is two 3 × 3 convolutions with batch normalisation, and a ReLU between them. The
    first block of the second and of the third stage halves the sides and doubles the features. In these blocks x goes
    through a 1 × 1 convolution with stride 2 and batch normalisation.

    Args:
        classes: width of the output.
        depth: number of 3 × 3 convolutions plus the dense layer, 6 n + 2 for n blocks per stage: 20, 32, 44, 56 …
        features: of the first stage.

    Input (batch, height, width, channels), 32 × 32 × 3 for CIFAR; output (batch, classes).

    Raises:
        ConfigError: `depth` is not 6 n + 2, or an argument is not a positive integer.

    References: He, Zhang, Ren, Sun, "Deep Residual Learning for Image Recognition", CVPR 2016, section 4.2; the
    shortcuts are those of option B.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    >>> params, state = jax.eval_shape(fn.models.resnet().init, jax.random.key(0), images)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    272474
    """
    depth, features = check_count("depth", depth, 8), check_count("features", features)
    blocks, rest = divmod(depth - 2, 6)
    if rest:
        raise ConfigError(f"expected depth to be 6 n + 2, such as 20, 32 or 56, got {depth}.")
    stack = _convolution(features, 3)
    for stage in range(3):
        for block in range(blocks):
            stack += _residual(features * 2**stage, 2 if stage and not block else 1)
    return layers.serial(*stack, layers.global_avg_pool(), layers.dense(classes))


@constructor
def mobilenet(
    classes: int = 10,
    *,
    features: int = 32,
    blocks: tuple[tuple[int, int], ...] = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1)),
) -> Layer:
    """Depthwise-separable network: a 3 × 3 convolution within each channel and a 1 × 1 one across them, block by block.

    A block is depthwise convolution, batch normalisation, ReLU, 1 × 1 convolution, batch normalisation, ReLU. With f
    features it takes 9 + f multiplications per number; a full 3 × 3 convolution takes 9 f.

    Args:
        classes: width of the output.
        features: of the full convolution before the blocks.
        blocks: (features, stride) of each block.

    Input (batch, height, width, channels), output (batch, classes).

    Raises:
        ConfigError: an argument is not a positive integer, or `blocks` are not pairs.

    References: Howard et al., "MobileNets: Efficient Convolutional Neural Networks for Mobile Vision Applications",
    2017.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    >>> params, state = jax.eval_shape(fn.models.mobilenet().init, jax.random.key(0), images)
    >>> sum(leaf.size for leaf in jax.tree.leaves(params))
    136778
    """
    if not isinstance(blocks, tuple) or not all(isinstance(one, tuple) and len(one) == 2 for one in blocks):
        raise ConfigError(f"expected blocks to be pairs (features, stride), got {blocks!r}.")
    stack = _convolution(check_count("features", features), 3)
    for width, strides in blocks:
        stack += [
            layers.depthwise_conv(3, strides=strides, use_bias=False, kernel_init=he_normal()),
            layers.batch_norm(), layers.relu(), *_convolution(width, 1),
        ]  # fmt: skip
    return layers.serial(*stack, layers.global_avg_pool(), layers.dense(classes))


def _convolution(
    features: int, kernel_size: int, strides: int = 1, *, normalize: bool = True, relu: bool = True
) -> list[Any]:
    """A convolution, batch normalisation and a ReLU. Without normalisation, which would remove it, there is a bias."""
    conv = layers.conv(
        features, kernel_size, strides=strides, use_bias=not normalize, kernel_init=he_normal(), bias_init=zeros
    )
    return [conv, *([layers.batch_norm()] if normalize else []), *([layers.relu()] if relu else [])]


def _residual(features: int, strides: int) -> list[Layer]:
    """A residual block and the ReLU after its sum."""
    body = layers.serial(*_convolution(features, 3, strides), *_convolution(features, 3, relu=False))
    shortcut = [layers.serial(*_convolution(features, 1, strides, relu=False))] if strides > 1 else []
    return [layers.residual(body, *shortcut), layers.relu()]
