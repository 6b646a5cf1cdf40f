"""The catalogue of what is checked: every layer, model, loss and penalty of the library, with an input.

There is a row for each form whose mathematics differ. A new layer is one row. The laws in the tests go through the
rows. `funcnet check`, the book of derivations and the benchmark of checkers go through `CATALOGUE`, which has each row
as `check_gradients` takes it. Nothing else in the library reads the catalogue.
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
