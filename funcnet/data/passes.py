"""A pass over an iterable of batches, and its position.

Batches that can continue from a position have `get_state` and `set_state`, either on the iterator, as in grain, or on
the iterable itself, as in `Batches`.
"""

import copy
from collections.abc import Iterable, Iterator
from typing import Any

from funcnet.data.owned import own_batch
from funcnet.errors import ConfigError

__all__ = ["Pass", "has_position"]


def has_position(what: Any) -> bool:
    return hasattr(what, "get_state") and hasattr(what, "set_state")


class Pass:
    """An iterator over a pass of `batches`, from `position` on.

    Batches and positions are copied as they come, because `batches` may fill one buffer again and again.
    """

    def __init__(self, batches: Iterable[Any], position: Any = None):
        self._iterator = iter(batches)
        self._keeper: Any = next((what for what in (self._iterator, batches) if has_position(what)), None)
        if position is not None:
            if self._keeper is None:
                raise ConfigError("expected batches with get_state and set_state, to restore a position, got none.")
            self._keeper.set_state(copy.deepcopy(position))
            if self._keeper is batches:
                self._iterator = iter(batches)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return own_batch(next(self._iterator))

    @property
    def has_position(self) -> bool:
        return self._keeper is not None

    def position(self) -> Any:
        """The position of the pass after the last batch that it gave; `None` if that cannot be known."""
        return None if self._keeper is None else copy.deepcopy(self._keeper.get_state())
