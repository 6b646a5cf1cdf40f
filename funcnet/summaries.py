"""The layers of a model, found without running it: shapes, parameters, and memory for the backward pass."""

import textwrap
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import Any, NamedTuple, TypeAlias

import jax

from funcnet.checks import check_count
from funcnet.layers import batch_norm, serial
from funcnet.made import Made, leading
from funcnet.rendering import pages, text_table
from funcnet.trees import map_leaves, total_bytes, total_size, values_of
from funcnet.types import Key, Layer

__all__ = ["Row", "Summary", "residual_bytes", "summary"]


class Row(NamedTuple):
    """One layer of a model. An opened container has a row for what it holds itself, without its layers."""

    path: str  #: the layer's place, which begins its parameters' paths: `"2"`, `"1/0"`, `""` for a single layer
    name: str  #: the call that makes it, `"dense(16)"`; for an opened container `"repeat(…, 3)"`
    shape: Any  #: of the output, batch axis included; a tree of shapes if the output is a tree; `None` if not known
    dtype: str  #: of the output
    parameters: int  #: how many numbers
    parameter_bytes: int
    residual_bytes: int  #: what `forward` hands to `backward` in training
    level: int = 0  #: how many of the containers around it have a row


class Summary(NamedTuple):
    """The rows of a model. `str(summary)` is a table, with the layers of a container indented, and the notes.

    A notebook shows it as a table too.
    """

    rows: tuple[Row, ...]
    notes: tuple[str, ...] = ()  #: on layers with a bias that a batch norm subtracts again

    @property
    def parameters(self) -> int:
        """How many numbers the parameters of all layers have."""
        return sum(row.parameters for row in self.rows)

    @property
    def parameter_bytes(self) -> int:
        return sum(row.parameter_bytes for row in self.rows)

    @property
    def residual_bytes(self) -> int:
        return sum(row.residual_bytes for row in self.rows)

    def __repr__(self) -> str:
        rows = f"{len(self.rows)} row{'s' if len(self.rows) > 1 else ''}"
        return f"Summary({rows}, {self.parameters:,} parameters, {self.residual_bytes:,} residual bytes)"

    def __str__(self) -> str:
        return self.text()

    def text(self, width: int | None = None) -> str:
        """The table and the notes. Where it is wider than `width` characters, names of layers are cut off, then columns
        are left out, and a last note says which."""
        gone = () if width is None else _left_out([*self._lines()], width)
        rows = [[word for name, word in zip(_HEAD, row, strict=True) if name not in gone] for row in self._lines()]
        head = [name for name in _HEAD if name not in gone]
        if width is not None:
            spare = _spare(rows, head, width)
            rows = [[row[0], _shorten(row[1], max(spare, 1)), *row[2:]] for row in rows]
        notes = [*self.notes, f"{', '.join(gone)}: left out to keep within {width} characters."] if gone else self.notes
        table = text_table([head, *rows], right=3 - len({*gone} & {*_HEAD[4:]}), total=True)
        return "\n".join([table, *(_wrapped(f"note: {note}", width) for note in notes)])

    def _repr_html_(self) -> str:
        notes = "".join(f"<p>note: {escape(note)}</p>" for note in self.notes)
        lines = [[word.replace("  ", "\N{EM SPACE}") for word in line] for line in self._lines()]  # a page drops spaces
        return pages.fragment(pages.table(_HEAD, lines, right=3) + notes)

    def _lines(self) -> Iterator[tuple[str, ...]]:
        for row in self.rows:
            yield *map(_shorten, _words(row)), *(f"{n:,}" for n in row[4:7])
        totals = (f"{n:,}" for n in (self.parameters, self.parameter_bytes, self.residual_bytes))
        yield "", "total", "", "", *totals


_HEAD = ("path", "layer", "output", "dtype", "parameters", "bytes", "residual bytes")
_LEAST = ("dtype", "bytes", "residual bytes", "output")  # left out first where the table is too wide
_SHORTEST = 20  # characters of a layer's name


def summary(model: Layer, x: Any, key: Key | None = None, *, depth: int | None = None) -> Summary:
    """One row per layer: output, parameters, and the memory that training keeps for the backward pass.

    Only shapes are followed (`jax.eval_shape`). Nothing is computed and no array is made, however large the model is.
    Containers are opened, and their layers follow in the order of the call. An opened container also has a row for what
    it holds itself, for example the input that `recompute` keeps. A `serial` holds nothing itself and has no row. The
    layers in a `repeat` count as often as they run. The totals are those of the whole model.

    Args:
        model: a layer.
        x: an example batch or `jax.ShapeDtypeStruct`, batch axis included, or a tree of them.
        key: a PRNG key, of which only the kind matters. By default it is one of `jax.random.key`.
        depth: how many levels of containers are opened. 0 gives one row for the model, and `None` opens all.

    Residual bytes are those of each layer's residuals in training, counted one by one. Under `jit` the program may need
    less, because XLA keeps only one array if two layers keep the same one (the output of one is the input of the next).
    The parameters are not residuals.

    Raises: what the layers' `init` and `forward` raise for `x`; ConfigError for a `depth` that is not an integer >= 0
    or `None`.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model = fn.layers.serial(fn.layers.dense(16), fn.layers.relu(), fn.layers.dense(10))
    >>> print(fn.summaries.summary(model, jax.ShapeDtypeStruct((32, 64), jnp.float32)))
    path  layer      output    dtype    parameters  bytes  residual bytes
    ---------------------------------------------------------------------
    0     dense(16)  (32, 16)  float32       1,040  4,160           8,192
    1     relu()     (32, 16)  float32           0      0           2,048
    2     dense(10)  (32, 10)  float32         170    680           2,048
    ---------------------------------------------------------------------
          total                              1,210  4,840          12,288
    """
    if depth is not None:
        with leading("summary"):
            depth = check_count("depth", depth, 0)
    key = _some_key() if key is None else key
    params, state = jax.eval_shape(model.init, key, x)
    outputs: dict[_Place, _Output] = {}
    _, residuals = _forward(_marked(model, depth, outputs), params, state, x, key, True)
    rows = _Found(outputs, _bytes_by_place(residuals), depth).rows(model, params)
    return Summary(tuple(rows), tuple(_idle_biases(model)))


def residual_bytes(model: Layer, x: Any, train: bool = True) -> int:
    """The bytes that `model.forward` hands to `model.backward` for a batch like `x`. Every array is counted.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model = fn.layers.serial(fn.layers.dense(16), fn.layers.tanh(), fn.layers.dense(10), fn.layers.tanh())
    >>> x = jax.ShapeDtypeStruct((32, 64), jnp.float32)
    >>> residual_bytes(model, x), residual_bytes(fn.layers.recompute(model), x)
    (13568, 8200)
    """
    key = _some_key()
    params, state = jax.eval_shape(model.init, key, x)
    return total_bytes(_forward(model, params, state, x, key, train)[1])


def _some_key() -> Any:
    return jax.eval_shape(jax.random.key, 0)


def _forward(model: Layer, params: Any, state: Any, x: Any, key: Any, train: bool) -> tuple[Any, Any]:
    """Shapes of the output and of the residuals."""

    def forward(params, state, x, key):
        y, _, residuals = model.forward(params, state, x, key=key, train=train)
        return y, residuals

    return jax.eval_shape(forward, params, state, x, key)


# Each layer marks its residuals with its place, and notes its output when it is traced. So the residuals of the whole
# model can be told apart by layer, whatever containers do with them: `repeat` stacks them, `recompute` drops them.

_Place: TypeAlias = tuple[int, ...]  #: the number of the layer in each container around it
_Output: TypeAlias = tuple[Any, str]  #: shapes and dtypes


@jax.tree_util.register_dataclass
@dataclass(frozen=True)
class _Marked:
    place: _Place = field(metadata={"static": True})
    residuals: Any


def _marked(model: Layer, depth: int | None, outputs: dict[_Place, _Output], place: _Place = ()) -> Layer:
    """The model with layers that mark their residuals and note their outputs, down to `depth`."""
    inside, marked = model.inside, model
    if inside is not None and inside.rebuild is not None and depth != 0:
        below = None if depth is None else depth - 1
        marked = inside.rebuild(*(_marked(one, below, outputs, (*place, i)) for i, one in enumerate(inside.layers)))

    def apply(params, state, x, *, key=None, train=False):  # what `recompute` runs
        y, new_state = marked.apply(params, state, x, key=key, train=train)
        outputs[place] = _described(y)
        return y, new_state

    def forward(params, state, x, *, key=None, train=False):
        y, new_state, residuals = marked.forward(params, state, x, key=key, train=train)
        outputs[place] = _described(y)
        return y, new_state, _Marked(place, residuals)

    return marked._replace(apply=apply, forward=forward)


def _bytes_by_place(tree: Any, place: _Place = ()) -> Counter[_Place]:
    """The bytes that each layer keeps itself."""
    found: Counter[_Place] = Counter()
    for node in jax.tree.leaves(tree, is_leaf=lambda node: isinstance(node, _Marked)):
        found += (
            _bytes_by_place(node.residuals, node.place) if isinstance(node, _Marked) else {place: total_bytes(node)}
        )
    return found


class _Found(NamedTuple):
    """What is known about all layers before the rows are made."""

    outputs: dict[_Place, _Output]
    kept: Counter[_Place]
    depth: int | None

    def rows(self, layer: Layer, params: Any, place: _Place = (), path: str = "", level: int = 0) -> Iterator[Row]:
        """The row of a layer, and those of the layers in it."""
        inside, opened = layer.inside, layer.inside is not None and (self.depth is None or len(place) < self.depth)
        own = Row(path, str(layer), *self.outputs.get(place, (None, "")), total_size(params), total_bytes(params),
                  self.kept[place], level)  # fmt: skip
        if inside is None or not opened:
            yield own
            return
        entries = [params if at is None else params[at] for at in inside.places]
        own = own._replace(
            name=_outline(layer.made),
            parameters=own.parameters - sum(map(total_size, entries)),
            parameter_bytes=own.parameter_bytes - sum(map(total_bytes, entries)),
        )
        if layer.made.constructor is not serial:
            yield own
            level += 1
        for i, (one, at, entry) in enumerate(zip(inside.layers, inside.places, entries, strict=True)):
            yield from self.rows(one, entry, (*place, i), _below(path, at), level)


def _below(path: str, at: Any) -> str:
    """The path of the layer at the entry `at` of a container's params; `None` if these are the layer's own."""
    return "/".join(word for word in (path, "" if at is None else str(at)) if word)


def _idle_biases(layer: Layer, path: str = "") -> Iterator[str]:
    """What to say of each layer whose bias a batch norm subtracts again."""
    if layer.inside is None:
        return
    found = [(one, _below(path, at)) for one, at in zip(layer.inside.layers, layer.inside.places, strict=True)]
    for one, below in found:
        yield from _idle_biases(one, below)
    if layer.made.constructor is serial:
        for (one, below), (after, _) in pairwise(found):
            if one.made.arguments.get("use_bias") and after.made.constructor is batch_norm:
                yield f"the bias of {below} {one} changes nothing, as {after} subtracts it; take use_bias=False."


def _described(y: Any) -> _Output:
    """The shapes and the dtypes. Dictionaries keep their order. A `Padded` has those of its values."""
    if type(y) is dict:
        parts = {name: _described(one) for name, one in y.items()}
        return {name: shape for name, (shape, _) in parts.items()}, _joined(dtype for _, dtype in parts.values())
    values = map_leaves(values_of, y)
    return jax.tree.map(lambda leaf: leaf.shape, values), _joined(str(leaf.dtype) for leaf in jax.tree.leaves(values))


def _joined(dtypes: Iterable[str]) -> str:
    return ", ".join(dict.fromkeys(", ".join(dtypes).split(", ")))


class _Layers:
    """Stands for layers in the call of a container."""

    def __repr__(self) -> str:
        return "…"


def _outline(made: Made) -> str:
    """The call of a container without its layers, `repeat(…, 3)`."""

    def outlined(value: Any) -> Any:
        if isinstance(value, Layer):
            return _Layers()
        if type(value) is tuple and value and all(isinstance(one, Layer) for one in value):
            return (_Layers(),)
        return {name: outlined(one) for name, one in value.items()} if type(value) is dict else value

    if made.constructor is None:
        return made.name
    return Made(made.constructor, {name: outlined(value) for name, value in made.arguments.items()}).name


def _words(row: Row) -> tuple[str, ...]:
    return row.path, "  " * row.level + row.name, "" if row.shape is None else str(row.shape), row.dtype


def _left_out(rows: list[tuple[str, ...]], width: int) -> tuple[str, ...]:
    """The columns without which names of layers have room."""
    for count in range(len(_LEAST)):
        kept = [i for i, name in enumerate(_HEAD) if name not in _LEAST[:count]]
        spare = _spare([[row[i] for i in kept] for row in rows], [_HEAD[i] for i in kept], width)
        if spare >= min(_SHORTEST, max(len(row[1]) for row in rows)):
            return _LEAST[:count]
    return _LEAST


def _spare(rows: Sequence[Sequence[str]], head: Sequence[str], width: int) -> int:
    """How many characters are left for the names of layers."""
    widths = [max(map(len, column)) for column in zip(head, *rows, strict=True)]
    return width - sum(widths) + widths[1] - 2 * (len(head) - 1)


def _wrapped(text: str, width: int | None) -> str:
    return text if width is None else "\n".join(textwrap.wrap(text, width, subsequent_indent=" " * 6))


def _shorten(word: str, width: int = 40) -> str:
    """The beginning of a name that is too long for a table. A container's name holds those of all its layers."""
    return word if len(word) <= width else word[: width - 1] + "…"
