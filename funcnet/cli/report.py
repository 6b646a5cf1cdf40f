"""`funcnet report`: everything that is known about a run, on one page."""

import dataclasses
from collections.abc import Callable
from html import escape
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import checking, checkpoints, plotting, summaries
from funcnet.checking.page import Outcome, details, summary
from funcnet.checkpoints.files import write_whole
from funcnet.cli import options
from funcnet.cli.folders import (
    CHECKPOINTS,
    CONFIG,
    HISTORY,
    WEIGHTS,
    check_place,
    check_unchanged,
    facts_of,
    load_run,
    preparation_of,
    run_parts,
)  # fmt: skip
from funcnet.cli.history import read_history
from funcnet.cli.networks import build_model, image_shape
from funcnet.cli.phases import phase
from funcnet.cli.results import Results, judge, label_scores
from funcnet.cli.rows import prepared, read_parts
from funcnet.cli.sessions import SESSIONS, Session, read_sessions
from funcnet.cli.tables import MOST_CLASSES
from funcnet.cli.tasks import Task, outputs_of, task_of
from funcnet.data.preparation import Preparation
from funcnet.errors import CheckpointError, ConfigError, DataError, FuncnetError
from funcnet.reading import shown
from funcnet.rendering import numeral, pages
from funcnet.types import Layer

__all__ = ["report"]

STYLE = """
.funcnet .tiles { display: flex; flex-wrap: wrap; gap: .8rem; padding: 0; margin: 1.2rem 0; list-style: none; }
.funcnet .tiles li { background: var(--card); padding: .6rem 1.1rem; border-radius: 6px; min-width: 6.5rem; }
.funcnet .tiles b { display: block; font-size: 1.35rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.funcnet .sections { display: flex; flex-wrap: wrap; gap: 0 4rem; }
.funcnet section { max-width: 100%; }
.funcnet .sections h2 { margin-top: 1.6rem; }
#learning-curves, #gradient-check, #timing, #network { flex-basis: 100%; }
"""


_MOST_LINES = 24


class _Run(NamedTuple):
    """What the folder of a run holds. The sections read the parts that may be missing."""

    folder: Path
    facts: dict[str, Any]
    trained: options.Train
    verdicts: list[checkpoints.Verdict]
    sessions: list[Session]
    bad_lines: list[str]  #: what is wrong with lines of the file of sessions

    @property
    def finished(self) -> bool:
        return (self.folder / WEIGHTS).exists()


class _Made(NamedTuple):
    """The network of a run."""

    model: Layer
    preparation: Preparation

    def rows(self, n: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((n, *self.preparation.shape), jnp.float32)

    def summary(self, batch_size: int) -> summaries.Summary:
        return summaries.summary(self.model, self.rows(batch_size))


class _Judged(NamedTuple):
    """The finished network on the rows that training held out."""

    preparation: Preparation
    task: Task
    x: np.ndarray  #: as the network takes them
    target: np.ndarray
    answers: np.ndarray  #: probabilities of classes or labels, or values in the units of the target
    results: Results

    @property
    def names(self) -> list[str]:
        """The names of the classes."""
        return [str(name) for name in self.preparation.targets[0].categories]


def report(chosen: options.Report) -> int:
    """Write the page, and return the exit code."""
    folder = chosen.run
    if not (folder / CONFIG).exists():
        raise CheckpointError(f"{folder}: expected a folder that funcnet train wrote, with {CONFIG} in it.")
    facts = facts_of(folder)
    trained, verdicts = check_unchanged(folder, facts), checkpoints.verify(folder / CHECKPOINTS, bytes_too=False)
    run = _Run(folder, facts, trained, verdicts, *read_sessions(folder / SESSIONS))
    path = folder / "report.html" if chosen.output is None else chosen.output
    check_place("--output", path, "report.html")
    try:
        with phase("making the page"):
            page = _page(run, chosen.most)
        write_whole(path, page.encode(errors="backslashreplace"))
    except OSError as error:
        raise ConfigError(f"{path}: the file cannot be written: {error.strerror}.") from error
    print(f"page: {shown(path)}")
    return 0


def _page(run: _Run, most: int) -> str:
    rows, judged, made = _tried(_rows, run), _tried(_judge, run), _tried(_made, run)
    sections = {
        "Learning curves": _then(lambda rows: _curves(rows, _kept(run)), rows),
        **_answers(made, judged),
        "Gradient check": _then(lambda made: _gradients(made, most), made),
        "Timing": _tried(_timing, run),
        "Network": _then(lambda made: _network(made, run.trained.batch_size or 32), made),
        "Configuration": _tried(_configuration, run),
        "Environment": _tried(_environment, run),
        "Checkpoints": _tried(_checkpoints, run),
    }
    body = "".join(
        f'<section id="{title.lower().replace(" ", "-")}"><h2>{title}</h2>\n{_or_why_not(content)}</section>\n'
        for title, content in sections.items()
    )
    title = f"{run.folder.resolve().name}: {run.trained.model} on {run.trained.data}"
    return pages.document(title, f'{_head(run, rows, judged, made)}<div class="sections">{body}</div>', STYLE)


# A part that cannot be made raises an error of the library. The page then shows the message in place of the part.


def _tried(make: Callable[..., Any], *arguments: Any) -> Any:
    try:
        return make(*arguments)
    except FuncnetError as error:
        return error


def _then(make: Callable[[Any], Any], value: Any) -> Any:
    return value if isinstance(value, FuncnetError) else _tried(make, value)


def _or_why_not(content: Any) -> str:
    return f'<p class="missing">{escape(str(content))}</p>\n' if isinstance(content, FuncnetError) else content


# What the folder holds


def _rows(run: _Run) -> list[dict[str, Any]]:
    rows = read_history(run.folder / HISTORY, run.facts.get("metrics", ""))
    if not rows:
        raise DataError(f"No epoch is written down in {HISTORY} yet.")
    return rows


def _made(run: _Run) -> _Made:
    """The network and the shape of an example: from the weights or the checkpoints, else from the data."""
    preparation = preparation_of(run.facts) if run.facts else read_parts(run.trained).preparation()
    return _Made(build_model(run.trained, preparation, run.folder), preparation)


def _judge(run: _Run) -> _Judged:
    if not run.finished:
        raise CheckpointError("This needs the weights, which come at the end of the run.")
    trained, model, params, state, facts, preparation = load_run(run.folder)
    pair = prepared(run_parts(run.folder, trained, facts), preparation).test
    if pair is None:
        raise DataError("No row was held out (--test 0).")
    task, (x, target) = task_of(preparation, trained.class_weights), pair
    with phase("evaluating"):
        answers = np.asarray(preparation.results(outputs_of(model, params, state, x)))
        results = judge(preparation, task, model, params, state, {"held out": pair})
    return _Judged(preparation, task, x, target, answers, results)


# The sections


def _head(run: _Run, rows: Any, judged: Any, made: Any) -> str:
    tiles = {}
    if not isinstance(judged, FuncnetError):
        score = float(judged.results.last[judged.task.score])
        words = f"{judged.task.words} on {len(judged.x)} held-out rows"
        tiles = {words: f"{score:.2%}" if judged.task.score == "accuracy" else f"{score:.3f}"}
    if not isinstance(rows, FuncnetError):
        last = rows[-1]
        tiles |= {"epochs": f"{last['epoch']} of {run.trained.epochs}", "steps": f"{last['step']:,}"}
        tiles |= {"training loss": f"{last['loss']:.4g}"}
    if not isinstance(made, FuncnetError):
        tiles["parameters"] = f"{made.summary(1).parameters:,}"
    if seconds := sum(session.reports[-1][2] for session in run.sessions if session.reports):
        tiles["training time"] = _duration(seconds)
    shown = "".join(f"<li><b>{escape(value)}</b>{escape(name)}</li>\n" for name, value in tiles.items())
    open_end = (
        f'<p class="missing">This run is not finished: it still runs, or it was stopped. '
        f"<code>funcnet train --resume {escape(str(run.folder))}</code> continues it.</p>\n"
    )
    quiet = f'<p class="quiet">{escape(str(run.folder))} · page made with {escape(pages.environment())}</p>\n'
    return quiet + ("" if run.finished else open_end) + (f'<ul class="tiles">{shown}</ul>\n' if tiles else "")


def _duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 120 else f"{minutes // 60} h {minutes % 60} min"


def _kept(run: _Run) -> int | None:
    """The epoch of the weights of a finished run."""
    if not run.finished:
        return None
    *_, facts = checkpoints.load_weights(run.folder / WEIGHTS)
    return (facts or {}).get("epoch")


def _curves(rows: list[dict[str, Any]], kept: int | None) -> str:
    last = rows[-1]
    values = ", ".join(f"{name.replace('_', ' ')} {value:.4g}" for name, value in list(last.items())[2:])
    return pages.picture(
        plotting.learning_curves(rows, kept=kept), f"curves by epoch; at epoch {last['epoch']}: {values}"
    )


def _answers(made: Any, judged: Any) -> dict[str, Any]:
    """What the network answers for the held-out rows, as it suits the task."""
    task = "classes" if isinstance(made, FuncnetError) else made.preparation.task
    sections = {
        "classes": {"Confusion matrix": _confusion, "Mistakes": _mistakes},
        "labels": {"Labels": _labels},
        "regression": {"Predicted values": _values, "Largest errors": _largest_errors},
    }[task]
    return {title: _then(make, judged) for title, make in sections.items()}


def _confusion(judged: _Judged) -> str:
    classes = judged.answers.shape[1]
    if classes > MOST_CLASSES:
        return f"<p>A matrix of {classes:,} classes is not drawn. The most are {MOST_CLASSES:,}.</p>\n"
    counts = judged.results.last["confusion"].astype(int)
    alt = f"confusion matrix: {np.trace(counts)} of {counts.sum()} held-out rows on the diagonal"
    return pages.picture(plotting.confusion_matrix(counts, judged.names), alt)


def _mistakes(judged: _Judged) -> str:
    """Pictures of the mistakes if the rows are images, else a table."""
    predicted, shape, names = judged.answers.argmax(1), image_shape(judged.preparation), judged.names
    wrong = np.flatnonzero(predicted != judged.target)
    if not wrong.size:
        return f"<p>None of the {len(predicted)} held-out rows is misclassified.</p>\n"
    if shape is not None and shape[2] in (1, 3):
        alt = f"the surest of {len(wrong)} misclassified held-out images, with true and predicted class"
        images = judged.x.reshape(-1, *shape)
        figure = plotting.misclassified(images, judged.target, judged.answers, class_names=names)
        return pages.picture(figure, alt, photo=True)
    sure = judged.answers.max(1)
    surest = wrong[np.argsort(-sure[wrong], kind="stable")][:_MOST_LINES]
    lines = [[str(i), names[judged.target[i]], names[predicted[i]], f"{sure[i]:.1%}"] for i in surest]
    return f"<p>The surest of {len(wrong)}:</p>\n" + pages.table(["row", "true", "predicted", "probability"], lines)


def _labels(judged: _Judged) -> str:
    lines = [
        [name, *(f"{line[key]:.2%}" for key in ("precision", "recall", "f1"))]
        for name, line in judged.results.last["labels"].items()
    ]
    said = ", ".join(f"{name} {line['f1']:.2f}" for name, line in judged.results.last["labels"].items())
    alt = f"precision, recall and F1 of each label on the held-out rows; F1: {said}"
    table = pages.table(["label", "precision", "recall", "F1"], lines, right=1)
    return pages.picture(label_scores(judged.results), alt) + table


def _values(judged: _Judged) -> str:
    targets, predicted = judged.results.values or (judged.answers, judged.answers)
    names = [column.name for column in judged.preparation.targets]
    errors = judged.results.last["outputs"]
    said = ", ".join(f"{name} {numeral(line['root_mean_squared_error'], 4)}" for name, line in errors.items())
    alt = f"predictions over targets of the held-out rows; root mean squared error: {said}"
    lines = [[name, *(numeral(value, 4) for value in line.values())] for name, line in errors.items()]
    headings = ["target", "root mean squared error", "mean absolute error", "error of the training mean"]
    return pages.picture(plotting.predicted_values(targets, predicted, names=names), alt) + pages.table(
        headings, lines, right=1
    )


def _largest_errors(judged: _Judged) -> str:
    targets, predicted = judged.results.values or (judged.answers, judged.answers)
    errors = np.abs(predicted - targets).max(1)
    lines = []
    for i in np.argsort(-errors, kind="stable")[:_MOST_LINES]:
        cells = (" ".join(numeral(value, 4) for value in values[i]) for values in (targets, predicted))
        lines.append([str(i), *cells, numeral(errors[i], 4)])
    return pages.table(["held-out row", "target", "predicted", "error"], lines, right=1)


def _gradients(made: _Made, most: int) -> str:
    if most == 0:
        raise ConfigError("Left out by --most 0.")
    with phase("checking gradients"):
        found = checking.check_gradients(made.model, made.rows(4), most=most)
    verdict = "the hand-derived gradient agrees" if found.ok else summary([Outcome("model", found)])
    worst = {
        " / ".join(engines): max(row.error for row in found.rows if row.engines == engines)
        for engines in dict.fromkeys(row.engines for row in found.rows)
    }
    lines = [[engines, f"{error:.1e}"] for engines, error in worst.items()]
    alt = "norm-relative errors of the gradient, leaf by leaf; the largest: "
    figure = pages.picture(plotting.gradient_errors(found), alt + ", ".join(" ".join(line) for line in lines))
    unfolded = "" if found.ok else " open"
    return (
        f"<p>{pages.marked(verdict, found.ok)}, in float64 and at random parameters.</p>\n"
        f"{pages.table(['engines', 'largest error'], lines, right=1)}\n{figure}"
        f"<details{unfolded}><summary>Leaf by leaf</summary>{details(Outcome('model', found))}</details>\n"
    )


def _timing(run: _Run) -> str:
    if not run.sessions and not run.bad_lines:
        raise DataError(f"{SESSIONS} was not found; train writes there how long it takes.")
    lines = []
    for session in run.sessions:
        epochs = f"{session.reports[0][0]} to {session.reports[-1][0]}" if session.reports else "none"
        pace, first = session.steps_per_second, session.first
        lines.append([
            session.environment["started"].replace("T", " ").replace("+00:00", " UTC"), epochs,
            "" if first is None else f"{first:.2f} s", "" if pace is None else f"{pace:,.0f}",
            _duration(session.reports[-1][2]) if session.reports else "",
        ])  # fmt: skip
    headings = ["started", "epochs", "first epoch, with compilation", "steps per second after it", "total"]
    left_out = f'<p class="missing">In {SESSIONS} {", ".join(run.bad_lines)}.</p>\n'
    return left_out * bool(run.bad_lines) + pages.table(headings, lines, right=3)


def _network(made: _Made, batch_size: int) -> str:
    summary = made.summary(batch_size)
    lines = [[row.path, row.name, str(row.shape), row.dtype, f"{row.parameters:,}"] for row in summary.rows]
    total = ["", "total", "", "", f"{summary.parameters:,}"]
    return pages.table(["path", "layer", "output", "dtype", "parameters"], [*lines, total], right=1)


def _configuration(run: _Run) -> str:
    default, lines = options.Train(), []
    for field in dataclasses.fields(run.trained):
        value, usual = getattr(run.trained, field.name), getattr(default, field.name)
        if field.name not in options.NOT_KEPT:
            lines.append([field.name, _words(value), "" if value == usual else _words(usual)])
    return pages.table(["option", "value", "default, if different"], lines)


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, tuple) else "–" if value is None else str(value)


def _environment(run: _Run) -> str:
    """The environment of the last session, else that of the newest checkpoint."""
    known = [verdict.manifest.environment for verdict in run.verdicts if verdict.manifest is not None]
    known += [session.environment for session in run.sessions]
    if not known:
        raise DataError(f"Neither {SESSIONS} nor a checkpoint was found.")
    return pages.table(["", ""], [[name, _words(value)] for name, value in known[-1].items() if value != ""])


def _checkpoints(run: _Run) -> str:
    if not run.verdicts:
        raise CheckpointError("No checkpoint was found.")
    lines = []
    for verdict in run.verdicts:
        manifest = verdict.manifest
        if manifest is None:
            lines.append([str(verdict.step), "", "", "", verdict.problem or ""])
            continue
        loss, size = manifest.metrics.get("loss"), sum(file.bytes for file in manifest.files.values())
        lines.append([
            str(verdict.step), str(manifest.epoch), "" if loss is None else f"{loss:.4f}", f"{size / 1e3:,.1f}",
            f"not finite: {', '.join(manifest.not_finite)}" if manifest.not_finite else "",
        ])  # fmt: skip
    return pages.table(["step", "epoch", "loss", "KB", ""], lines)
