"""What a model is made of, layer by layer, found without running it: shapes, parameters, memory for the backward."""

from typing import Any, NamedTuple

import jax

from funcnet.tables import text_table
from funcnet.trees import total_bytes, total_size
from funcnet.types import Key, Layer

__all__ = ["Row", "Summary", "residual_bytes", "summary"]


class Row(NamedTuple):
    """One layer of a model."""

    path: str  #: the layer's place, with which its parameters' paths begin: `"2"`, `"1/0"`, `""` for a lone layer
    name: str  #: the call that makes it, `"dense(16)"`
    shape: Any  #: of the output, batch axis included; a tree of shapes where the output is a tree
    dtype: str  #: of the output
    parameters: int  #: numbers
    parameter_bytes: int
    residual_bytes: int  #: what `forward` hands to `backward` in training


class Summary(NamedTuple):
    """The rows of a model; `str(summary)` is a table."""

    rows: tuple[Row, ...]

    @property
    def parameters(self) -> int:
        """Numbers in the parameters of all layers."""
        return sum(row.parameters for row in self.rows)

    @property
    def parameter_bytes(self) -> int:
        return sum(row.parameter_bytes for row in self.rows)

    @property
    def residual_bytes(self) -> int:
        return sum(row.residual_bytes for row in self.rows)

    def __str__(self) -> str:
        head = ("path", "layer", "output", "dtype", "parameters", "bytes", "residual bytes")
        body = [(*(_shorten(str(word)) for word in row[:4]), *(f"{n:,}" for n in row[4:])) for row in self.rows]
        totals = (f"{n:,}" for n in (self.parameters, self.parameter_bytes, self.residual_bytes))
        return text_table([head, *body, ("", "total", "", "", *totals)], right=3, total=True)


def summary(model: Layer, x: Any, key: Key | None = None) -> Summary:
    """One row a layer: output, parameters, and the memory that training keeps for the backward.

    Only shapes are followed (`jax.eval_shape`): nothing is computed, and no array is made, however large the model.
    The layers of a `serial` get a row each, and those of a `serial` in it too; another container is one row.

    Args:
        model: a layer.
        x: an example batch or `jax.ShapeDtypeStruct`, batch axis included.
        key: a PRNG key, of which only the kind matters; by default one of `jax.random.key`.

    Residual bytes are those of each layer's residuals in training, counted one by one. Under `jit` the program may need
    less: XLA keeps one array where two layers keep the same (the output of one is the input of the next), and the
    parameters are no residuals.

    Raises: what the layers' `init` and `forward` raise for `x`.

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
    key = _some_key() if key is None else key
    params, state = jax.eval_shape(model.init, key, x)
    return Summary(tuple(_rows(model, params, state, x, key, "")[0]))


def residual_bytes(model: Layer, x: Any, train: bool = True) -> int:
    """Bytes that `model.forward` hands to `model.backward` for a batch like `x`; each array is counted as it is.

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


def _rows(model: Layer, params: Any, state: Any, x: Any, key: Any, path: str) -> tuple[list[Row], Any]:
    """The rows of a model and the shape of its output."""
    if model.sublayers and model.name.startswith("serial("):
        rows = []
        for i, (sublayer, p, s) in enumerate(zip(model.sublayers, params, state, strict=True)):
            below, x = _rows(sublayer, p, s, x, key, f"{path}/{i}" if path else str(i))
            rows += below
        return rows, x
    y, residuals = _forward(model, params, state, x, key, True)
    shape = jax.tree.map(lambda leaf: leaf.shape, y)
    dtype = ", ".join(dict.fromkeys(str(leaf.dtype) for leaf in jax.tree.leaves(y)))
    sizes = total_size(params), total_bytes(params), total_bytes(residuals)
    return [Row(path, model.name, shape, dtype, *sizes)], y


def _shorten(word: str, width: int = 40) -> str:
    """A container's name holds those of all its layers; a table has room for its beginning."""
    return word if len(word) <= width else word[: width - 1] + "…"
