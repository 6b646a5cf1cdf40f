"""Pictures of models and of the functions they are made of, read back from the matplotlib objects."""

import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_hex
from matplotlib.patches import FancyBboxPatch, Rectangle
from PIL import Image

from funcnet import initializers, layers, optimizers, plotting, schedules
from funcnet.catalogue import embedding, highway
from funcnet.errors import ConfigError, DataError, LabelError, MissingExtraError, ShapeError, StructureError
from funcnet.layers import (
    dense,
    each,
    flatten,
    gated,
    held,
    parallel,
    recompute,
    relu,
    repeat,
    residual,
    serial,
    sigmoid,
    tanh,
)  # fmt: skip
from funcnet.made import constructor
from funcnet.types import Padded, Report, TrainState


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def curve(line):
    return np.asarray(line.get_xdata()), np.asarray(line.get_ydata())


# The learning rate below the curves

HISTORY = [{"epoch": i, "loss": 1 / i, "accuracy": 1 - 1 / i, "learning_rate": 0.1 / i} for i in (1, 2, 3)]


def test_the_learning_rate_stands_below_the_curves():
    figure = plotting.learning_curves(HISTORY)
    loss, accuracy, rate = figure.axes
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["loss", "accuracy", "learning rate"]
    x, y = curve(rate.lines[0])
    np.testing.assert_array_equal(x, [1, 2, 3])
    np.testing.assert_allclose(y, [0.1, 0.05, 0.1 / 3])
    assert (rate.get_xlabel(), rate.get_ylim()[0]) == ("epoch", 0)
    figure.draw_without_rendering()
    assert rate.get_window_extent().y1 < loss.get_window_extent().y0
    assert rate.get_window_extent().x1 == pytest.approx(accuracy.get_window_extent().x1, abs=2)


# Activations


def test_activations_with_the_derivatives_of_their_backwards():
    figure = plotting.activations([sigmoid(), relu(), layers.prelu(), tanh(), layers.elu()], limit=2)
    assert [axes.get_title() for axes in figure.axes] == ["sigmoid()", "relu()", "prelu()", "tanh()", "elu()"]
    assert legend(figure) == ["y", "dy/dx"]
    x = np.linspace(-2, 2, 401)
    values = {
        "sigmoid()": (1 / (1 + np.exp(-x)), np.exp(-x) / (1 + np.exp(-x)) ** 2),
        "relu()": (np.maximum(x, 0), x > 0),
        "prelu()": (np.where(x > 0, x, 0.25 * x), np.where(x > 0, 1, 0.25)),
        "tanh()": (np.tanh(x), 1 - np.tanh(x) ** 2),
        "elu()": (np.where(x > 0, x, np.expm1(x)), np.where(x > 0, 1, np.exp(x))),
    }
    away = np.abs(x) > 1e-9  # from the kink
    for axes in figure.axes:
        for line, want in zip(axes.lines, values[axes.get_title()], strict=False):
            at, y = curve(line)
            np.testing.assert_allclose(at, x, atol=1e-6)
            np.testing.assert_allclose(y[away], want[away], atol=1e-6)


# Schedules


def test_schedules_by_step():
    kinds = {"stairs": schedules.step_decay(0.5, 2, gamma=0.1), "own": lambda step: 0.25}
    figure = plotting.schedules(kinds, 4)
    (axes,) = figure.axes
    np.testing.assert_allclose([curve(line)[1] for line in axes.lines], [[0.5, 0.5, 0.05, 0.05], [0.25] * 4])
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("step (updates done)", "learning rate")
    assert legend(figure) == ["stairs", "own"]


# Initializers through depth


def test_the_spread_through_depth():
    kinds = {"doubled": initializers.orthogonal(2.0), "tiny": initializers.normal(1e-6), "none": initializers.zeros}
    figure = plotting.initializer_spread(kinds, layers.identity(), depth=5, width=32)
    (axes,) = figure.axes
    doubled, tiny, none = (curve(line)[1] for line in axes.lines)
    np.testing.assert_allclose(doubled[1:] / doubled[:-1], np.full(5, 2), rtol=1e-3)  # a rotation, twice as long
    assert tiny[4] == pytest.approx((1e-6 * 32**0.5) ** 4, rel=0.5, abs=0)  # whose square would underflow
    assert np.isnan(none[1:]).all()
    assert doubled[0] == pytest.approx(1, rel=0.05)
    assert axes.get_yscale() == "log"
    assert axes.get_xlabel() == "layer, each 32 units and identity()"
    assert legend(figure) == list(kinds)


# Loss surfaces


def bowl(p):
    return p[0] ** 2 + 2 * p[1] ** 2


def test_paths_over_a_surface():
    ways = {"a": np.array([[2.0, 1.0], [1.0, 0.5], [0.0, 0.0]]), "gone": [[1.0, 1.0], [np.nan, 0.0], [0.0, 0.0]]}
    figure = plotting.loss_surface(bowl, ways, minimum=(0, 0), labels=("w", "b"))
    (axes,) = figure.axes
    a, start, end, gone, *_ = axes.lines
    np.testing.assert_array_equal(a.get_xydata(), ways["a"])
    np.testing.assert_array_equal([start.get_xydata(), end.get_xydata()], [[[2, 1]], [[0, 0]]])
    assert (start.get_fillstyle(), end.get_fillstyle()) == ("none", "full")
    np.testing.assert_array_equal(gone.get_xydata(), [[1, 1]])
    assert to_hex(a.get_color()) == to_hex(end.get_color()) != to_hex(gone.get_color())
    assert legend(figure) == ["a", "gone", "minimum"]
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("w", "b")
    np.testing.assert_allclose(axes.get_xlim(), (-0.3, 2.3), atol=1e-6)
    filled, lines = axes.collections
    assert len(filled.get_paths()) >= 14
    for level, path in zip(lines.levels, lines.get_paths(), strict=True):  # the surface is the function's
        if len(path.vertices):
            np.testing.assert_allclose(bowl(path.vertices.T), level, atol=5e-3)


# Histograms

TREE = {"0": {"kernel": jnp.linspace(-1, 1, 100).reshape(10, 10)}, "1": {"bias": jnp.array([0.0, 0.0, 4.0])}, "2": ()}


def test_histograms_of_each_leaf_and_tree():
    other = jax.tree.map(lambda leaf: leaf / 2, TREE)
    figure = plotting.histograms({"before": TREE, "after": other}, bins=10)
    kernel, bias = figure.axes
    assert [axes.get_title() for axes in figure.axes] == ["0/kernel", "1/bias"]
    assert legend(figure) == ["before", "after"]
    before, after = (patch.get_data() for patch in kernel.patches)
    np.testing.assert_allclose(before.edges, np.linspace(-1, 1, 11), atol=1e-4)
    np.testing.assert_allclose(before.values, np.full(10, 0.1))
    np.testing.assert_allclose(after.values, [0, 0, 0.1, 0.2, 0.2, 0.2, 0.2, 0.1, 0, 0], atol=0.011)
    np.testing.assert_allclose(bias.patches[0].get_data().values, [2 / 3, 0, 0, 1 / 3])  # 4 bins for 3 numbers


def test_histograms_of_what_is_not_finite_equal_or_too_much(tmp_path):
    tree = {f"{i:02}": jnp.array([1.0, np.nan, np.inf]) for i in range(6)} | {"07": jnp.full(4, np.nan)}
    figure = plotting.histograms({"broken": tree}, tmp_path / "broken.png", most=5)
    assert [axes.get_title() for axes in figure.axes] == [f"{i:02}, 2 not finite" for i in range(5)]
    assert figure.get_supxlabel() == "the first 5 of 7 leaves"
    plotting.histograms({"nothing": {"a": jnp.full(4, np.nan)}}, tmp_path / "nan.png")


# Decision boundaries

POINTS = np.array([[-1.0, 0.0], [-0.5, 1.0], [1.0, 0.5], [0.5, -1.0]], np.float32)
RIGHT = {"kernel": jnp.array([[1.0], [0.0]]), "bias": jnp.zeros(1)}  # 1 where x₁ > 0


def regions(figure):
    return np.asarray(figure.axes[0].images[0].get_array())


def test_regions_points_and_mistakes():
    labels = np.array([0, 0, 1, 0])
    figure = plotting.decision_boundary(dense(1), RIGHT, (), POINTS, labels, class_names=["left", "right"])
    (axes,) = figure.axes
    assert axes.get_title() == "75.0% of 4 points"
    assert legend(figure) == ["left", "right"]
    rings, left, right = axes.lines
    np.testing.assert_array_equal(rings.get_xydata(), POINTS[3:])
    np.testing.assert_array_equal(left.get_xydata(), POINTS[[0, 1, 3]])
    np.testing.assert_array_equal(right.get_xydata(), POINTS[2:3])
    shown = regions(figure)
    assert (shown[:, :99] == shown[0, 0]).all()  # the left half is one colour, the right half another
    assert (shown[:, 101:] == shown[0, -1]).all()
    assert (shown[0, 0] != shown[0, -1]).any()
    nearest = min((left, right), key=lambda line: np.abs(_rgb(line) - shown[0, 0]).sum())
    assert nearest is left
    with jax.enable_x64(True):
        wide = jax.tree.map(lambda leaf: leaf.astype(jnp.float64), RIGHT)
        figure = plotting.decision_boundary(dense(1), wide, (), POINTS.astype(np.float64), labels)
        assert figure.axes[0].get_title() == "75.0% of 4 points"
    half = plotting.decision_boundary(dense(1), RIGHT, (), POINTS, labels, threshold=0.75)
    assert (regions(half)[:, :160] == regions(half)[0, 0]).all()


def _rgb(line):
    word = to_hex(line.get_color())
    return np.array([int(word[i : i + 2], 16) / 255 for i in (1, 3, 5)])


def test_three_classes_stand_where_their_numbers_are_largest():
    params = {"kernel": jnp.array([[-1.0, 0.0, 1.0], [0.0, 0.0, 0.0]]), "bias": jnp.array([0.0, 0.5, 0.0])}
    figure = plotting.decision_boundary(dense(3), params, (), POINTS, np.array([0, 1, 2, 1]))
    colours = regions(figure)[0]
    edges = np.flatnonzero((colours[1:] != colours[:-1]).any(1))
    places = np.linspace(-1.16, 1.16, 200)[edges]
    np.testing.assert_allclose(places, [-0.5, 0.5], atol=0.02)
    assert figure.axes[0].get_title() == "75.0% of 4 points"  # (−0.5, 1), on the boundary, goes to the first


def reports(*kernels):
    for i, kernel in enumerate(kernels):
        params = {"kernel": jnp.array([[kernel], [0.0]]), "bias": jnp.zeros(1)}
        yield Report(i + 1, 10 * i, {}, TrainState(optimizers.sgd(0.1).init(params), (), jax.random.key(0)))


def test_a_boundary_that_moves(tmp_path):
    path, labels = tmp_path / "boundary.gif", np.array([0, 0, 1, 1])
    figure = plotting.decision_boundary_gif(dense(1), reports(-1.0, 1.0), POINTS, labels, path, resolution=20, fps=4)
    assert figure.axes[0].get_title() == "epoch 2: 100.0% of 4 points"
    with Image.open(path) as gif:
        frames = []
        for i in range(gif.n_frames):
            gif.seek(i)
            frames.append((gif.info["duration"], np.asarray(gif.convert("RGB")).astype(int)))
    assert [duration for duration, _ in frames] == [250, 2000]
    first, last = (frame for _, frame in frames)
    assert first.shape == (360, 480, 3)
    middle = (slice(150, 155), slice(90, 95)), (slice(150, 155), slice(330, 335))
    np.testing.assert_allclose(first[middle[0]], last[middle[1]], atol=12)  # the sides have changed places
    assert np.abs(first[middle[0]] - last[middle[0]]).max() > 20
    with pytest.raises(DataError, match="decision_boundary_gif: expected reports, such as .*, got none"):
        plotting.decision_boundary_gif(dense(1), [], POINTS, labels, path)
    with pytest.raises(ConfigError, match=r"decision_boundary_gif: expected a path that ends with \.gif, got 'a\.png'"):
        plotting.decision_boundary_gif(dense(1), [], POINTS, labels, "a.png")


# Graphs

X = jax.ShapeDtypeStruct((5, 4), jnp.float32)


def drawn(model, x=X):
    axes = plotting.graph(model, x).axes[0]
    boxes = [patch for patch in axes.patches if isinstance(patch, FancyBboxPatch)]
    frames = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return [text.get_text() for text in axes.texts if text.get_text()], boxes, frames


def test_a_row_of_layers():
    words, boxes, frames = drawn(serial(dense(3), relu(), serial(dense(2))))
    assert words == ["x (5, 4)", "dense(3)", "(5, 3)", "relu()", "(5, 3)", "dense(2)", "y (5, 2)"]
    heights = [box.get_y() for box in boxes]
    assert heights == sorted(heights)
    assert frames == []
    assert len({to_hex(box.get_edgecolor()) for box in boxes}) == 2  # with parameters and without
    assert drawn(serial())[0] == ["x (5, 4)", "serial()", "y (5, 4)"]


def test_branches_stand_side_by_side():
    words, boxes, _ = drawn(parallel(dense(3), serial(dense(2), relu()), combine="concatenate"))
    assert words[:-2] == ["x (5, 4)", "dense(3)", "(5, 3)", "dense(2)", "(5, 2)", "relu()", "(5, 2)"]
    assert words[-2:] == ["concatenate", "y (5, 5)"]
    left, right, below = boxes
    assert left.get_x() + left.get_width() < right.get_x()
    assert left.get_y() == right.get_y() < below.get_y()
    words, boxes, _ = drawn(residual(dense(4)))
    assert words == ["x (5, 4)", "dense(4)", "(5, 4)", "+", "y (5, 4)"]
    assert len(boxes) == 1  # the identity is a line
    words, boxes, _ = drawn(residual(parallel(dense(2), dense(2), combine="concatenate"), dense(4)))
    assert (words[-2:], len(boxes)) == (["+", "y (5, 4)"], 3)
    assert drawn(parallel(dense(2), dense(3), combine=None))[0][-2:] == ["( )", "y (5, 2), (5, 3)"]


def test_names_stand_above_their_layers_in_the_order_of_the_call():
    model = serial(trunk=dense(3), heads=parallel(ink=dense(1), digit=serial(dense(2), relu())))
    words, boxes, _ = drawn(model)
    assert words == [
        "x (5, 4)", "trunk", "dense(3)", "(5, 3)", "heads", "ink", "dense(1)", "(5, 1)", "digit", "dense(2)", "(5, 2)",
        "relu()", "(5, 2)", "{ }", "y ink (5, 1), digit (5, 2)",
    ]  # fmt: skip
    trunk, ink, digit, _ = boxes
    assert trunk.get_y() < ink.get_y() == digit.get_y()
    assert ink.get_x() < digit.get_x()


def test_entries_of_their_own():
    x = {"words": jax.ShapeDtypeStruct((5, 2), jnp.int32), "image": jax.ShapeDtypeStruct((5, 2, 3), jnp.float32)}
    words, boxes, _ = drawn(each(words=embedding(7, 4), image=serial(flatten(), dense(2))), x)
    assert words == [
        "x words (5, 2), image (5, 2, 3)", "words", "embedding(7, 4)", "(5, 2, 4)", "image", "flatten()", "(5, 6)",
        "dense(2)", "(5, 2)", "{ }", "y words (5, 2, 4), image (5, 2)",
    ]  # fmt: skip
    assert len({to_hex(box.get_edgecolor()) for box in boxes}) == 2
    padded = Padded(jax.ShapeDtypeStruct((5, 2, 3), jnp.float32), jax.ShapeDtypeStruct((5, 2), bool))
    assert drawn(each(dense(4), tanh()), (padded, X))[0][-1] == "y (5, 2, 4), (5, 4)"


def test_a_container_of_ones_own_is_a_frame_around_its_layers():
    words, (first, second, below), (frame,) = drawn(highway(dense(4), serial(dense(4), sigmoid())))
    assert "highway" in words
    assert first.get_x() < second.get_x()
    assert first.get_y() == second.get_y() < below.get_y()
    for box in (first, second, below):
        assert frame.get_x() < box.get_x() < frame.get_x() + frame.get_width()
        assert frame.get_y() < box.get_y() < frame.get_y() + frame.get_height()


def test_what_is_called_repeat_is_not_taken_for_it():
    @constructor
    def repeat(inner):
        return layers.container(inner, lambda run, x: (run(0, x), None), lambda run, kept, dy: run(0, dy))

    words, boxes, frames = drawn(repeat(dense(4)))
    assert "repeat" in words
    assert (len(boxes), len(frames)) == (1, 1)


@pytest.mark.parametrize(
    "wrap, word",
    [(lambda inner: repeat(inner, n=3), "× 3"), (recompute, "recompute"), (gated, "gated"), (held, "held")],
)
def test_containers_of_one_are_frames_around_it(wrap, word):
    words, (first, second), (frame,) = drawn(wrap(serial(dense(4), sigmoid())))
    assert word in words
    for box in (first, second):
        assert frame.get_x() < box.get_x() < frame.get_x() + frame.get_width()
        assert frame.get_y() < box.get_y() < frame.get_y() + frame.get_height()


def test_nothing_lies_outside_and_long_names_are_cut(tmp_path):
    @constructor
    def a_name_that_is_far_too_long_for_a_box():
        return layers.elementwise(jnp.sin, lambda x, y: jnp.cos(x))

    own = a_name_that_is_far_too_long_for_a_box()
    block = residual(serial(own, repeat(dense(4), 2)), serial(dense(4), relu()))
    heads = parallel(a_head_with_a_name=dense(1), another=highway(dense(4), sigmoid()))
    figure = plotting.graph(serial(block, parallel(block, dense(4)), heads), X, tmp_path / "graph.png")
    figure.draw_without_rendering()
    (axes,) = figure.axes
    whole = figure.bbox
    for artist in [*axes.texts, *axes.patches]:
        box = artist.get_window_extent()
        assert whole.x0 <= box.x0 <= box.x1 <= whole.x1, artist
        assert whole.y0 <= box.y0 <= box.y1 <= whole.y1, artist
    assert "a_name_that_is_far_too_long_f…" in [text.get_text() for text in axes.texts]


# Errors, files, the extra

PICTURES = {
    "learning_curves": lambda path=None: plotting.learning_curves(HISTORY, path),
    "activations": lambda path=None: plotting.activations([relu()], path),
    "schedules": lambda path=None: plotting.schedules({"a": schedules.constant(0.1)}, 3, path),
    "initializer_spread": lambda path=None: plotting.initializer_spread(
        {"a": initializers.he_normal()}, relu(), path, depth=2, width=4
    ),
    "loss_surface": lambda path=None: plotting.loss_surface(bowl, {"a": np.ones((2, 2))}, path),
    "histograms": lambda path=None: plotting.histograms({"a": TREE}, path),
    "decision_boundary": lambda path=None: plotting.decision_boundary(
        dense(1), RIGHT, (), POINTS, np.array([0, 1, 1, 0]), path, resolution=5
    ),
    "graph": lambda path=None: plotting.graph(dense(2), X, path),
}
LABELS = np.array([0, 1, 1, 0])


def boundary(x=POINTS, labels=LABELS, model=None, params=RIGHT, **options):
    return plotting.decision_boundary(dense(1) if model is None else model, params, (), x, labels, **options)


@pytest.mark.parametrize(
    "draw, error, message",
    [
        (lambda: plotting.activations([]), DataError, r"activations: expected layers, such as .*, got a list \[\]"),
        (lambda: plotting.activations([relu]), DataError, "activations: expected layers, such as"),
        (lambda: plotting.activations([dense(2)]), ShapeError, r"expected an elementwise layer, got dense\(2\)"),
        (lambda: plotting.schedules({}, 3), DataError, "schedules: expected a dictionary of schedules"),
        (lambda: plotting.schedules({"a": schedules.constant(1.0)}, 0), ConfigError, "schedules: expected steps"),
        (lambda: plotting.initializer_spread({}, relu()), ConfigError, "initializer_spread: expected a dictionary"),
        (lambda: plotting.initializer_spread({"a": 1}, relu(), depth=0), ConfigError, "expected depth to be"),
        (lambda: plotting.loss_surface(bowl, {}), DataError, "loss_surface: expected paths, name -> points"),
        (lambda: plotting.loss_surface(bowl, {"a": np.ones((2, 3))}), ShapeError,
         r"loss_surface: expected the path 'a' to be finite points of shape \(steps, 2\), got \(2, 3\)"),
        (lambda: plotting.loss_surface(bowl, {"a": [[np.nan, 1.0]]}), ShapeError, "expected the path 'a' to be finite"),
        (lambda: plotting.loss_surface(lambda p: p, {"a": np.ones((2, 2))}), ShapeError,
         r"loss_surface: expected function \(2,\) -> \(\), got a value of shape \(2,\)"),
        (lambda: plotting.histograms(jnp.ones(3)), DataError, "histograms: expected a dictionary of trees by name"),
        (lambda: plotting.histograms({}), DataError, "histograms: expected a dictionary of trees by name"),
        (lambda: plotting.histograms({"a": ()}), DataError, "histograms: expected trees with numbers"),
        (lambda: plotting.histograms({"a": TREE, "b": {}}), StructureError, "histograms: b do not fit a: 0/kernel is"),
        (lambda: plotting.histograms({"a": TREE}, bins=0), ConfigError, "histograms: expected bins to be"),
        (lambda: boundary(x=np.ones((4, 3))), ShapeError, r"decision_boundary: expected x of shape \(n, 2\), .*\(4, 3"),
        (lambda: boundary(labels=LABELS[:3]), ShapeError, r"decision_boundary: expected labels of shape \(4,\)"),
        (lambda: boundary(labels=LABELS - 1), LabelError, "decision_boundary: expected labels to be integers from 0"),
        (lambda: boundary(class_names=["a"]), ShapeError, r"expected class_names for the classes 0\.\.1, got 1"),
        (lambda: boundary(resolution=0), ConfigError, "decision_boundary: expected resolution to be"),
        (lambda: boundary(model=layers.reshape((2, 1)), params=()), ShapeError,
         r"decision_boundary: expected the model's output of shape \(n, classes\), got \(40000, 2, 1\)"),
        (lambda: plotting.graph("dense", X), DataError, "graph: expected a layer, got 'dense'"),
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
