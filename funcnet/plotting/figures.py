"""What the pictures share: figures without global state, and colours.

Figures are made with matplotlib's objects and not with pyplot, so no window opens and no display is needed. They show
themselves in a notebook. The colours are those of Okabe and Ito, which colour-blind readers can tell apart.
"""

import functools
import io
import os
from typing import IO, TYPE_CHECKING

from funcnet.errors import extra
from funcnet.made import leading

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BLUE", "CYCLE", "GREY", "PALE_GREY", "RED", "VERMILION", "new_figure", "saved"]

BLUE, VERMILION, RED = "#0072B2", "#D55E00", "#C1121F"
CYCLE = (BLUE, VERMILION, "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
GREY, PALE_GREY = "#6E6E6E", "#E3E3E3"


def new_figure(name: str, width: float, height: float) -> "Figure":
    """An empty figure, its size in inches. If matplotlib is missing, the error names the function `name`."""
    with leading(name), extra("plot", "matplotlib"):
        from matplotlib.figure import Figure
    return _showing(Figure)(figsize=(width, height), layout="constrained")


@functools.cache
def _showing(kind: type["Figure"]) -> type["Figure"]:
    """The class of figures that a notebook shows as pictures. Those of matplotlib need pyplot for that."""

    class Figure(kind):
        def _repr_png_(self) -> bytes:
            file = io.BytesIO()
            self.savefig(file, format="png", bbox_inches="tight", metadata={"Software": None})
            return file.getvalue()

        def __reduce__(self):  # no module holds the class, and figures can be pickled all the same
            return _blank, (kind,), self.__getstate__()

    return Figure


def _blank(kind: type["Figure"]) -> "Figure":
    shown = _showing(kind)
    return shown.__new__(shown)


def saved(figure: "Figure", path: str | os.PathLike[str] | IO[bytes] | None) -> "Figure":
    """The figure, written to the path or file if there is one."""
    if path is not None:
        figure.savefig(path, dpi=150, bbox_inches="tight")
    return figure
