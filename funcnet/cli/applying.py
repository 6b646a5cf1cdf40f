"""Which options are for which kind of data. An option that would say nothing is refused by name."""

from typing import Any

from funcnet.cli import options
from funcnet.errors import ConfigError, either

__all__ = ["check_applies", "check_shares"]

_WORDS = {
    "table": "a .csv, .tsv, .parquet or .npy file", "arrays": "an .npz file", "pictures": "a folder of pictures",
    "set": "mnist, fashion_mnist, cifar10 or cifar100",
}  # fmt: skip
_KINDS = {
    "target": ("table", "arrays", "pictures"), "x": ("arrays",), "drop": ("table",), "categories": ("table",),
    "group": ("table",), "time": ("table",), "image_size": ("pictures",), "folder": ("set",), "download": ("set",),
}  # fmt: skip


def check_applies(chosen: options.Train, kind: str) -> None:
    """Each option about data that has a value must be for data of this kind."""
    for name, kinds in _KINDS.items():
        # --from takes the size of the pictures of another run, which its new data need not have.
        if kind in kinds or _is_default(chosen, name) or (name == "image_size" and chosen.from_run is not None):
            continue
        wanted, option = either(_WORDS[one] for one in kinds), "--" + name.replace("_", "-")
        raise ConfigError(f"{option}: expected --data to be {wanted}, got {chosen.data}; leave {option} out.")


def check_shares(chosen: options.Train) -> None:
    """Data with test rows of their own are not divided for testing."""
    for name in ("folds", "fold", "test"):
        if not _is_default(chosen, name):
            given = f"--{name} {getattr(chosen, name)}"
            raise ConfigError(f"{given}: expected data without test rows of their own, got some; leave it out.")


def _is_default(chosen: Any, name: str) -> bool:
    return getattr(chosen, name) == getattr(options.Train, name)
