"""The loss and metrics of a model on a data set, and the running sums behind them."""

import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from functools import lru_cache, partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from funcnet import compiler
from funcnet.checks import check_count, check_kind, describe
from funcnet.data.batching import masked
from funcnet.data.checks import check_batches, check_devices, check_order, checked_data, count_rows, unpacked
from funcnet.errors import ConfigError, FuncnetError, OutputWarning, ShapeError
from funcnet.gradients.engines import counted, unpack
from funcnet.made import leading, spelled
from funcnet.metrics import Metric
from funcnet.training.programs import reused
from funcnet.training.step import as_key
from funcnet.trees import apart, map_rows, shapes, together
from funcnet.types import Array, Key, Layer, LossFn, Params, State

__all__ = [
    "Mean", "Measure", "check_takes", "check_target", "evaluate", "evaluator", "factors_of", "measures", "new_tally",
    "predicted", "resized", "rows_of", "tally_batch", "tally_result",
]  # fmt: skip


def evaluate(
    model: Layer,
    loss: LossFn,
    params: Params,
    state: State,
    data: tuple[Any, ...],
    *,
    batch_size: int = 1024,
    metrics: Mapping[str, Any] | None = None,
    key: Any = None,
) -> dict[str, Array]:
    """The mean loss and the metrics of a model in evaluation mode.

    Args:
        model, loss: as in `fit`.
        params, state: `report.state.optimizer.params` and `report.state.model`.
        data: arrays `(x, target)`, `(x, target, where)` or `(x, target, where, weights)`, as in `fit`.
        batch_size: rows at a time. The loss is the mean over everything that counts, whatever the batch size. A loss
            that is not a mean of values, such as the root of a mean, is averaged over the batches, weighted by their
            rows.
        metrics: name -> `Metric`, for example `{"accuracy": metrics.accuracy()}`, as in `fit`.
        key: a PRNG key or an integer seed, for models that sample in evaluation too. Batch i gets `fold_in(key, i)`.

    Returns: `{"loss": (), **metrics}`. For a `losses.weighted_sum` there are also the means of its parts, such as
    `"loss/digit"`, without their weights.

    Warns:
        OutputWarning: the loss is NaN.

    Raises:
        DataError, LabelError: for data that cannot be evaluated.
        ConfigError: for impossible options.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model = fn.layers.dense(1)
    >>> params, state = {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}, ()
    >>> data = (jnp.ones((5, 1)), jnp.zeros((5, 1)))
    >>> fn.training.evaluate(model, fn.losses.mean_squared_error, params, state, data, batch_size=2)
    {'loss': Array(1., dtype=float32)}
    """
    with leading("evaluate"):
        batch_size = check_count("batch_size", batch_size)
        data = checked_data(unpacked("data", data))
        check_devices(data, params=params, state=state)
        named = measures(metrics, data)
        key = None if key is None else as_key(key)
        check_takes(loss, data)
        x, *rest = data
        try:
            prediction = predicted(model, params, state, x, key)
        except FuncnetError:
            check_order(x, rest[0])
            check_batches(x, rest[0])
            raise
        check_target(loss, prediction, *rest)
        results = evaluator(model, loss, named)(params, state, data, batch_size, key)
        _warn_of_nan(results)  # waits for them, so that the caller may write to the data again
        return results


def _warn_of_nan(results: Mapping[str, Any]) -> None:
    if math.isnan(float(results["loss"])):
        fix = "checking.find_nonfinite names the layer; a loss on probabilities takes numbers in [0, 1] only"
        warnings.warn(f"evaluate: expected a loss that is a number, got nan; {fix}.", OutputWarning, stacklevel=3)


def evaluator(
    model: Layer, loss: LossFn, metrics: "tuple[Measure, ...]", place: Callable[[Any], Any] = lambda tree: tree
) -> Callable[..., dict[str, Array]]:
    """`(params, state, data, batch_size, key=None) -> results`, for checked data. `place` is a layout's
    `place_data`."""
    factors = factors_of(loss)
    accumulate = reused(_accumulator, model, loss, metrics)
    blank = place(new_tally(metrics, factors))  # made once, because that takes longer than a small evaluation

    def run(params, state, data, batch_size, key=None):
        tally = blank
        for i, batch in enumerate(_batches(loss, data, batch_size)):
            tally = accumulate(tally, params, state, batch, key, i)
        return tally_result(tally, metrics, factors)

    return run


def _batches(loss, data, batch_size):
    """Batches of one shape, and so of one program, if the loss can leave out rows.

    The last batch then goes back over rows that have counted before, and leaves them out. A loss that cannot leave out
    rows gets an incomplete last batch.
    """
    rows = count_rows(data)
    size = min(rows, batch_size)
    leaves_out = "where" in inspect.signature(loss).parameters  # by name: a loss that takes any options may ignore it
    for start in range(0, rows, size):
        first = min(start, rows - size) if leaves_out else start
        length = min(size, rows - first)
        # Cutting arrays of a device takes longer than a small evaluation.
        batch = data if length == rows else map_rows(partial(_cut, first=first, length=length), data)
        if leaves_out:
            x, target, *more = batch
            counts = masked(more[0] if more else None, np.arange(first, first + size) >= start, _parts(loss))
            batch = (x, target, counts, *more[1:])
        yield batch


def _cut(leaf, first, length):
    """Rows of an array. For arrays on a device, one program serves all `first`."""
    if isinstance(leaf, np.ndarray):
        return leaf[first : first + length]
    return jax.lax.dynamic_slice_in_dim(leaf, first, length)


@lru_cache(maxsize=64)  # one compiled function for all calls with the same model, loss and metrics
def _accumulator(model, loss, metrics):
    factors = factors_of(loss)

    @partial(jax.jit, compiler_options=compiler.options())
    def accumulate(tally, params, state, batch, key, i):
        x, target, options = unpack(batch)
        key = None if key is None else jax.random.fold_in(key, i)
        prediction, _ = model.apply(params, state, x, key=key, train=False)
        value = loss(prediction, target, **options)
        if factors:
            many = loss.terms(prediction, target, **options)
        else:
            many = counted(loss, prediction, target, options)
        return tally_batch(tally, metrics, factors, value, many, prediction, batch)

    return accumulate


# Metrics by name, some of them of a part of the prediction.


class Measure(NamedTuple):
    """A metric in the reports."""

    name: str  #: `digit/accuracy`
    path: tuple[str, ...]  #: the entries of prediction, target, where and weights that it reads, such as `("digit",)`
    metric: Metric


def measures(metrics: Mapping[str, Any] | None, data: tuple[Any, ...]) -> tuple[Measure, ...]:
    """The metrics that were asked for, which must fit the `where` and `weights` of the data."""
    if metrics is None:
        return ()
    check_kind("metrics", metrics, Mapping, 'a dictionary, such as {"accuracy": metrics.accuracy()}')
    _, _, where, weights = (*data, None, None)[:4]
    found = tuple(_measures(metrics, ()))
    for name, path, metric in found:
        if name.startswith(("loss", "validation_")):
            wanted = "names of metrics that do not begin with loss or validation_, as the reports' own do"
            raise ConfigError(f"expected {wanted}, got {name!r}; rename it.")
        for what, given in (("where", where), ("weights", weights)):
            if isinstance(given, dict) and not path:
                why = f"because {what} has one entry for each of {list(given)}"
                fix = f"put it into a dictionary of parts, such as {{{next(iter(given))!r}: {{{name!r}: {metric}}}}}"
                raise ConfigError(f"expected the metric {name!r} to be of one part, {why}; {fix}.")
        if weights is not None and not _has_option(metric.update, "weights"):
            got = f"{inspect.signature(metric.update)}; add it to its update"
            raise ConfigError(f"expected the metric {name!r} to take weights=, as the data have weights, got {got}.")
    return found


def _measures(metrics, path):
    for key, metric in metrics.items():
        if not isinstance(key, str):
            raise ConfigError(f"expected metrics by name, got {describe(key)}.")
        if isinstance(metric, Mapping):
            yield from _measures(metric, (*path, key))
        elif all(callable(getattr(metric, part, None)) for part in ("init", "update", "compute")):
            yield Measure("/".join((*path, key)), path, metric)
        else:
            wanted = "a Metric, such as metrics.accuracy(), or a dictionary of those of a part"
            got = f"{describe(metric)}; call its constructor"
            raise ConfigError(f"expected the metric {key!r} to be {wanted}, got {got}.")


def _updated(measure, state, prediction, target, where, weights):
    """The metric's state with one more batch."""
    for part in measure.path:
        if isinstance(prediction, dict) and part not in prediction:
            wanted = f"an entry {part!r} for the metric {measure.name!r}"
            fix = "name the model's outputs as the parts"
            raise ShapeError(f"expected prediction with {wanted}, got {list(prediction)}; {fix}.")
        prediction, target, where, weights = (
            tree.get(part) if isinstance(tree, dict) else tree for tree in (prediction, target, where, weights)
        )
    more = {} if weights is None else {"weights": weights}
    return measure.metric.update(state, prediction, target, where, **more)


# A tally has running sums over batches: of the loss times the number of values that counted in it, and of that number.
# Each part of a `losses.weighted_sum` has such sums. Those of the loss itself are then only for the rest, which is the
# penalty, and count rows.


class Mean(NamedTuple):
    """A running mean."""

    total: Array
    counted: Array
    lost: Array  #: the rounding error of `counted`: beyond 2²⁴ float32 does not count exactly

    @classmethod
    def start(cls) -> "Mean":
        return cls(*(jnp.zeros((), jnp.result_type(float)) for _ in range(3)))

    def plus(self, value: Any, counted: Any) -> "Mean":
        dtype = self.total.dtype
        value, counted = jnp.asarray(value).astype(dtype), jnp.asarray(counted).astype(dtype)
        more = counted - self.lost
        grown = self.counted + more
        return Mean(self.total + value * counted, grown, (grown - self.counted) - more)

    def value(self) -> Array:
        return self.total / self.counted


def factors_of(loss: Any) -> dict[str, float]:
    """The factor of each part of a `losses.weighted_sum`, by name; empty for any other loss."""
    found = {}
    for name, (factor, part) in (_parts(loss) or {}).items():
        inner = factors_of(part)
        found |= {f"{name}/{key}": factor * one for key, one in inner.items()} or {name: factor}
    return found


def _parts(loss):
    return getattr(loss, "parts", None) if hasattr(loss, "terms") else None


def new_tally(metrics: tuple[Measure, ...], factors: Mapping[str, float]) -> dict[str, Any]:
    return {
        "loss": Mean.start(),
        "terms": {name: Mean.start() for name in factors},
        "metrics": tuple(m.metric.init() for m in metrics),
    }


def tally_batch(tally, metrics, factors, loss, counted, prediction, batch):
    """The tally with one more batch. `counted` is that of a `Gradient`, or `loss.terms` of a weighted sum."""
    _, target, where, weights = (*batch, None, None)[:4]
    terms = {}
    if factors:
        dtype = tally["loss"].total.dtype
        loss = loss.astype(dtype) - sum(factors[name] * value.astype(dtype) for name, (value, _) in counted.items())
        for name, (value, count) in counted.items():
            terms[name] = tally["terms"][name].plus(value, _rows_counted(batch) if count is None else count)
    if factors or counted is None or isinstance(counted, Mapping):
        counted = _rows_counted(batch)
    return {
        "loss": tally["loss"].plus(loss, counted),
        "terms": terms,
        "metrics": tuple(
            _updated(measure, state, prediction, target, where, weights)
            for state, measure in zip(tally["metrics"], metrics, strict=True)
        ),
    }


def tally_result(tally, metrics, factors) -> dict[str, Array]:
    """`{"loss": the mean over what counted, "loss/digit": that of a part, name: value, …}`."""
    loss, terms = tally["loss"].value(), {name: mean.value() for name, mean in tally["terms"].items()}
    for name, factor in factors.items():  # a part in which nothing counted adds nothing
        loss = loss + jnp.where(tally["terms"][name].counted == 0, 0, factor * terms[name])
    computed = {m.name: m.metric.compute(state) for m, state in zip(metrics, tally["metrics"], strict=True)}
    return {"loss": loss, **{f"loss/{name}": value for name, value in terms.items()}, **computed}


def rows_of(batch: tuple[Any, ...]) -> int:
    """The rows of a batch: those of the target; without a target those of `where`; without both those of x."""
    x, *counted = batch
    return jax.tree.leaves(apart((counted, x))[0])[0].shape[0]


def _rows_counted(batch):
    """How many rows have something that counts."""
    where = batch[2] if len(batch) > 2 else None
    masks = [mask.any(tuple(range(1, mask.ndim))) for mask in jax.tree.leaves(where)]
    if not masks:
        return jnp.int32(rows_of(batch))
    return jnp.sum(jnp.any(jnp.stack(masks), 0), dtype=jnp.int32)


# Checks of loss and prediction.


def predicted(model: Layer, params: Params, state: State, x: Any, key: Key | None = None) -> Any:
    """The shapes of the prediction of a model."""
    return jax.eval_shape(model.apply, params, state, x, key=key)[0]


def resized(tree: Any, rows: int, to: int) -> Any:
    """The shapes of a tree with another number of rows. Leaves of other lengths, and a `Whole`, stay as they are."""

    def one(leaf):
        shape = (to, *leaf.shape[1:]) if leaf.shape[:1] == (rows,) else leaf.shape
        return jax.ShapeDtypeStruct(shape, leaf.dtype)

    with_rows, whole = apart(tree)
    return together(jax.tree.map(one, with_rows), shapes(whole))


def check_target(loss, prediction, target, where=None, weights=None) -> None:
    """Let the loss check all targets once, on the host, because inside `jit` a wrong label cannot raise."""
    if (check := getattr(loss, "check", None)) is not None:
        options = {"where": where, "weights": weights}
        check(prediction, target, **{name: one for name, one in options.items() if one is not None})


def check_takes(loss: Any, data: tuple[Any, ...], incomplete: bool = False) -> None:
    """Check that the loss takes the options that the data need."""
    check_kind("loss", loss, Callable, "a loss, such as losses.mean_squared_error")
    given = dict(zip(("where", "weights"), data[2:], strict=False))
    why = {name: f"the data have {name}" for name, one in given.items() if one is not None}
    fix = "add it to the arguments, or take one of funcnet.losses"
    if incomplete and "where" not in why:
        why["where"] = "the last batch is incomplete"
        fix = "choose a batch_size that divides the rows, or drop_last=True"
    for name, reason in why.items():
        if not _has_option(loss, name):
            raise ConfigError(f"expected {spelled(loss)} to take {name}= ({reason}), and it does not; {fix}.")


def _has_option(function, name):
    parameters = inspect.signature(function).parameters.values()
    return any(p.name == name or p.kind is p.VAR_KEYWORD for p in parameters)
