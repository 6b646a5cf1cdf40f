"""What the end of a run leaves in its folder: first the weights, then what can be made again from them."""

import io
from pathlib import Path
from typing import Any

from funcnet import checkpoints, plotting
from funcnet.checkpoints.files import write_whole
from funcnet.cli.folders import CONFUSION, CURVES, PREDICTED, RATES, SCORES, WEIGHTS
from funcnet.cli.results import Results, picture_name, picture_of, scalars
from funcnet.data.preparation import Preparation
from funcnet.errors import CheckpointError, translated
from funcnet.plotting.figures import saved

__all__ = ["draw", "is_finished", "save_results"]


def is_finished(folder: Path, steps: int, preparation: Preparation) -> bool:
    """Whether the folder holds the weights and plots of a run of so many steps. Those of a shorter one do not count."""
    if not all((folder / name).exists() for name in (WEIGHTS, CURVES, picture_name(preparation)) if name):
        return False
    try:
        *_, facts = checkpoints.load_weights(folder / WEIGHTS)
    except CheckpointError:
        return False
    return isinstance(facts, dict) and facts.get("steps") == steps


def save_results(
    folder: Path,
    params: Any,
    state: Any,
    history: list[dict[str, Any]],
    kept: int,
    preparation: Preparation,
    results: Results,
    facts: dict[str, Any],
) -> list[Path]:
    """Write the weights of the epoch `kept` and then the plots, each whole or not at all.

    Returns: the paths of all plots in the folder, that of the search for a learning rate too.
    """
    # Those of a shorter run would be taken for those of these weights.
    for name in (CURVES, CONFUSION, PREDICTED, SCORES):
        (folder / name).unlink(missing_ok=True)
    held_out = scalars(results.last) if "held out" in results.parts else {}
    checkpoints.save_weights(folder / WEIGHTS, params, state, metadata={**facts, "held_out": held_out})
    plots = {CURVES: plotting.learning_curves(history, kept=kept)}
    if name := picture_name(preparation):
        plots[name] = picture_of(preparation, results)
    for name, figure in plots.items():
        draw(figure, folder / name)
    return [folder / name for name in (*plots, RATES) if (folder / name).exists()]


def draw(figure: Any, path: Path) -> None:
    """Write a picture, whole or not at all."""
    file = io.BytesIO()
    saved(figure, file)
    fix = f"the weights are saved, and funcnet train --resume {path.parent} draws it"
    with translated(OSError, CheckpointError, f"{path}: the plot cannot be written", fix):
        write_whole(path, file.getvalue())
