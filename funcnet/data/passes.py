"""A pass over an iterable of batches, and its position.

Batches that can continue from a position have `get_state` and `set_state`, either on the iterator, as in grain, or on
the iterable itself, as in `Batches`.
"""

import copy
import inspect
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from funcnet.checks import describe
from funcnet.data.owned import own_batch
from funcnet.errors import ConfigError, DataError, translated

__all__ = ["Pass", "check_source", "has_position"]


def check_source(what: str, source: Any) -> None:
    """DataError unless `source` is an iterable, or a function without arguments."""
    if isinstance(source, Iterable):
        return
    if not callable(source):
        fix = "; a loader makes batches of the examples of a data set" if hasattr(source, "__getitem__") else ""
        raise DataError(f"expected {what}, got {describe(source)}{fix}.")
    wanted = f"expected {what}, got {describe(source)}"
    with translated(TypeError, DataError, wanted, "a function is called without arguments, and gives an iterator"):
        inspect.signature(source).bind()


def has_position(what: Any) -> bool:
    return hasattr(what, "get_state") and hasattr(what, "set_state")


class Pass:
    """An iterator over a pass of `batches`, an iterable or a function that gives one, from `position` on.

    Batches and positions are copied as they come, because `batches` may fill one buffer again and again. `own` copies a
    batch.
    """

    def __init__(
        self,
        batches: Iterable[Any] | Callable[[], Any],
        position: Any = None,
        own: Callable[[Any], Any] = own_batch,
    ):
        if not isinstance(batches, Iterable):
            batches = batches()
            if not isinstance(batches, Iterable):
                raise DataError(f"expected the function to give an iterator of batches, got {describe(batches)}.")
        self._iterator, self._own = iter(batches), own
        self._keeper: Any = next((what for what in (self._iterator, batches) if has_position(what)), None)
        if position is not None:
            if self._keeper is None:
                raise ConfigError("expected batches with get_state and set_state, to restore a position, got none.")
            as_bytes = isinstance(position, str) and isinstance(self._keeper.get_state(), bytes)
            self._keeper.set_state(position.encode("latin-1") if as_bytes else copy.deepcopy(position))
            if self._keeper is batches:
                self._iterator = iter(batches)

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        return self._own(next(self._iterator))

    @property
    def has_position(self) -> bool:
        return self._keeper is not None

    def position(self) -> Any:
        """The position of the pass after the last batch that it gave; `None` if that cannot be known.

        Bytes, which JSON has not, become a text.
        """
        state = None if self._keeper is None else self._keeper.get_state()
        return state.decode("latin-1") if isinstance(state, bytes) else copy.deepcopy(state)
