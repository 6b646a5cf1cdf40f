"""A run that fails before its first report leaves nothing behind."""

import contextlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from funcnet import checkpoints
from funcnet.checkpoints.locking import HOLDER, LOCK, held
from funcnet.cli import options
from funcnet.cli.folders import BOARD, CHECKPOINTS, CONFIG, RATES, is_first, new_folder
from funcnet.cli.own_model import MODEL
from funcnet.cli.sessions import SESSIONS

__all__ = ["begun"]

_BEFORE_A_REPORT = {BOARD, CHECKPOINTS, CONFIG, HOLDER, LOCK, MODEL, RATES, SESSIONS}  #: what such a run has written


@contextlib.contextmanager
def begun(chosen: options.Train) -> Iterator[Path]:
    """The folder of a new run, held. An error before the first report removes what was made of it, and nothing else."""
    place = chosen.output or Path("runs")
    made = [path for path in (place, *place.parents) if not path.exists()]
    try:
        folder = new_folder(chosen)
        if not is_first():
            yield folder
            return
        if chosen.output is None:
            made = [folder, *made]
        there = set(os.listdir(folder))
        with held(str(folder), folder):  # so that nothing of another process is removed
            try:
                yield folder
            except BaseException:
                _remove(folder, set(os.listdir(folder)) - there)
                raise
    except BaseException:
        for path in made:
            with contextlib.suppress(OSError):  # it is not there, or something is in it
                path.rmdir()
        raise


def _remove(folder, new):
    """Remove the new files of a run that has not made a report."""
    if not new <= _BEFORE_A_REPORT or checkpoints.steps(folder / CHECKPOINTS):
        return
    for name in new:
        with contextlib.suppress(OSError):
            path = folder / name
            shutil.rmtree(path) if path.is_dir() else path.unlink()
