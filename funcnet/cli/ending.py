"""What the end of a run leaves in its folder: first the weights, then what can be made again from them."""

import io
from pathlib import Path
from typing import Any

import numpy as np

from funcnet import checkpoints, plotting
from funcnet.checkpoints.files import write_whole
from funcnet.cli.folders import CONFUSION, CURVES, WEIGHTS
from funcnet.cli.tables import MOST_CLASSES
from funcnet.errors import CheckpointError, translated
from funcnet.plotting.figures import saved

__all__ = ["is_finished", "save_results"]


def is_finished(folder: Path, steps: int, classes: int) -> bool:
    """Whether the folder holds the weights and plots of a run of so many steps. Those of a shorter one do not count."""
    plots = [CURVES, *([CONFUSION] if classes <= MOST_CLASSES else [])]
    if not all((folder / name).exists() for name in (WEIGHTS, *plots)):
        return False
    try:
        *_, facts = checkpoints.load_weights(folder / WEIGHTS)
    except CheckpointError:
        return False
    return isinstance(facts, dict) and facts.get("steps") == steps


def save_results(
    folder: Path, params: Any, state: Any, history: list[dict[str, Any]], results: dict[str, Any], facts: dict[str, Any]
) -> list[Path]:
    """Write the weights and then the plots, each whole or not at all. The result is the paths of the plots."""
    for name in (CURVES, CONFUSION):  # those of a shorter run would be taken for those of these weights
        (folder / name).unlink(missing_ok=True)
    scalars = {name: float(results[name]) for name in ("loss", "accuracy")}
    checkpoints.save_weights(folder / WEIGHTS, params, state, metadata={**facts, "held_out": scalars})
    plots = {CURVES: plotting.learning_curves(history)}
    if "confusion" in results:
        plots[CONFUSION] = plotting.confusion_matrix(np.asarray(results["confusion"]))
    for name, figure in plots.items():
        _draw(figure, folder / name)
    return [folder / name for name in plots]


def _draw(figure: Any, path: Path) -> None:
    file = io.BytesIO()
    saved(figure, file)
    fix = f"the weights are saved, and funcnet train --resume {path.parent} draws it"
    with translated(OSError, CheckpointError, f"{path}: the plot cannot be written", fix):
        write_whole(path, file.getvalue())
