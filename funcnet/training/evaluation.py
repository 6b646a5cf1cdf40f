"""The loss and metrics of a model on a data set."""

from collections.abc import Mapping
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp

from funcnet import compiler
from funcnet.checks import check_count
from funcnet.data import check_data
from funcnet.metrics import Metric
from funcnet.types import Array, Layer, LossFn, Params, State

__all__ = ["check_target", "evaluate", "new_tally", "run_evaluation", "tally_batch", "tally_result"]


def evaluate(
    model: Layer,
    loss: LossFn,
    params: Params,
    state: State,
    data: tuple[Any, Any],
    *,
    batch_size: int = 1024,
    metrics: Mapping[str, Metric] | None = None,
) -> dict[str, Array]:
    """The mean loss and the metrics of a model in evaluation mode.

    Args:
        model, loss: as in `fit`.
        params, state: `report.state.optimizer.params` and `report.state.model`.
        data: (x, target).
        batch_size: rows at a time; a smaller last batch counts by its rows. A loss that is no mean over rows (the root
            of a mean, say) comes out as the mean over batches.
        metrics: name -> `Metric`, for example `{"accuracy": metrics.accuracy()}`.

    Returns: `{"loss": (), **metrics}`.

    Raises:
        DataError, LabelError: for data that cannot be evaluated.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model = fn.layers.dense(1)
    >>> params, state = {"kernel": jnp.ones((1, 1)), "bias": jnp.zeros(1)}, ()
    >>> data = (jnp.ones((5, 1)), jnp.zeros((5, 1)))
    >>> fn.training.evaluate(model, fn.losses.mean_squared_error, params, state, data, batch_size=2)
    {'loss': Array(1., dtype=float32)}
    """
    x, target = check_data(*data, name="evaluate")
    check_target(model, loss, params, state, x, target)
    return run_evaluation(model, loss, params, state, (x, target), batch_size, tuple((metrics or {}).items()))


def run_evaluation(model, loss, params, state, data, batch_size, metrics):
    """`evaluate` of checked data, with the metrics as a tuple of (name, Metric)."""
    batch_size = check_count("evaluate", "batch_size", batch_size)
    x, target = data
    accumulate = _accumulator(model, loss, metrics)
    tally = new_tally(metrics)
    if len(x) <= batch_size:  # nothing to cut, and cutting arrays of a device takes longer than a small evaluation
        return tally_result(accumulate(tally, params, state, x, target), metrics)
    for start in range(0, len(x), batch_size):
        rows = slice(start, start + batch_size)
        tally = accumulate(tally, params, state, x[rows], target[rows])
    return tally_result(tally, metrics)


@lru_cache(maxsize=64)  # one compiled function for all calls with the same model, loss and metrics
def _accumulator(model, loss, metrics):
    @partial(jax.jit, compiler_options=compiler.options())
    def accumulate(tally, params, state, x, target):
        prediction, _ = model.apply(params, state, x, train=False)
        return tally_batch(tally, metrics, loss(prediction, target), prediction, target, None)

    return accumulate


# A tally is the running sum of a run of batches: the loss weighted by rows, the rows, each metric's own state.


def new_tally(metrics: tuple[tuple[str, Metric], ...]) -> dict[str, Any]:
    total = jnp.zeros((), jnp.result_type(float))
    return {"total": total, "rows": jnp.zeros((), jnp.int32), "metrics": tuple(m.init() for _, m in metrics)}


def tally_batch(tally, metrics, loss, prediction, target, where):
    """The tally with one more batch; `where` marks the rows that count, `None` all of them."""
    rows = jnp.int32(len(target)) if where is None else jnp.sum(where, dtype=jnp.int32)
    total = tally["total"]
    return {
        "total": total + loss.astype(total.dtype) * rows.astype(total.dtype),
        "rows": tally["rows"] + rows,
        "metrics": tuple(
            metric.update(s, prediction, target, where)
            for s, (_, metric) in zip(tally["metrics"], metrics, strict=True)
        ),
    }


def tally_result(tally, metrics) -> dict[str, Array]:
    """`{"loss": the mean over rows, name: value, …}`."""
    mean = tally["total"] / tally["rows"].astype(tally["total"].dtype)
    computed = {name: m.compute(s) for (name, m), s in zip(metrics, tally["metrics"], strict=True)}
    return {"loss": mean, **computed}


def check_target(model, loss, params, state, x, target) -> None:
    """Let the loss look at all targets once, on the host: inside `jit` a wrong label cannot raise."""
    check = getattr(loss, "check", None)
    prediction = jax.eval_shape(lambda p, s, x: model.apply(p, s, x)[0], params, state, x)
    if check is not None:
        check(prediction, target)
