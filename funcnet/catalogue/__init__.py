"""What is checked: every layer, model, loss and penalty of the library with an input, in each form whose mathematics
differ.

The one table of it: the laws in the tests go through its rows, `funcnet check` through `CATALOGUE`, which has each row
as `check_gradients` takes it, and so do the book of derivations and the benchmark of checkers. A new layer is one row.
Nothing else in the library reads it.
"""

from funcnet.catalogue.layers import LAYERS, TREES
from funcnet.catalogue.losses import LOSSES, PENALTIES, SUMS
from funcnet.catalogue.models import LARGE_MODELS, MODELS
from funcnet.catalogue.own import counter, embedding, highway, scale, square, wave
from funcnet.catalogue.rows import Entry, LayerRow, LossRow

__all__ = [
    "CATALOGUE", "LARGE_MODELS", "LAYERS", "LOSSES", "MODELS", "PENALTIES", "SUMS", "TREES", "Entry", "LayerRow",
    "LossRow", "counter", "embedding", "highway", "scale", "square", "wave",
]  # fmt: skip

CATALOGUE: dict[str, Entry] = {
    **{name: row.entry() for name, row in (LAYERS | TREES | MODELS | LARGE_MODELS).items()},
    **{name: row.entry() for name, row in LOSSES.items()},
    **SUMS,
    **PENALTIES,
}
