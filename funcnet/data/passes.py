"""A pass over an iterable of batches, and where it stands.

Batches that can be taken up again have `get_state` and `set_state`: on the iterator, as grain's do, or on the iterable
itself, as `Batches` has them.
"""

from collections.abc import Iterable
from typing import Any

from funcnet.errors import ConfigError

__all__ = ["Pass", "has_position"]


def has_position(what: Any) -> bool:
    return hasattr(what, "get_state") and hasattr(what, "set_state")


class Pass:
    """The iterator of a pass over `batches`, from `position` on."""

    def __init__(self, batches: Iterable[Any], position: Any = None):
        self.iterator = iter(batches)
        self._keeper: Any = next((what for what in (self.iterator, batches) if has_position(what)), None)
        if position is not None:
            if self._keeper is None:
                raise ConfigError("expected batches with get_state and set_state, to go on with, got none.")
            self._keeper.set_state(position)
            if self._keeper is batches:
                self.iterator = iter(batches)

    @property
    def has_position(self) -> bool:
        return self._keeper is not None

    def position(self) -> Any:
        """Where the pass stands after the batch that it gave last; `None` where that cannot be known."""
        return None if self._keeper is None else self._keeper.get_state()
