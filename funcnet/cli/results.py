"""The numbers at the end of a run or of `evaluate`, as tables."""

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from rich.console import Console

from funcnet import plotting
from funcnet.cli import options
from funcnet.cli.folders import CONFUSION, PREDICTED, SCORES
from funcnet.cli.rows import Pair
from funcnet.cli.tables import MOST_CLASSES, confusion_table, new_table, print_table
from funcnet.cli.tasks import ROWS_AT_A_TIME, Task, judged, outputs_of, verdict
from funcnet.data.preparation import Preparation
from funcnet.rendering import numeral
from funcnet.types import Layer

__all__ = [
    "Results", "judge", "label_scores", "picture_name", "picture_of", "scalars", "show_details", "show_results",
    "show_table", "show_verdict",
]  # fmt: skip


class Results(NamedTuple):
    """What a trained network is worth, part by part."""

    parts: dict[str, dict[str, Any]]  #: "training", "validation" and "held out", those that there are
    sizes: dict[str, int]
    values: tuple[np.ndarray, np.ndarray] | None  #: targets and predictions of the last part, of a regression

    @property
    def last(self) -> dict[str, Any]:
        return [*self.parts.values()][-1]


def judge(
    preparation: Preparation, task: Task, model: Layer, params: Any, state: Any, rows: Mapping[str, Pair]
) -> Results:
    """Loss, score and details on the rows of each part."""
    sizes = {name: len(x) for name, (x, _) in rows.items()}
    # One size, so that the parts share a program, but not so small that many rows take long.
    size = min(ROWS_AT_A_TIME, max(256, min(sizes.values())))
    parts = {name: judged(preparation, task, model, params, state, pair, size) for name, pair in rows.items()}
    values = None
    if preparation.task == "regression":
        *_, (x, target) = rows.values()
        predicted = outputs_of(model, params, state, x)
        values = np.asarray(preparation.results(target)), np.asarray(preparation.results(predicted))
    return Results(parts, sizes, values)


def scalars(results: dict[str, Any]) -> dict[str, float]:
    """The numbers among results."""
    return {
        name: float(value) for name, value in results.items() if np.ndim(value) == 0 and not isinstance(value, dict)
    }


def picture_name(preparation: Preparation) -> str | None:
    """The file of the picture of results that suits a task, `None` where there are too many classes for one."""
    if preparation.task == "classes":
        return CONFUSION if preparation.outputs <= MOST_CLASSES else None
    return {"labels": SCORES, "regression": PREDICTED}[preparation.task]


def picture_of(preparation: Preparation, results: Results) -> Any:
    """The figure that `picture_name` names."""
    if preparation.task == "classes":
        names = [str(category) for category in preparation.targets[0].categories]
        return plotting.confusion_matrix(results.last["confusion"], names)
    if preparation.task == "labels":
        return label_scores(results)
    columns = [column.name for column in preparation.targets]
    targets, predicted = results.values or ((), ())
    return plotting.predicted_values(targets, predicted, names=columns)


def label_scores(results: Results) -> Any:
    """The figure of precision, recall and F1 of each label."""
    labels = results.last["labels"]
    scores = [[line[key] for line in labels.values()] for key in ("precision", "recall", "f1")]
    return plotting.class_scores(scores, names=list(labels))


def show_results(preparation: Preparation, task: Task, results: Results, chosen: options.Train) -> None:
    """The table at the end of training. Its last row is of rows that no choice was made on, if there are any."""
    title = f"{chosen.data}, engine {chosen.engine}, {chosen.optimizer}"
    show_table(title, task, results)
    show_details(preparation, results.last, confusion=False)
    show_verdict(preparation, task, results.last)
    if "held out" not in results.parts:
        chose = (
            "the validation rows chose the epoch, and the others were trained on"
            if chosen.patience
            else "all rows were trained on"
        )
        print(f"No row was held out (--test 0): {chose}. New rows may be predicted worse.")


def show_table(title: str, task: Task, results: Results) -> None:
    """Loss and score of each part, and what one answer for all rows would score."""
    table = new_table(title, "", "rows", "loss", task.words, "one answer for all")
    for name, result in results.parts.items():
        numbers = (_score(task, float(result[key])) for key in (task.score, "baseline"))
        table.add_row(name, str(results.sizes[name]), f"{float(result['loss']):.4f}", *numbers)
    print_table(table)


def _score(task, value):
    return f"{value:.2%}" if task.score == "accuracy" else f"{value:.4f}"


def show_verdict(preparation: Preparation, task: Task, results: dict[str, Any]) -> None:
    """A sentence if the network is not better than the baseline."""
    if (said := verdict(preparation, task, results)) is not None:
        print(said)


def show_details(preparation: Preparation, results: dict[str, Any], *, confusion: bool = True) -> None:
    """What was taken for what, or the errors of each output."""
    if confusion and "confusion" in results:
        names = [str(category) for category in preparation.targets[0].categories]
        print_table(confusion_table(results["confusion"], Console().width, names))
    if "labels" in results:
        table = new_table("by label", "", "precision", "recall", "F1")
        for name, line in results["labels"].items():
            table.add_row(name, *(f"{line[key]:.2%}" for key in ("precision", "recall", "f1")))
        print_table(table)
    if "outputs" in results:
        words = ("root mean squared error", "mean absolute error", "always the mean")
        table = new_table("errors in the units of the target", "", *words)
        for name, line in results["outputs"].items():
            table.add_row(name, *(numeral(value, 4) for value in line.values()))
        print_table(table)
