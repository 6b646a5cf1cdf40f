"""Finding a learning rate: the range test, a training whose rate rises with every step."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np

from funcnet.checks import check_count, is_number, listed, positive
from funcnet.errors import ConfigError
from funcnet.made import Made, constructor, leading, spelled, within
from funcnet.optimizers import rescaled
from funcnet.optimizers.checks import check_optimizer
from funcnet.training.fit import fit
from funcnet.types import GradientFn, Layer, Layout, LossFn, Optimizer, TrainState

__all__ = ["RateSearch", "find_learning_rate"]


@dataclass(frozen=True, eq=False, repr=False)
class RateSearch:
    """What `find_learning_rate` found."""

    rate: float  #: the rate to use: `steepest`, and at most a quarter of `limit`
    steepest: float  #: the rate at which the smoothed loss falls fastest
    limit: float | None  #: the rate of the smallest loss, beyond which it rises; `None` if it fell to the end
    rates: np.ndarray  #: (steps,), the rate of each step
    factors: np.ndarray  #: (steps,), the same as multiples of the rate of the optimizer that was given
    losses: np.ndarray  #: (steps,), the loss of each step, before its update
    smoothed: np.ndarray  #: (steps,), means of neighbouring losses, in which a loss that is too large is cut off

    @property
    def sentence(self) -> str:
        """The result in words."""
        end = "and still falls at the end" if self.limit is None else f"and rises beyond {self.limit:.2g}"
        return f"Take a learning rate of {self.rate:.2g}: the loss falls fastest at {self.steepest:.2g} {end}."

    def __repr__(self) -> str:
        limit = self.limit and float(f"{self.limit:.2g}")
        return f"RateSearch(rate={self.rate:.2g}, steepest={self.steepest:.2g}, limit={limit})"


def find_learning_rate(
    model: Layer,
    loss: LossFn,
    optimizer: Optimizer,
    data: tuple[Any, ...] | Iterable[Any],
    *,
    low: float = 1e-6,
    high: float = 10.0,
    steps: int = 100,
    engine: str | Callable[..., GradientFn] = "autodiff",
    batch_size: int | None = None,
    accumulate: int = 1,
    key: Any = 0,
    state: TrainState | None = None,
    penalty: Any = None,
    augment: Callable[..., Any] | None = None,
    layout: Layout | None = None,
) -> RateSearch:
    """Train a few steps with a rate that rises from `low` to `high`, and suggest a rate.

    Step i has the rate low · (high / low)^(i / (steps − 1)), which `optimizers.rescaled` sets. The suggested rate is
    that at which the smoothed loss falls fastest, and at most a quarter of that beyond which the loss rises. The search
    ends where the loss is far above its first value, or not finite. It changes nothing: train with a new optimizer
    afterwards.

    Args:
        low, high: the first and the last rate.
        steps: how many updates.
        state: where to begin, for example for fine-tuning; by default where `fit` begins with this key.

    All other arguments are those of `fit`. The optimizer may be wrapped. The result depends on the key alone.

    Raises:
        ConfigError: the rate of the optimizer is a schedule, or it has several rates or none that is named
            `learning_rate`; the loss falls nowhere.

    It also raises what `fit` raises.

    References: Smith, "Cyclical Learning Rates for Training Neural Networks", WACV 2017, section 3.3.

    >>> import funcnet as fn
    >>> model, loss = fn.models.mlp((32, 10)), fn.losses.softmax_cross_entropy
    >>> found = fn.training.find_learning_rate(model, loss, fn.optimizers.adam(1e-3), fn.data.digits(), batch_size=128)
    >>> 1e-3 < found.rate < found.limit
    True
    """
    with leading("find_learning_rate"):
        check_optimizer(optimizer)
        low, high, steps = positive("low", low), positive("high", high), check_count("steps", steps, 10)
        if high <= low:
            raise ConfigError(f"expected high above low, {low:g}, got {high:g}.")
        base = _rate_of(optimizer)
        growth = (high / low) ** (1 / (steps - 1))
    begun = 0
    with within("find_learning_rate:"):
        if isinstance(state, TrainState):
            begun, state = int(state.optimizer.step), state._replace(optimizer=rescaled(state.optimizer, low / base))
        reports = fit(
            model, loss, _rising(optimizer, low / base, growth), data, engine=engine, epochs=begun + steps,
            batch_size=batch_size, accumulate=accumulate, key=key, state=state, penalty=penalty, augment=augment,
            layout=layout, report_steps=1, copy_state=False,
        )  # fmt: skip
        with closing(reports):
            losses = np.array(list(_until_diverged(islice(reports, steps))))
    with leading("find_learning_rate"):
        return _result(losses, low * growth ** np.arange(len(losses)), base)


@constructor
def _rising(optimizer: Optimizer, first: float, growth: float) -> Optimizer:
    """The optimizer with its rate multiplied by `first`, and by `growth` after each update."""
    return Optimizer(
        lambda params: rescaled(optimizer.init(params), first),
        lambda state, grads: rescaled(optimizer.update(state, grads), growth),
    )


def _rate_of(optimizer: Optimizer) -> float:
    """The number that was given as `learning_rate` to the optimizer, or to the one that it wraps."""
    found = list(dict.fromkeys(_rates_in(optimizer)))
    if len(found) == 1 and is_number(found[0]) and found[0] > 0:
        return float(found[0])
    got = listed([spelled(rate) for rate in found]) or "none"
    if any(map(callable, found)):
        fix = "search with a number, and make the schedule from the rate that is found"
        raise ConfigError(f"expected an optimizer whose rate is a number, got {got}; {fix}.")
    fix = "its constructor, under @fn.constructor, has an argument learning_rate"
    raise ConfigError(f"expected an optimizer with one learning_rate > 0, got {got} in {optimizer}; {fix}.")


def _rates_in(value: Any) -> Iterator[Any]:
    """Every `learning_rate` among the arguments of an optimizer and of those inside it."""
    if isinstance(value, Optimizer) and isinstance(value.made, Made):
        for name, argument in value.made.arguments.items():
            yield from [argument] if name == "learning_rate" else _rates_in(argument)
    elif type(value) is tuple:
        for one in value:
            yield from _rates_in(one)


def _until_diverged(reports: Iterable[Any]) -> Iterator[float]:
    """The losses, up to the first one that is not finite or far above the first one."""
    first = best = None
    for report in reports:
        loss = float(report.metrics["loss"])
        first, best = (loss, loss) if first is None or best is None else (first, min(best, loss))
        yield loss
        if not loss <= _too_large(first, best):
            return


def _too_large(first: float, best: float) -> float:
    return first + abs(first) + (first - best)


def _result(losses: np.ndarray, rates: np.ndarray, base: float) -> RateSearch:
    shown = np.where(np.isfinite(losses), losses, np.inf)
    shown = np.minimum(shown, _too_large(shown[0], shown.min()))
    smoothed = _smooth(_smooth(shown))
    slopes, lowest = np.diff(smoothed), int(shown.argmin())
    if lowest == 0 or slopes.min() >= 0:
        got = f"losses from {losses[0]:.4g} to {losses[-1]:.4g} at rates from {rates[0]:.2g} to {rates[-1]:.2g}"
        raise ConfigError(f"expected a loss that falls at some rate, got {got}; take a smaller low, or a larger high.")
    steepest = float(rates[min(int(slopes.argmin()), lowest)])  # the smaller rate of the two steps with this slope
    limit = None if lowest == len(rates) - 1 else float(rates[lowest])
    rate = steepest if limit is None else min(steepest, limit / 4)
    return RateSearch(rate, steepest, limit, rates, rates / base, losses, smoothed)


def _smooth(values: np.ndarray) -> np.ndarray:
    """The mean of each value with the neighbours on both sides that exist, a twentieth of all values."""
    window = np.ones(2 * (len(values) // 40) + 1)
    return np.convolve(values, window, "same") / np.convolve(np.ones_like(values), window, "same")
