"""Pictures of convolutional networks: filters, activations, misclassified images and saliency."""

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from funcnet.checks import check_count, check_shape, describe
from funcnet.errors import DataError, ShapeError
from funcnet.made import leading
from funcnet.plotting.checks import check_class_names, check_class_numbers
from funcnet.plotting.figures import GREY, PALE_GREY, VERMILION, new_figure, saved

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["activation_maps", "filters", "misclassified", "saliency"]

_COLUMNS = 8  # images in a row


def filters(kernel: Any, path: str | os.PathLike[str] | None = None, *, most: int = 64) -> "Figure":
    """The filters of a convolution as small images, all on one scale with 0 in its middle.

    Filters of three input channels are drawn in red, green and blue like images, with 0 as grey. Filters of one channel
    stand in rows, in the order of text. Otherwise each row is an input channel, and each column a filter.

    Args:
        kernel: (height, width, channels, features), the leaf `kernel` of a `conv` or `depthwise_conv`.
        path: where to save the figure, if anywhere; the ending gives the format, for example `.png`.
        most: how many filters are drawn, and how many input channels of each.

    Raises:
        ShapeError: the kernel is of another shape.
        MissingExtraError: without `pip install 'funcnet[plot]'`.

    References: Zeiler, Fergus, "Visualizing and Understanding Convolutional Networks", ECCV 2014, figure 6.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> params, _ = fn.layers.conv(8, 3).init(jax.random.key(0), jnp.ones((1, 8, 8, 1)))
    >>> fn.plotting.filters(params["kernel"]).get_suptitle()
    '8 filters of 3 × 3 × 1'
    """
    kernel = _array("filters", "kernel", kernel, "height, width, channels, features", "for example params[0]['kernel']")
    with leading("filters"):
        most = check_count("most", most)
    height, width, channels, features = kernel.shape
    tiles = kernel[:, :, :, :most].transpose(3, 0, 1, 2)
    title = f"{_number_of(features, most, 'filter')} of {height} × {width} × {channels}"
    if channels == 3:
        coloured = np.nan_to_num(0.5 + tiles / (2 * (_largest(tiles) or 1)), nan=1.0).clip(0, 1)
        return saved(_draw_mosaic("filters", _in_rows(coloured, 1.0), title, ("feature", None)), path)
    if channels == 1:
        grid, words = _in_rows(tiles[..., 0], np.nan), ("feature", None)
    else:
        grid, words = tiles[..., :most].transpose(3, 0, 1, 2), ("input channel", "feature")
    return saved(_draw_mosaic("filters", grid, title, words, _diverging(grid)), path)


def activation_maps(y: Any, path: str | os.PathLike[str] | None = None, *, most: int = 64) -> "Figure":
    """The channels of a layer's output for one image, as small images on one scale, in the order of text.

    Args:
        y: (height, width, channels), the output for one example. For an inner layer apply the layers up to it.
        path: where to save the figure, if anywhere; the ending gives the format, for example `.png`.
        most: how many channels are drawn.

    Raises:
        ShapeError: y is of another shape.
        MissingExtraError: without `pip install 'funcnet[plot]'`.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> images, model = jnp.ones((2, 8, 8, 1)), fn.models.vgg(blocks=((8,), (16,)), normalize=False)
    >>> params, state = jax.jit(model.init)(jax.random.key(0), images)
    >>> first = fn.layers.serial(*model.inside.layers[:2])  # a convolution and its ReLU
    >>> y, _ = first.apply(params[:2], state[:2], images)
    >>> fn.plotting.activation_maps(y[0]).get_suptitle()
    '8 channels of 8 × 8'
    """
    y = _array("activation_maps", "y of one example,", y, "height, width, channels", "y[0] of a batch")
    with leading("activation_maps"):
        most = check_count("most", most)
    height, width, channels = y.shape
    grid = _in_rows(y[:, :, :most].transpose(2, 0, 1), np.nan)
    # 0 is the lower end of the scale after a ReLU, else its middle.
    colours = _diverging(grid) if (y < 0).any() else {"cmap": "viridis", "vmin": 0, "vmax": _largest(grid) or 1}
    title = f"{_number_of(channels, most, 'channel')} of {height} × {width}"
    return saved(_draw_mosaic("activation_maps", grid, title, ("channel", None), colours), path)


def misclassified(
    images: Any, labels: Any, predictions: Any, path: str | os.PathLike[str] | None = None,
    *, class_names: Sequence[str] | None = None, most: int = 24,
) -> "Figure":  # fmt: skip
    """The images whose predicted class is not the true one, with both classes.

    With probabilities the surest mistakes come first, each with the probability of the predicted class.

    Args:
        images: (n, height, width, channels) with 1 or 3 channels. Numbers outside [0, 1] are scaled into it.
        labels: (n,), integers.
        predictions: classes (n,), integers, or probabilities (n, classes), for example of `jax.nn.softmax`.
        path: where to save the figure, if anywhere; the ending gives the format, for example `.png`.
        class_names: one name per class; by default the numbers from 0.
        most: how many images are drawn.

    Raises:
        ShapeError: images of another shape, another number of labels or predictions than of images, or too few names.
        LabelError: labels or predicted classes that are negative or not integers.
        DataError: probabilities that do not sum to 1.
        MissingExtraError: without `pip install 'funcnet[plot]'`.

    >>> import numpy as np, funcnet as fn
    >>> images, labels = fn.data.digits()
    >>> predicted = np.where(labels == 9, 7, labels)
    >>> figure = fn.plotting.misclassified(images.reshape(-1, 8, 8, 1), labels, predicted, most=3)
    >>> print(figure.get_suptitle(), [axes.get_title() for axes in figure.axes])
    the first 3 of 180 misclassified among 1797: true → predicted ['9 → 7', '9 → 7', '9 → 7']
    """
    pixels = _pixels("misclassified", images)
    with leading("misclassified"):
        most = check_count("most", most)
    labels = _classes("labels", labels, len(pixels))
    predicted, probability = _predicted(predictions, len(pixels))
    names = _names(class_names, max(labels.max(), predicted.max()))
    wrong = np.flatnonzero(predicted != labels)
    if not wrong.size:
        return saved(_all_correct(len(pixels)), path)
    kind = "first"
    if probability is not None:
        kind, wrong = "surest", wrong[np.argsort(-probability[wrong], kind="stable")]
    count = f"the {kind} {most} of {len(wrong)}" if len(wrong) > most else str(len(wrong))
    title = f"{count} misclassified among {len(pixels)}: true → predicted"
    shown = wrong[:most]
    words = [f"{names[labels[i]]} → {names[predicted[i]]}" for i in shown]
    if max(map(len, words)) > 12:
        words = [word.replace(" → ", "\n→ ") for word in words]
    if probability is not None:
        words = [f"{word}\n{probability[i]:.0%}" for word, i in zip(words, shown, strict=True)]
    figure, places = _places("misclassified", len(shown), words, title)
    for axes, image, word in zip(places, pixels[shown], words, strict=True):
        _draw_image(axes, image)
        axes.set_title(word, fontsize="small", color=VERMILION)
    return saved(figure, path)


def saliency(
    images: Any, maps: Any, path: str | os.PathLike[str] | None = None,
    *, titles: Sequence[str] | None = None, most: int = 16,
) -> "Figure":  # fmt: skip
    """Images, and below each how strongly the score of its class depends on each pixel.

    Each map has a scale of its own, from black for 0 to its largest number.

    Args:
        images: (n, height, width, channels) with 1 or 3 channels. Numbers outside [0, 1] are scaled into it.
        maps: (n, height, width), from `gradients.saliency`.
        path: where to save the figure, if anywhere; the ending gives the format, for example `.png`.
        titles: one per image, for example its class.
        most: how many images are drawn.

    Raises:
        ShapeError: images of another shape, or maps or titles that do not fit them.
        MissingExtraError: without `pip install 'funcnet[plot]'`.

    References: Simonyan, Vedaldi, Zisserman, "Deep Inside Convolutional Networks: Visualising Image Classification
    Models and Saliency Maps", arXiv 1312.6034, figure 2.

    >>> import jax, funcnet as fn
    >>> images, model = fn.data.digits()[0][:4].reshape(-1, 8, 8, 1), fn.models.softmax_regression(10)
    >>> maps = fn.gradients.saliency(model, *model.init(jax.random.key(0), images), images)
    >>> len(fn.plotting.saliency(images, maps, titles="0123").axes)  # four images and four maps
    8
    """
    pixels = _pixels("saliency", images)
    with leading("saliency"):
        most = check_count("most", most)
    maps = np.asarray(maps)
    words = [""] * len(pixels) if titles is None else [str(title) for title in titles]
    with leading("saliency"):
        check_shape("maps", maps, f"{pixels.shape[:3]}", "gradients.saliency makes them, one per image")
        check_shape("titles", words, f"({len(pixels)},)", "give one per image")
    n = min(most, len(pixels))
    title = f"the first {n} of {len(pixels)} images" if n < len(pixels) else ""
    figure, places = _places("saliency", n, words[:n], title, each=2)
    for i, (above, below) in enumerate(places):
        _draw_image(above, pixels[i])
        above.set_title(words[i], fontsize="small")
        _draw_image(below, maps[i], cmap="inferno", vmax=_largest(maps[i]) or 1)
        if i % _COLUMNS == 0:
            above.set_ylabel("image", fontsize="small")
            below.set_ylabel("saliency", fontsize="small")
    return saved(figure, path)


def _array(name: str, what: str, value: Any, axes: str, fix: str) -> np.ndarray:
    """The array as floats. It must have the named axes, and none of them may be empty."""
    shape = getattr(value, "shape", ())
    if len(shape) != axes.count(",") + 1 or 0 in shape:
        raise ShapeError(f"{name}: expected {what} of shape ({axes}), got {describe(value)}; give it {fix}.")
    return np.asarray(value).astype(float)


def _pixels(name: str, images: Any) -> np.ndarray:
    """Numbers in [0, 1], (n, height, width) for one channel and (n, height, width, 3) for three."""
    fix = "for example images.reshape(-1, 28, 28, 1)"
    pixels = _array(name, "images", images, "n, height, width, 1 or 3", fix)
    if pixels.shape[3] not in (1, 3):
        raise ShapeError(f"{name}: expected images of 1 or 3 channels, got shape {pixels.shape}; give it {fix}.")
    low, high = min(pixels.min(), 0), max(pixels.max(), 1)
    pixels = (pixels - low) / (high - low)
    return pixels[..., 0] if pixels.shape[3] == 1 else pixels


def _classes(what: str, classes: Any, n: int) -> np.ndarray:
    classes = np.asarray(classes)
    with leading("misclassified"):
        check_class_numbers(what, classes, n)
    return classes


def _predicted(predictions: Any, n: int) -> tuple[np.ndarray, np.ndarray | None]:
    """The predicted classes, and their probabilities if they are known."""
    predictions = np.asarray(predictions)
    if predictions.ndim != 2:
        return _classes("predictions", predictions, n), None
    if len(predictions) != n or not predictions.size:
        raise ShapeError(f"misclassified: expected predictions of shape ({n}, classes), got {predictions.shape}.")
    predictions = predictions.astype(float)
    total = predictions.sum(1)
    # The sum of bfloat16 numbers is wrong by up to 2⁻⁸, half of their ε.
    fine = (np.abs(total - 1) <= 0.01) & (predictions >= 0).all(1)
    if not fine.all():
        row = np.flatnonzero(~fine)[0]
        got = f"numbers from {predictions[row].min():.3g} with the sum {total[row]:.3g} in row {row}"
        fix = "take jax.nn.softmax of logits"
        raise DataError(f"misclassified: expected predictions to be probabilities, got {got}; {fix}.")
    return predictions.argmax(1), predictions.max(1)


def _names(class_names: Sequence[str] | None, last: int) -> list[str]:
    if class_names is None:
        return [str(i) for i in range(last + 1)]
    with leading("misclassified"):
        check_class_names(class_names, last)
    return [str(name) for name in class_names]


def _number_of(count: int, most: int, what: str) -> str:
    return f"the first {most} of {count} {what}s" if count > most else f"{count} {what}{'s' * (count > 1)}"


def _largest(values: np.ndarray) -> float:
    """The largest absolute value of the finite numbers."""
    return float(np.max(np.abs(values), initial=0, where=np.isfinite(values)))


def _diverging(values: np.ndarray) -> dict[str, Any]:
    limit = _largest(values) or 1
    return {"cmap": "RdBu_r", "vmin": -limit, "vmax": limit}


def _in_rows(tiles: np.ndarray, blank: float) -> np.ndarray:
    """(n, height, width, …) as (rows, columns, height, width, …), with blank tiles after the last."""
    columns = min(len(tiles), _COLUMNS if len(tiles) <= 4 * _COLUMNS else 2 * _COLUMNS)
    behind = -len(tiles) % columns
    tiles = np.concatenate([tiles, np.full((behind, *tiles.shape[1:]), blank)])
    return tiles.reshape(-1, columns, *tiles.shape[1:])


def _draw_mosaic(
    name: str, grid: np.ndarray, title: str, words: tuple[str, str | None], colours: dict[str, Any] | None = None
) -> "Figure":
    """All tiles as one image with gaps between them. A row has the number of its first tile, or its own."""
    rows, columns, height, width, *rgb = grid.shape
    gap = -(-max(height, width) // 10)
    blank = np.nan if colours else 1.0
    spaced = np.pad(grid, [(0, 0), (0, 0), (0, gap), (0, gap), *[(0, 0) for _ in rgb]], constant_values=blank)
    mosaic = spaced.swapaxes(1, 2).reshape(rows * (height + gap), columns * (width + gap), *rgb)[:-gap, :-gap]
    across = min(7.0, 0.55 * columns)
    down = across * mosaic.shape[0] / mosaic.shape[1]
    figure = new_figure(name, max(across + 1.4, 0.085 * len(title)), max(down, 0.5) + 0.8)
    axes = figure.subplots()
    image = axes.imshow(mosaic, interpolation="nearest", **(colours or {}))
    if colours:
        figure.colorbar(image, ax=axes, fraction=0.03, pad=0.02).outline.set_visible(False)
    row, column = words
    figure.suptitle(title, fontsize="medium")
    axes.set_ylabel(row)
    _number(axes.set_yticks, (height - 1) / 2, height + gap, rows, 1 if column else columns)
    axes.set_xticks([])
    if column:
        axes.set_xlabel(column)
        _number(axes.set_xticks, (width - 1) / 2, width + gap, columns, 1)
    axes.tick_params(length=0, labelsize="small")
    axes.spines[:].set_visible(False)
    return figure


def _number(set_ticks: Any, first: float, step: float, count: int, by: int) -> None:
    """Write numbers at the middles of the tiles. If there are many tiles, only every second or third has one."""
    shown = range(0, count, -(-count // 16))
    set_ticks([first + i * step for i in shown], [str(i * by) for i in shown])


def _places(name: str, n: int, words: Sequence[str], title: str, each: int = 1) -> tuple["Figure", Any]:
    """Axes for n images, or for n columns of `each` images, wide enough for the words above them."""
    columns = min(n, _COLUMNS)
    rows = -(-n // columns)
    lines = [word.splitlines() for word in words]
    width = max(0.85, 0.075 * max(len(line) for word in lines for line in ["", *word]))
    height = 0.85 * each + 0.17 * max(map(len, lines)) + 0.05
    figure = new_figure(name, max(columns * width, 0.085 * len(title)) + 0.4, rows * height + 0.3)
    axes = figure.subplots(rows * each, columns, squeeze=False).reshape(rows, each, columns)
    places = axes.transpose(0, 2, 1).reshape(-1, each)
    for unused in places[n:].flat:
        unused.remove()
    if title:
        figure.suptitle(title, fontsize="medium")
    return figure, places[:n, 0] if each == 1 else places[:n]


def _draw_image(axes: "Axes", image: np.ndarray, cmap: str = "gray", vmax: float = 1.0) -> None:
    axes.imshow(image, cmap=cmap, vmin=0, vmax=vmax, interpolation="nearest")
    axes.set_xticks([])
    axes.set_yticks([])
    axes.spines[:].set_visible(False)


def _all_correct(n: int) -> "Figure":
    figure = new_figure("misclassified", 4, 1.4)
    axes = figure.subplots()
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(PALE_GREY)
    axes.text(0.5, 0.5, f"none of {n} misclassified", ha="center", va="center", color=GREY)
    return figure
