"""Pictures of convolutional networks: what they show, read back from the matplotlib objects."""

import sys
from itertools import pairwise

import jax.numpy as jnp
import numpy as np
import pytest

from funcnet.errors import ConfigError, DataError, LabelError, MissingExtraError, ShapeError
from funcnet.plotting import activation_maps, filters, misclassified, saliency


def mosaic(figure):
    """The first axes' image, with the gaps NaN or white."""
    return np.ma.filled(np.ma.asarray(figure.axes[0].images[0].get_array()), np.nan)


def tick_words(axes):
    return [[label.get_text() for label in labels] for labels in (axes.get_yticklabels(), axes.get_xticklabels())]


def limits(figure):
    return figure.axes[0].images[0].get_clim()


# Filters


def test_filters_of_one_channel_read_like_text():
    kernel = np.arange(-50.0, 58.0).reshape(3, 3, 1, 12)
    figure = filters(jnp.asarray(kernel))
    image = mosaic(figure)
    assert image.shape == (2 * 3 + 1, 8 * 3 + 7)
    np.testing.assert_array_equal(image[:3, :3], kernel[:, :, 0, 0])
    np.testing.assert_array_equal(image[:3, 4:7], kernel[:, :, 0, 1])  # rows stay rows
    np.testing.assert_array_equal(image[4:, 12:15], kernel[:, :, 0, 11])
    assert np.isnan(np.concatenate([image[3], image[:, 3]])).all()  # the gaps
    assert np.isnan(image[4:, 16:]).all()  # behind the last
    assert limits(figure) == (-57, 57)
    assert figure.get_suptitle() == "12 filters of 3 × 3 × 1"
    assert (figure.axes[0].get_ylabel(), tick_words(figure.axes[0])) == ("feature", [["0", "8"], []])


def test_filters_of_three_channels_are_coloured():
    kernel = np.zeros((2, 2, 3, 2))
    kernel[0, 1, 0, 1], kernel[1, 0, 2, 1] = 4, -2
    image = mosaic(filters(kernel))
    assert image.shape == (2, 5, 3)
    np.testing.assert_array_equal(image[:, :2], np.full((2, 2, 3), 0.5))  # zeros are grey
    np.testing.assert_array_equal(image[:, 2], np.ones((2, 3)))  # the gap is white
    np.testing.assert_array_equal(image[:, 3:], [[[0.5] * 3, [1, 0.5, 0.5]], [[0.5, 0.5, 0.25], [0.5] * 3]])


def test_filters_that_diverged_have_a_picture(tmp_path):
    kernel = np.array([np.nan, np.inf, -np.inf, 2.0, -2.0, 0.0]).reshape(1, 2, 3, 1)
    image = mosaic(filters(kernel, tmp_path / "diverged.png"))
    np.testing.assert_array_equal(image, [[[1, 1, 0], [1, 0, 0.5]]])


def test_filters_of_other_channels_have_a_row_each():
    kernel = np.arange(1.0, 25.0).reshape(1, 2, 4, 3)
    figure = filters(kernel)
    image = mosaic(figure)
    assert image.shape == (4 * 2 - 1, 3 * 3 - 1)
    for channel, feature in np.ndindex(4, 3):
        tile = image[2 * channel, 3 * feature : 3 * feature + 2]
        np.testing.assert_array_equal(tile, kernel[0, :, channel, feature])
    axes = figure.axes[0]
    assert (axes.get_ylabel(), axes.get_xlabel()) == ("input channel", "feature")
    assert tick_words(axes) == [["0", "1", "2", "3"], ["0", "1", "2"]]
    np.testing.assert_array_equal(axes.get_xticks(), [0.5, 3.5, 6.5])  # the middles of the filters


def test_filters_are_limited_in_number():
    figure = filters(np.ones((3, 3, 40, 5)), most=2)
    assert figure.get_suptitle() == "the first 2 of 5 filters of 3 × 3 × 40"
    assert mosaic(figure).shape == (7, 7)
    assert mosaic(filters(np.ones((3, 3, 1, 100)))).shape == (4 * 4 - 1, 16 * 4 - 1)
    assert tick_words(filters(np.ones((1, 1, 40, 40))).axes[0])[0] == [str(i) for i in range(0, 40, 3)]


@pytest.mark.parametrize("value, limit", [(0.0, 1), (np.nan, 1), (np.inf, 1), (-3.0, 3)])
def test_the_scale_is_symmetric_about_zero(tmp_path, value, limit):
    assert limits(filters(np.full((2, 2, 1, 2), value), tmp_path / "filters.png")) == (-limit, limit)


# Activations


def test_activations_after_a_relu_begin_at_zero():
    y = np.arange(24.0).reshape(2, 3, 4)
    figure = activation_maps(jnp.asarray(y, jnp.bfloat16))
    assert limits(figure) == (0, 23)
    assert figure.get_suptitle() == "4 channels of 2 × 3"
    np.testing.assert_array_equal(mosaic(figure)[:, 4:7], y[:, :, 1])


def test_other_activations_are_symmetric_about_zero():
    figure = activation_maps(np.array([[[-2.0, 1.0]]]))
    assert limits(figure) == (-2, 2)
    assert figure.axes[0].images[0].get_cmap().name == "RdBu_r"


def test_activations_of_zeros_and_of_one_channel_of_many():
    figure = activation_maps(np.zeros((2, 2, 9)), most=1)
    assert limits(figure) == (0, 1)
    assert figure.get_suptitle() == "the first 1 of 9 channels of 2 × 2"


# Misclassified images

IMAGES = np.linspace(0, 1, 5 * 4, dtype=np.float32).reshape(5, 2, 2, 1)
LABELS = np.array([0, 1, 2, 0, 1])
PROBABILITIES = np.array([[0.9, 0.1, 0], [0.6, 0.4, 0], [0, 0.3, 0.7], [0, 0.2, 0.8], [0.5, 0.3, 0.2]])


def drawn(figure):
    """title -> the pixels below."""
    return {axes.get_title(): np.asarray(axes.images[0].get_array()) for axes in figure.axes}


def test_misclassified_images_with_both_classes():
    figure = misclassified(IMAGES, LABELS, jnp.array([0, 2, 2, 1, 1]), class_names=["a", "b", "c"])
    assert figure.get_suptitle() == "2 misclassified among 5: true → predicted"
    shown = drawn(figure)
    assert list(shown) == ["b → c", "a → b"]
    np.testing.assert_array_equal(shown["b → c"], IMAGES[1, :, :, 0])
    np.testing.assert_array_equal(shown["a → b"], IMAGES[3, :, :, 0])
    assert figure.axes[0].images[0].get_clim() == (0, 1)  # the images' own scale, not that of each


def test_the_surest_mistakes_come_first():
    figure = misclassified(IMAGES, LABELS, jnp.array(PROBABILITIES, jnp.bfloat16))
    assert list(drawn(figure)) == ["0 → 2\n80%", "1 → 0\n60%", "1 → 0\n50%"]
    figure = misclassified(IMAGES, LABELS, PROBABILITIES, most=2)
    assert list(drawn(figure)) == ["0 → 2\n80%", "1 → 0\n60%"]
    assert figure.get_suptitle() == "the surest 2 of 3 misclassified among 5: true → predicted"


def test_long_names_do_not_overlap():
    names = ["automobile", "hippopotamus"]
    figure = misclassified(np.zeros((9, 2, 2, 3)), [0] * 9, [1] * 9, class_names=names)
    figure.draw_without_rendering()
    assert figure.axes[0].get_title() == "automobile\n→ hippopotamus"
    boxes = [axes.title.get_window_extent() for axes in figure.axes]
    assert all(left.x1 < right.x0 for left, right in pairwise(boxes[:8]))
    assert boxes[8].y1 < figure.axes[0].get_window_extent().y0  # the second row below the first


def test_nothing_misclassified(tmp_path):
    figure = misclassified(IMAGES, LABELS, LABELS, tmp_path / "none.png")
    assert [text.get_text() for text in figure.axes[0].texts] == ["none of 5 misclassified"]


@pytest.mark.parametrize(
    "images, want",
    [
        (np.full((1, 1, 2, 1), [[[-1], [3]]]), [[0, 1]]),  # standardised
        (np.full((1, 1, 2, 1), [[[0], [255]]], np.uint8), [[0, 1]]),
        (np.full((1, 1, 2, 1), [[[0.25], [0.5]]]), [[0.25, 0.5]]),  # stays dark
        (np.full((1, 1, 1, 3), [[[-1, 0, 1]]]), [[[0, 0.5, 1]]]),
    ],
)
def test_pixels_are_brought_into_their_range(images, want):
    (shown,) = drawn(misclassified(images, [0], [1])).values()
    np.testing.assert_allclose(shown, want, rtol=1e-15)


# Saliency


def test_saliency_stands_below_its_image():
    maps = np.arange(1.0, 1 + 5 * 4).reshape(5, 2, 2)
    figure = saliency(IMAGES, jnp.asarray(maps), titles=["a", "b", "c", "d", "e"])
    figure.draw_without_rendering()
    places = {}
    for axes in figure.axes:
        box = axes.get_window_extent()
        places[round(box.x0), -round(box.y0)] = axes
    ordered = [places[place] for place in sorted(places)]  # by column, each from its top
    assert [axes.get_title() for axes in ordered] == ["a", "", "b", "", "c", "", "d", "", "e", ""]
    for i, axes in enumerate(ordered):
        want = maps[i // 2] if i % 2 else IMAGES[i // 2, :, :, 0]
        np.testing.assert_array_equal(axes.images[0].get_array(), want)
        assert axes.images[0].get_clim() == (0, maps[i // 2].max() if i % 2 else 1)
    assert [axes.get_ylabel() for axes in ordered[:3]] == ["image", "saliency", ""]


def test_saliency_of_many_images_and_of_none_at_all(tmp_path):
    figure = saliency(np.zeros((20, 2, 2, 3)), np.zeros((20, 2, 2)), tmp_path / "saliency.png", most=9)
    assert len(figure.axes) == 18
    assert figure.get_suptitle() == "the first 9 of 20 images"
    assert all(axes.images[0].get_clim() == (0, 1) for axes in figure.axes)


# Errors, files, the extra

PICTURES = {
    "filters": lambda path=None: filters(np.ones((3, 3, 1, 2)), path),
    "activation_maps": lambda path=None: activation_maps(np.ones((3, 3, 2)), path),
    "misclassified": lambda path=None: misclassified(IMAGES, LABELS, LABELS[::-1], path),
    "saliency": lambda path=None: saliency(IMAGES, IMAGES[..., 0], path),
}


@pytest.mark.parametrize(
    "draw, error, message",
    [
        (lambda: filters(np.ones((3, 3))), ShapeError,
         r"filters: expected kernel of shape \(height, width, channels, features\), got an .* shape \(3, 3\); give"),
        (lambda: filters({"kernel": 1}), ShapeError, "filters: expected kernel of shape .*got a dict"),
        (lambda: filters(np.ones((3, 3, 0, 4))), ShapeError, r"filters: .*got an .* shape \(3, 3, 0, 4\)"),
        (lambda: filters(np.ones((3, 3, 1, 4)), most=0), ConfigError, "filters: expected most to be a positive"),
        (lambda: activation_maps(np.ones((1, 3, 3, 4))), ShapeError,
         r"activation_maps: expected y of one example, of shape \(height, width, channels\), got .*; give it y\[0\]"),
        (lambda: activation_maps(np.ones((3, 3, 4)), most=1.5), ConfigError, "activation_maps: expected most"),
        (lambda: misclassified(IMAGES[..., 0], LABELS, LABELS), ShapeError,
         r"misclassified: expected images of shape \(n, height, width, 1 or 3\), got .* shape \(5, 2, 2\)"),
        (lambda: misclassified(np.ones((5, 2, 2, 2)), LABELS, LABELS), ShapeError,
         r"misclassified: expected images of 1 or 3 channels, got shape \(5, 2, 2, 2\)"),
        (lambda: misclassified(IMAGES, LABELS[:4], LABELS), ShapeError,
         r"misclassified: expected labels of shape \(5,\), got \(4,\); give one for each"),
        (lambda: misclassified(IMAGES, LABELS, LABELS[:, None, None]), ShapeError,
         r"misclassified: expected predictions of shape \(5,\), got \(5, 1, 1\); give one for each"),
        (lambda: misclassified(IMAGES, LABELS, PROBABILITIES[:4]), ShapeError,
         r"misclassified: expected predictions of shape \(5, classes\), got \(4, 3\)"),
        (lambda: misclassified(IMAGES, LABELS, LABELS * 1.0), LabelError,
         "misclassified: expected predictions to be integers from 0, got an array of dtype float64"),
        (lambda: misclassified(IMAGES, LABELS - 1, LABELS), LabelError, "misclassified: expected labels to be"),
        (lambda: misclassified(IMAGES, LABELS, PROBABILITIES + 1), DataError,
         "misclassified: expected predictions to be probabilities, got numbers from 1 with the sum 4 in row 0; take"),
        (lambda: misclassified(IMAGES, LABELS, PROBABILITIES * np.nan), DataError, "with the sum nan in row 0"),
        (lambda: misclassified(IMAGES, LABELS, LABELS, class_names="ab"), ShapeError,
         r"misclassified: expected class_names for the classes 0\.\.2, got 2"),
        (lambda: misclassified(IMAGES, LABELS, LABELS, most=-1), ConfigError, "misclassified: expected most"),
        (lambda: saliency(IMAGES, IMAGES), ShapeError,
         r"saliency: expected maps of shape \(5, 2, 2\), got \(5, 2, 2, 1\); gradients.saliency makes"),
        (lambda: saliency(IMAGES[:0], IMAGES[:0, ..., 0]), ShapeError, "saliency: expected images of shape"),
        (lambda: saliency(IMAGES, IMAGES[..., 0], titles=["a"]), ShapeError,
         r"saliency: expected titles of shape \(5,\), got \(1,\); give one per image"),
        (lambda: saliency(IMAGES, IMAGES[..., 0], most=None), ConfigError, "saliency: expected most"),
    ],
)  # fmt: skip
def test_errors(draw, error, message):
    with pytest.raises(error, match=message):
        draw()


@pytest.mark.parametrize("name", PICTURES)
def test_figures_are_saved_and_need_the_extra(tmp_path, monkeypatch, name):
    path = tmp_path / "figure.png"
    PICTURES[name](path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=rf"{name}: .*pip install 'funcnet\[plot\]'"):
        PICTURES[name]()
