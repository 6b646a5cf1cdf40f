"""The list of a model's layers, and their replacement by other layers."""

from collections.abc import Callable, Iterator

from funcnet.layers.containers.container import suffix
from funcnet.types import Layer

__all__ = ["map_layers", "places_of", "plain_layers"]


def map_layers(function: Callable[[str, Layer], Layer], model: Layer) -> Layer:
    """The model with every plain layer replaced, in forward order, by `function(place, layer)`. Containers stay.

    A place is written as in errors, for example `serial[2] repeat serial[0]`. It is `""` for a model that is a plain
    layer.

    >>> import funcnet as fn
    >>> model = fn.layers.serial(fn.layers.dense(3), fn.layers.repeat(fn.layers.tanh(), 2))
    >>> fn.layers.map_layers(lambda place, layer: print(place) or fn.layers.recompute(layer), model)
    serial[0]
    serial[1] repeat
    serial(recompute(dense(3)), repeat(recompute(tanh()), 2))
    """
    return _map_layers(function, model, "")


def _map_layers(function, model, place):
    if model.inside is None or model.inside.rebuild is None:
        return function(place, model)
    layers = zip(places_of(model, place), model.inside.layers, strict=True)
    return model.inside.rebuild(*(_map_layers(function, layer, own) for own, layer in layers))


def plain_layers(model: Layer, place: str = "") -> Iterator[tuple[str, Layer]]:
    """The plain layers of a model in forward order with their places, as `map_layers` goes through them.

    >>> import funcnet as fn
    >>> model = fn.layers.serial(trunk=fn.layers.dense(3), head=fn.layers.residual(fn.layers.tanh()))
    >>> list(fn.layers.plain_layers(model))
    [('serial[trunk]', dense(3)), ('serial[head] residual[0]', tanh())]
    """
    if model.inside is None:
        yield place, model
        return
    for own, layer in zip(places_of(model, place), model.inside.layers, strict=True):
        yield from plain_layers(layer, own)


def places_of(container: Layer, place: str) -> list[str]:
    """The places of a container's layers, given its own place: `serial[0]`, `serial[trunk]`, `repeat`."""
    inside = container.inside
    assert inside is not None
    return [f"{place} {container.made.word}{suffix(own)}".strip() for own in inside.places]
