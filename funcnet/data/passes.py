"""A pass over an iterable of batches, and its position.

Batches that can continue from a position have `get_state` and `set_state`, either on the iterator, as in grain, or on
the iterable itself, as in `Batches`.
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
                raise ConfigError("expected batches with get_state and set_state, to restore a position, got none.")
            self._keeper.set_state(position)
            if self._keeper is batches:
                self.iterator = iter(batches)

    @property
    def has_position(self) -> bool:
        return self._keeper is not None

    def position(self) -> Any:
        """The position of the pass after the last batch that it gave; `None` if that cannot be known."""
        return None if self._keeper is None else self._keeper.get_state()
