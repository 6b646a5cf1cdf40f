"""Where a new run begins: with the weights of another one, parameters that stay, and a rate that is looked for."""

from typing import Any

import jax
import numpy as np

from funcnet import checkpoints, optimizers, training, trees
from funcnet.checks import listed
from funcnet.cli import options
from funcnet.cli.folders import WEIGHTS
from funcnet.cli.networks import optimizer_at
from funcnet.cli.tasks import Task
from funcnet.errors import ConfigError
from funcnet.made import leading
from funcnet.training.rates import RateSearch
from funcnet.types import Layer, Optimizer, TrainState

__all__ = ["first_state", "found_rate", "frozen_part"]


def first_state(chosen: options.Train, model: Layer, optimizer: Optimizer, x: Any) -> tuple[TrainState | None, str]:
    """The state with the weights of `--from`, and what is said of it; `None` without that option.

    Arrays with the same path and shape are taken. The others, such as those of a head for other classes, begin anew.
    """
    if chosen.from_run is None:
        return None, ""
    path = chosen.from_run / WEIGHTS
    params, state, _ = checkpoints.load_weights(path)
    new = training.create_state(model, optimizer, chosen.seed, x[:1])
    taken, others = [], []

    def chosen_array(tensors, where):
        def choose(leaf, array):
            found = tensors.get(leaf)
            if found is None or found.shape != array.shape:
                others.append(f"{where}{leaf} {array.shape}")
                return array
            taken.append(leaf)
            return jax.numpy.asarray(np.asarray(found, array.dtype))

        return choose

    own = trees.map_with_paths(chosen_array(params, ""), new.optimizer.params)
    kept = trees.map_with_paths(chosen_array(state, "state/"), new.model)
    if not taken:
        raise ConfigError(f"--from {chosen.from_run}: expected arrays of the same shape, got none; give its --model.")
    said = f"from      {chosen.from_run}: {len(taken)} of {len(taken) + len(others)} arrays"
    said += f"; new are {listed(others)}" if others else ""
    return new._replace(optimizer=optimizer.init(own), model=kept), said


def frozen_part(chosen: options.Train, model: Layer, x: Any) -> str:
    """What is said of `--freeze`, which must hold some of the parameters and leave others; empty without it."""
    if chosen.freeze is None:
        return ""
    with leading(f"--freeze {chosen.freeze!r}"):
        is_fixed = trees.selector("the pattern", chosen.freeze)
        params, _ = jax.eval_shape(model.init, jax.random.key(0), x)
        sizes = {path: leaf.size for path, leaf in trees.flatten_with_paths(params)}
        fixed = [size for path, size in sizes.items() if is_fixed(path)]
        if not 0 < len(fixed) < len(sizes):
            got = f"{len(fixed)} of {len(sizes)}: {listed(sizes)}; a pattern has to match the whole path"
            raise ConfigError(f"expected some of the arrays of parameters to match, got {got}.")
    return f"frozen    {sum(fixed):,} of {sum(sizes.values()):,} parameters, {len(fixed)} of {len(sizes)} arrays"


def found_rate(chosen: options.Train, model: Layer, task: Task, rows: tuple[Any, Any]) -> RateSearch:
    """A learning rate for the options, from a short training with a rising one."""
    optimizer = optimizers.guarded(optimizer_at(chosen, chosen.learning_rate))
    state, _ = first_state(chosen, model, optimizer, rows[0])
    with leading("--find-rate"):
        return training.find_learning_rate(
            model, task.loss, optimizer, rows, batch_size=chosen.batch_size, accumulate=chosen.accumulate,
            engine=chosen.engine, key=chosen.seed, state=state,
        )  # fmt: skip
