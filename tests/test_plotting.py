"""Figures: what they show, read back from the matplotlib objects."""

import subprocess
import sys
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from matplotlib.colors import to_hex

from funcnet import models
from funcnet.checking import check_gradients
from funcnet.errors import ConfigError, DataError, MissingExtraError, ShapeError, StructureError
from funcnet.metrics import ClassScores
from funcnet.plotting import (
    class_scores,
    confusion_matrix,
    gradient_errors,
    gradient_flow,
    learning_curves,
    predicted_values,
)  # fmt: skip

HISTORY = [
    {"epoch": 1, "step": 10, "loss": 2.0, "accuracy": 0.25, "validation_loss": 2.1, "validation_accuracy": 0.2},
    {"epoch": 2, "step": 20, "loss": 1.0, "accuracy": 0.5, "validation_loss": 1.2, "validation_accuracy": 0.45},
    {"epoch": 3, "step": 30, "loss": 0.5, "accuracy": 0.75, "validation_loss": 1.1, "validation_accuracy": 0.625},
    {"epoch": 4, "step": 40, "loss": 0.2, "accuracy": 1.0, "validation_loss": 1.4, "validation_accuracy": 0.5},
]


def only(history, *keys):
    return [{key: report[key] for key in keys} for report in history]


def curves(axes):
    """The named lines of a panel as {name: (x, y)}."""
    return {
        line.get_label(): (line.get_xdata().tolist(), line.get_ydata().tolist())
        for line in axes.lines
        if not line.get_label().startswith("_")
    }


def words(axes):
    return [text.get_text() for text in axes.texts]


def test_two_panels_with_the_reported_numbers():
    loss, accuracy = learning_curves(HISTORY).axes
    assert (loss.get_title(loc="left"), loss.get_xlabel()) == ("loss", "epoch")
    assert curves(loss) == {
        "train": ([1, 2, 3, 4], [2.0, 1.0, 0.5, 0.2]),
        "validation": ([1, 2, 3, 4], [2.1, 1.2, 1.1, 1.4]),
    }
    assert (accuracy.get_title(loc="left"), accuracy.get_xlabel()) == ("accuracy", "epoch")
    assert curves(accuracy) == {
        "train": ([1, 2, 3, 4], [0.25, 0.5, 0.75, 1.0]),
        "validation": ([1, 2, 3, 4], [0.2, 0.45, 0.625, 0.5]),
    }


def test_curves_are_labelled_at_their_ends_in_their_colours():
    for axes in learning_curves(HISTORY).axes:
        assert axes.get_legend() is None
        named = {line.get_label(): line for line in axes.lines}
        labels = [text for text in axes.texts if text.get_text() in named]
        assert [text.get_text() for text in labels] == ["train", "validation"]
        for text in labels:
            line = named[text.get_text()]
            assert text.xy == (4, line.get_ydata()[-1])
            assert to_hex(text.get_color()) == to_hex(line.get_color())


def test_the_best_validation_epoch_is_marked_in_both_panels():
    loss, accuracy = learning_curves(HISTORY).axes
    assert "best epoch 3\n1.1" in words(loss)
    assert "best epoch 3\n62.50%" in words(accuracy)
    for axes, y in ((loss, 1.1), (accuracy, 0.625)):
        dots = [line.get_xydata().tolist() for line in axes.lines if line.get_marker() == "o"]
        assert dots == [[[3, y]]]
        assert [3, 3] in [list(line.get_xdata()) for line in axes.lines]  # the vertical line


def test_labels_that_would_touch_are_moved_apart():
    history = [{"epoch": i, "loss": 1 / i, "validation_loss": 1 / i + 1e-6} for i in (1, 2, 3)]
    (axes,) = learning_curves(history).axes
    heights = {text.get_text(): text.xyann[1] for text in axes.texts}
    assert heights["validation"] - heights["train"] == pytest.approx(13, abs=0.01)


@pytest.mark.parametrize(
    "history, unit, at",
    [
        (only(HISTORY, "step", "loss"), "step", [10, 20, 30, 40]),
        (only(HISTORY, "loss"), "report", [1, 2, 3, 4]),
        ([{**report, "epoch": 1} for report in only(HISTORY, "step", "loss")], "step", [10, 20, 30, 40]),
    ],
)
def test_the_axis_is_what_tells_reports_apart(history, unit, at):
    (axes,) = learning_curves(history).axes
    assert axes.get_xlabel() == unit
    assert curves(axes) == {"train": (at, [2.0, 1.0, 0.5, 0.2])}
    assert words(axes) == ["train"]  # no validation, so no best epoch


def test_reports_may_lack_quantities():
    history = [HISTORY[0], {"epoch": 2, "loss": 1.0}, HISTORY[2]]
    loss, accuracy = learning_curves(history).axes
    assert curves(loss)["train"] == ([1, 2, 3], [2.0, 1.0, 0.5])
    assert curves(loss)["validation"] == ([1, 3], [2.1, 1.1])
    assert curves(accuracy)["train"] == ([1, 3], [0.25, 0.75])


def test_validation_alone_and_scalars_of_jax():
    history = [{"epoch": jnp.array(i), "validation_loss": jnp.array(2.0 / i)} for i in (1, 2)]
    (axes,) = learning_curves(history).axes
    assert curves(axes) == {"validation": ([1, 2], [2.0, 1.0])}
    assert "best epoch 2\n1" in words(axes)


def test_one_report_is_a_dot(tmp_path):
    loss, accuracy = learning_curves(HISTORY[:1], tmp_path / "one.png").axes
    assert [line.get_marker() for line in loss.lines] == ["o", "o"]
    assert words(accuracy) == ["train", "validation"]


def test_a_run_that_diverged_has_a_picture(tmp_path):
    history = [
        {**HISTORY[0], "epoch": i, "loss": loss, "validation_loss": loss} for i, loss in enumerate([1, np.inf, np.nan])
    ]
    loss, _ = learning_curves(history, tmp_path / "diverged.png").axes
    assert "best epoch 0\n1" in words(loss)
    learning_curves([{"loss": np.nan, "validation_loss": np.nan}] * 2, tmp_path / "nan.png")


@pytest.mark.parametrize("history", [[], [{"epoch": 1, "accuracy": 0.5}]])
def test_without_a_loss(history):
    with pytest.raises(
        DataError, match=rf'learning_curves: expected reports with a "loss".*got {len(history)} without'
    ):
        learning_curves(history)


COUNTS = np.array([[8, 2, 0], [0, 0, 0], [1, 0, 30]])


def test_confusion_matrix():
    figure = confusion_matrix(COUNTS, ["cat", "dog", "owl"])
    axes, bar = figure.axes
    assert words(axes) == ["8", "2", "0", "0", "0", "0", "1", "0", "30"]
    assert [text.get_position() for text in axes.texts][:3] == [(0, 0), (1, 0), (2, 0)]  # (column, row)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("predicted class", "true class")
    assert [label.get_text() for label in axes.get_xticklabels()] == ["cat", "dog", "owl"]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "owl"]
    (image,) = axes.images
    np.testing.assert_allclose(image.get_array(), [[0.8, 0.2, 0], [0, 0, 0], [1 / 31, 0, 30 / 31]])
    assert image.get_clim() == (0, 1)
    assert bar.get_ylabel() == "share of the true class"


def test_counts_stand_out_from_their_cell():
    colours = [text.get_color() for text in confusion_matrix(COUNTS).axes[0].texts]
    assert colours[0] == colours[8] == "white"  # dark cells
    assert colours[1] == colours[6] == "black"  # light ones
    assert colours[2] not in ("white", "black")  # zeros recede


def test_classes_are_numbered_without_names():
    axes = confusion_matrix(jnp.asarray(COUNTS)).axes[0]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["0", "1", "2"]


def test_many_classes_show_colours_alone(tmp_path):
    axes = confusion_matrix(np.eye(100), path=tmp_path / "many.png").axes[0]
    assert words(axes) == []
    assert [label.get_text() for label in axes.get_yticklabels()] == [str(i) for i in range(0, 100, 4)]


@pytest.mark.parametrize("n, names", [(10, None), (10, ["automobile"] * 10)])
def test_counts_fit_their_cells(n, names):
    """Four digits in every cell of ten classes, with room to spare."""
    figure = confusion_matrix(np.full((n, n), 8888), names)
    figure.draw_without_rendering()
    axes = figure.axes[0]
    cell = axes.get_window_extent().width / n
    assert all(text.get_window_extent().width < 0.9 * cell for text in axes.texts)


@pytest.mark.parametrize(
    "matrix, names, message",
    [
        (np.zeros((2, 3)), None, r"expected a matrix of shape \(classes, classes\), got \(2, 3\)"),
        (np.zeros(3), None, r"expected a matrix of shape \(classes, classes\), got \(3,\)"),
        (np.zeros((0, 0)), None, r"expected a matrix of shape \(classes, classes\), got \(0, 0\)"),
        (np.eye(3), ["a", "b"], "expected 3 class_names, one per row of the matrix, got 2"),
    ],
)
def test_confusion_matrix_of_the_wrong_shape(matrix, names, message):
    with pytest.raises(ShapeError, match=f"confusion_matrix: {message}"):
        confusion_matrix(matrix, names)


def gradient_report(*rows, located=()):
    """Rows of (leaf, dtype, engines, error, ok), as `check_gradients` has them."""
    names = ("leaf", "dtype", "engines", "error", "ok")
    rows = [SimpleNamespace(**dict(zip(names, row, strict=True))) for row in rows]
    return SimpleNamespace(rows=tuple(rows), located=located, ok=all(row.ok for row in rows))


AUTODIFF, NUMERIC = ("backprop", "autodiff"), ("backprop", "numeric")
CHECKED = gradient_report(
    ("params/0/bias", "float64", AUTODIFF, 0.0, True),
    ("params/0/kernel", "float64", AUTODIFF, 2e-16, True),
    ("params/1/bias", "float64", AUTODIFF, 1e-3, False),
    ("x", "float64", AUTODIFF, 3e-16, True),
    ("x", "float64", NUMERIC, 3e-12, True),
    ("params/1/bias", "bfloat16", AUTODIFF, 4e-3, True),
    located=("serial[1] dense(3)",),
)


def named(axes):
    return {line.get_label(): line for line in axes.lines if not line.get_label().startswith("_")}


def marks(axes):
    """label -> (line of the axis, error) of its marks, sorted."""
    return {label: sorted((round(y), x) for x, y in line.get_xydata().tolist()) for label, line in named(axes).items()}


def test_gradient_errors_by_leaf():
    (axes,) = gradient_errors(CHECKED).axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["x", "0/bias", "0/kernel", "1/bias"]
    assert axes.get_xscale() == "log"
    floor = axes.get_xlim()[0]
    assert marks(axes) == {
        "backprop / autodiff, float64": [(0, 3e-16), (1, floor), (2, 2e-16), (3, 1e-3)],
        "backprop / numeric, float64": [(0, 3e-12)],
        "backprop / autodiff, bfloat16": [(3, 4e-3)],
        "wrong: serial[1] dense(3)": [],
    }
    assert axes.get_xticklabels()[-1].get_text() == "0"  # the mark of no error at all
    assert len({(line.get_marker(), to_hex(line.get_color())) for line in named(axes).values()}) == 4


def test_what_is_wrong_is_ringed_and_named_in_red():
    (axes,) = gradient_errors(CHECKED).axes
    red = to_hex(named(axes)["wrong: serial[1] dense(3)"].get_color())
    rings = [line for line in axes.lines if line.get_fillstyle() == "none" and len(line.get_xdata())]
    assert [line.get_xdata()[0] for line in rings] == [1e-3]
    assert [to_hex(text.get_color()) == red for text in axes.get_yticklabels()] == [False, False, False, True]


def test_gradient_tolerances_are_lines():
    """One for each pair of engines. What is right is left of the line of its pair."""
    (axes,) = gradient_errors(CHECKED, tolerance=1e-9, numeric_tolerance=1e-5).axes
    verticals = {line.get_xdata()[0]: line.get_linestyle() for line in axes.lines if list(line.get_ydata()) == [0, 1]}
    assert verticals == {1e-9: "--", 1e-5: "--", 2.0**-7: ":"}
    assert words(axes) == ["tolerance\nof autodiff\n1e-09", "tolerance\nof differences\n1e-05", "ε bfloat16"]
    (axes,) = gradient_errors(gradient_report(("x", "float64", AUTODIFF, 1e-16, True))).axes
    assert words(axes) == ["tolerance\nof autodiff\n1e-10"]


def test_right_derivatives_are_left_of_their_tolerance():
    report = check_gradients(models.mlp((4, 2)), jax.ShapeDtypeStruct((3, 5), jnp.float32))
    assert report.ok
    (axes,) = gradient_errors(report).axes
    lines = {text.get_text().split("\n")[1]: text.xy[0] for text in axes.texts}
    for label, points in marks(axes).items():
        line = lines["of autodiff" if label == "backprop / autodiff, float64" else "of differences"]
        assert all(error < line for _, error in points), label


def test_gradient_errors_of_several_reports(tmp_path):
    fine = gradient_report(("x", "float64", AUTODIFF, 1e-16, True), ("x", "float64", NUMERIC, np.inf, True))
    (axes,) = gradient_errors({"fine": fine, "mistaken": CHECKED}, tmp_path / "errors.png").axes
    assert [text.get_text() for text in axes.get_yticklabels()] == ["fine", "mistaken"]
    assert marks(axes)["backprop / numeric, float64"] == [(0, axes.get_xlim()[1]), (1, 3e-12)]
    assert "wrong" in marks(axes)


@pytest.mark.parametrize("reports", [{}, gradient_report()])
def test_no_gradients_no_picture(reports):
    with pytest.raises(DataError, match=r"gradient_errors: expected a report of checking.check_gradients, .* got none"):
        gradient_errors(reports)


@pytest.mark.parametrize(
    "draw", [lambda path: learning_curves(HISTORY, path), lambda path: confusion_matrix(COUNTS, path=path)]
)
def test_figures_are_saved_as_png(tmp_path, draw):
    path = tmp_path / "figure.png"
    draw(path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"


def test_without_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"learning_curves: .*pip install 'funcnet\[plot\]'"):
        learning_curves(HISTORY)
    with pytest.raises(MissingExtraError, match=r"confusion_matrix: .*pip install 'funcnet\[plot\]'"):
        confusion_matrix(COUNTS)


def test_no_global_state():
    """matplotlib loads with the first figure, and pyplot never."""
    program = """if True:
        import sys
        from funcnet.plotting import learning_curves
        assert "matplotlib" not in sys.modules
        learning_curves([{"loss": 1.0}])
        assert "matplotlib.figure" in sys.modules and "matplotlib.pyplot" not in sys.modules
    """
    subprocess.run([sys.executable, "-c", program], check=True)


def trace(dy, y=(1.0, 1.0, 1.0)):
    """What `gradient_flow` reads of a `checking.Trace`."""
    dy, y = (SimpleNamespace(rms=jnp.array(rms), nonfinite=jnp.where(jnp.isfinite(jnp.array(rms)), -1, 0))
             for rms in (dy, y))  # fmt: skip
    return SimpleNamespace(places=("a", "b", "c"), y=y, dy=dy)


def test_gradient_flow(tmp_path, monkeypatch):
    path = tmp_path / "flow.png"
    figure = gradient_flow({"deep": trace([1e-8, 0.0, 1e-2]), "wide": trace([0.1, np.nan, 0.1], [1, 2, 4])}, path)
    assert path.read_bytes()[:8] == b"\x89PNG\r\n\x1a\n"
    (axes,) = figure.axes
    assert (axes.get_yscale(), axes.get_xlabel(), axes.get_ylabel()) == ("log", "layer", "root mean square")
    deep, deep_y, foot, wide, wide_y, head, *_ = axes.lines
    np.testing.assert_allclose(deep.get_ydata(), [1e-8, np.nan, 1e-2])
    np.testing.assert_allclose(wide.get_ydata(), [0.1, np.nan, 0.1])
    np.testing.assert_allclose([deep_y.get_ydata(), wide_y.get_ydata()], [[1, 1, 1], [1, 2, 4]])
    crosses = [(line.get_marker(), line.get_xydata().tolist()) for line in (foot, head)]
    assert crosses == [("x", [[1, 0]]), ("x", [[1, 1]])]  # in the height of the panel
    assert len({to_hex(line.get_color()) for line in (deep, deep_y, foot)}) == 1
    assert to_hex(deep.get_color()) != to_hex(wide.get_color())
    assert [line.get_linestyle() for line in (deep, deep_y)] == ["-", "--"]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == ["deep", "wide", " ", "gradient ∂loss/∂y", "output y"]
    alone = gradient_flow(trace([1.0, 1.0, 1.0]))
    assert [text.get_text() for text in alone.legends[0].get_texts()] == ["gradient ∂loss/∂y", "output y"]
    for wrong, got in (({}, "an empty one"), ([trace([1.0, 1.0, 1.0])], "list"), ({"deep": 1.0}, "dict")):
        with pytest.raises(
            DataError, match=f"gradient_flow: expected a Trace or a dictionary of them, got {got}; make"
        ):
            gradient_flow(wrong)
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(MissingExtraError, match=r"gradient_flow: .*pip install 'funcnet\[plot\]'"):
        gradient_flow(trace([1.0, 1.0, 1.0]))


# Predicted values


def test_predicted_values_lie_over_their_targets():
    targets, predictions = np.float32([[1, 10], [2, 20], [4, 40]]), np.float32([[1, 10], [2, 20], [1, 44]])
    figure = predicted_values(targets, predictions, names=["price", "size"])
    points = [axes.lines[1].get_xydata().tolist() for axes in figure.axes]
    assert points == [[[1, 1], [2, 2], [4, 1]], [[10, 10], [20, 20], [40, 44]]]
    assert [axes.lines[0].get_xydata().tolist() for axes in figure.axes] == [[[1, 1], [4, 4]], [[10, 10], [44, 44]]]
    assert [axes.get_title("left") for axes in figure.axes] == ["price: error 1.732", "size: error 2.309"]
    assert len(predicted_values(np.ones((2, 4)), np.ones((2, 4))).axes) == 4


@pytest.mark.parametrize(
    "arguments, error, message",
    [
        (([1.0, 2.0], [1.0]), ShapeError, "^predicted_values: "),
        ((np.ones((2, 2, 2)),) * 2, ShapeError, r"expected targets of shape \(n, outputs\), got \(2, 2, 2\)"),
        ((np.ones((0, 1)),) * 2, DataError, r"expected at least one row and one output, got shape \(0, 1\)"),
        (([1.0, np.nan], [1.0, 2.0]), DataError, r"targets that are finite, got nan at \[1, 0\]; leave these rows out"),
        (([1.0], [np.inf]), DataError, "predictions that are finite, got inf"),
    ],
)
def test_what_are_no_predicted_values(arguments, error, message):
    with pytest.raises(error, match=message):
        predicted_values(*arguments)


def test_names_of_predicted_values_fit():
    with pytest.raises(ShapeError, match=r"expected names of shape \(1,\), got \(2,\); give one per output"):
        predicted_values([1.0], [1.0], names=["a", "b"])


# Scores of classes


def test_class_scores_stand_on_a_line_per_class():
    scores = ClassScores(*map(jnp.asarray, ([1.0, 0.5, 0.0], [0.6, 1.0, 0.25], [0.75, 0.5, 0.0])))
    axes = class_scores(scores, names=["cat", "dog", "owl"]).axes[0]
    assert axes.get_title("left") == "mean F1 of 3: 0.4167"
    assert [label.get_text() for label in axes.get_yticklabels()] == ["cat", "dog", "owl"]
    assert {name: np.round(x, 6).tolist() for name, (x, _) in curves(axes).items()} == {
        "precision": [1.0, 0.5, 0.0], "recall": [0.6, 1.0, 0.25], "F1": [0.75, 0.5, 0.0]
    }  # fmt: skip
    assert all(heights == [0, 1, 2] for _, heights in curves(axes).values())
    assert axes.get_ylim() == (2.5, -0.5)  # the first stands above


def test_markers_at_zero_do_not_touch_the_names():
    figure = class_scores([[0.0, 1.0]] * 3, names=["a long name", "b"])
    figure.canvas.draw()
    axes = figure.axes[0]
    radius = axes.lines[0].get_markersize() / 2 * figure.dpi / 72
    zero, _ = axes.transData.transform((0, 0))
    assert max(label.get_window_extent().x1 for label in axes.get_yticklabels()) < zero - 1.5 * radius


def test_the_first_of_many_class_scores_are_drawn():
    axes = class_scores([np.linspace(0, 1, 90)] * 3, most=10).axes[0]
    assert (axes.get_xlabel(), len(axes.get_yticks())) == ("the first 10 of 90 classes", 10)
    assert axes.get_title("left") == "mean F1 of 90: 0.5"


@pytest.mark.parametrize(
    "scores, options, error, message",
    [
        (np.ones((3, 2)), {}, StructureError, "expected precision, recall and F1, got an array .*; give the value of"),
        ([[1.0]] * 2, {}, StructureError, "^class_scores: expected precision, recall and F1, got a list"),
        ([[1.0], [1.0, 1.0], [1.0]], {}, ShapeError, r"expected recall of shape \(1,\), got \(2,\)"),
        ([[]] * 3, {}, DataError, "expected at least one class, got none"),
        ([[1.0], [np.nan], [1.0]], {}, DataError, "expected recall from 0 to 1, got nan at row 0; give shares"),
        ([[90.0], [1.0], [1.0]], {}, DataError, "expected precision from 0 to 1, got 90.0 at row 0"),
        ([[1.0]] * 3, {"names": ["a", "b"]}, ShapeError, r"expected names of shape \(1,\), got \(2,\)"),
        ([[1.0]] * 3, {"most": 0}, ConfigError, "most"),
    ],
)
def test_what_are_no_class_scores(scores, options, error, message):
    with pytest.raises(error, match=message):
        class_scores(scores, **options)


def test_learning_curves_draw_the_score_of_a_regression():
    history = [{"epoch": i, "loss": 1 / i, "validation_loss": 2 / i, "r_squared": i / 9} for i in (1, 2)]
    figure = learning_curves(history)
    assert [axes.get_title("left") for axes in figure.axes] == ["loss", "R²"]


def test_the_curves_mark_the_weights_that_were_kept():
    figure = learning_curves(HISTORY, kept=4)
    assert [text.get_text() for axes in figure.axes[:2] for text in axes.texts if "weights" in text.get_text()] == [
        "weights of epoch 4\n1.4", "weights of epoch 4\n50.00%",
    ]  # fmt: skip
    with pytest.raises(
        DataError, match="^learning_curves: expected kept to be one of the epochs of the reports, got 7"
    ):
        learning_curves(HISTORY, kept=7)
