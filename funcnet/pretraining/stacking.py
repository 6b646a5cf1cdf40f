"""Train machines one on top of the other, and use the stack: to start a network, or to draw samples."""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp

from funcnet.checks import check_count, check_like
from funcnet.data import batch_rows, steps_per_epoch
from funcnet.data.checks import checked_data
from funcnet.data.owned import own_arrays
from funcnet.errors import ConfigError, StructureError
from funcnet.layers import dense, dropout, sigmoid
from funcnet.layers.checks import check_entries
from funcnet.made import leading, within
from funcnet.pretraining.contrastive import contrastive_divergence, gibbs, reconstruction_error
from funcnet.pretraining.rbm import RBM
from funcnet.training import create_state, train_step
from funcnet.training.reports import Reports
from funcnet.training.step import as_key
from funcnet.types import Array, Key, Layer, Optimizer, Params, Report, TrainState

__all__ = ["dream", "greedy", "stack", "train"]


def train(
    machine: RBM,
    optimizer: Optimizer,
    v: Any,
    *,
    epochs: int,
    batch_size: int,
    steps: int = 1,
    key: Any = 0,
    state: TrainState | None = None,
) -> Iterator[Report]:
    """Train a machine by contrastive divergence. Like `training.fit` this is a generator, of one `Report` per epoch.

    An epoch is one compiled loop. The order of its rows is a function of (key, epoch). An incomplete batch at the end
    is left out.

    Args:
        machine: of `rbm`.
        optimizer: one of `funcnet.optimizers`.
        v: (n, visible).
        epochs: passes over the data, including those already done in `state`.
        batch_size: rows per step.
        steps: k of `contrastive_divergence`.
        key: a PRNG key or an integer seed.
        state: a `TrainState` to continue from, exactly as if the run had never stopped.

    The metrics are "loss", ⟨F(v₀)⟩ − ⟨F(v_k)⟩ over the epoch, and "reconstruction_error" of v after it.

    Raises:
        ConfigError, DataError, DtypeError, ShapeError: before the first step.

    >>> import funcnet as fn
    >>> v, _ = fn.data.digits()
    >>> machine, optimizer = fn.pretraining.rbm(16), fn.optimizers.sgd(0.1)
    >>> *_, last = fn.pretraining.train(machine, optimizer, v, epochs=3, batch_size=100)
    >>> last.epoch, last.step, sorted(last.metrics)
    (3, 51, ['loss', 'reconstruction_error'])
    """
    with leading("train"):
        epochs, key = check_count("epochs", epochs), as_key(key)
        v = jnp.asarray(own_arrays(checked_data((v, None), integers=False)[0]))
    steps_an_epoch = steps_per_epoch(len(v), batch_size, drop_last=True)
    started = create_state(machine, optimizer, key, v) if state is None else state
    reconstruction_error(machine, started.optimizer.params, v)  # its checks see the values of v
    run = _epoch(machine, optimizer, steps)
    return Reports(_reports(machine, run, started, v, epochs, batch_size, steps_an_epoch, key), "train", epochs)


def _reports(machine, run, state, v, epochs, batch_size, steps_an_epoch, key):
    """The generator behind `train`."""
    seed = tuple(jax.random.key_data(key).ravel().tolist())
    for epoch in range(int(state.optimizer.step) // steps_an_epoch, epochs):
        first = epoch * steps_an_epoch
        rows = [batch_rows(seed, first + i, len(v), batch_size, drop_last=True)[0] for i in range(steps_an_epoch)]
        state, loss, error = run(state, v, jnp.array(rows))
        yield Report(epoch + 1, first + steps_an_epoch, {"loss": loss, "reconstruction_error": error}, state)


@lru_cache(maxsize=64)  # one compiled loop for all runs of the same machine and optimizer
def _epoch(machine, optimizer, steps):
    step = train_step(contrastive_divergence(machine, steps), optimizer)

    @jax.jit
    def run(state, v, rows):
        state, metrics = jax.lax.scan(lambda state, rows: step(state, (v[rows], None)), state, rows)
        return state, metrics["loss"].mean(), reconstruction_error(machine, state.optimizer.params, v)

    return run


def greedy(
    machines: Sequence[RBM],
    optimizer: Optimizer,
    v: Any,
    *,
    epochs: int,
    batch_size: int,
    steps: int = 1,
    key: Any = 0,
) -> tuple[Params, ...]:
    """Train machines one on top of the other. Each learns the hidden probabilities of the one below, which stays fixed.

    Together they are a deep belief network. Each new machine raises a lower bound of the likelihood if it starts as the
    one below it turned upside down, with visible and hidden units exchanged. In practice this start is left out, and
    here too.

    Args:
        machines: the lowest, on v, first.
        optimizer, v, epochs, batch_size, steps: as for `train`.
        key: a PRNG key or an integer seed; machine i is trained with `fold_in(key, i)`.

    Returns: the params of each.

    Raises: as `train`, with the machine's place before the message.

    References: Hinton, Osindero, Teh, "A Fast Learning Algorithm for Deep Belief Nets", Neural Computation 2006.

    >>> import funcnet as fn
    >>> v, _ = fn.data.digits()
    >>> machines = fn.pretraining.rbm(16), fn.pretraining.rbm(8)
    >>> params = fn.pretraining.greedy(machines, fn.optimizers.sgd(0.1), v[:200], epochs=1, batch_size=100)
    >>> [one["kernel"].shape for one in params]
    [(64, 16), (16, 8)]
    """
    machines = _checked("greedy", machines)
    with leading("greedy"):
        key = as_key(key)
    trained = []
    for i, machine in enumerate(machines):
        with within(f"greedy[{i}]"):
            *_, last = train(
                machine, optimizer, v, epochs=epochs, batch_size=batch_size, steps=steps, key=jax.random.fold_in(key, i)
            )
        trained.append(last.state.optimizer.params)
        v = machine.hidden(trained[-1], jnp.asarray(v))
    return tuple(trained)


def stack(model: Layer, params: Params, trained: Sequence[Params]) -> Params:
    """The params of a network whose first layers are those of trained machines, as a start for back-propagation.

    A dense layer followed by a sigmoid computes σ(x W + b). This is p(h | v) of a machine with that kernel and that
    hidden bias. The layers above keep their own params.

    Args:
        model: a `serial` that begins with dense layers, each followed by a sigmoid: `models.sigmoid_network`, or
            `models.mlp` with `activation=layers.sigmoid`. Dropout may follow each sigmoid.
        params: of `model.init`.
        trained: the params of the machines, from `greedy`, the lowest first.

    Returns: params for the model, of the same tree, shapes and dtypes.

    Raises:
        ConfigError: the model does not begin with that many dense layers, each followed by a sigmoid.
        StructureError, ShapeError, DtypeError: params that are not the model's, or of other widths or dtypes.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> model = fn.models.mlp((16, 10), activation=fn.layers.sigmoid)
    >>> params, state = model.init(jax.random.key(0), jnp.ones((1, 64)))
    >>> machine, v = fn.pretraining.rbm(16), jnp.ones((1, 64))
    >>> trained, _ = machine.init(jax.random.key(1), v)
    >>> started = fn.pretraining.stack(model, params, [trained])
    >>> bool((started[0]["kernel"] == trained["kernel"]).all()), started[2] is params[2]
    (True, True)
    """
    inside = model.inside.layers if model.inside is not None else ()
    kinds = [layer.made.constructor for layer in inside if layer.made.constructor is not dropout]
    wanted = [kind for _ in trained for kind in (dense, sigmoid)]
    if kinds[: len(wanted)] != wanted:
        wanted = f"{len(trained)} dense layers, each followed by a sigmoid"
        fix = "make it with models.sigmoid_network, or models.mlp and activation=layers.sigmoid"
        raise ConfigError(f"stack: expected a model that begins with {wanted}, got {model}; {fix}.")
    if not isinstance(params, tuple) or len(params) != len(inside):
        raise StructureError(f"stack: expected params of {model}, one entry per layer; take them from its init.")
    places = [i for i, layer in enumerate(inside) if layer.made.constructor is dense]
    started = list(params)
    for i, machine_params in zip(places, trained, strict=False):
        started[i] = _replaced(i, params[i], machine_params)
    return tuple(started)


def _replaced(i, old, machine_params):
    """The params of a dense layer, from those of a machine."""
    new = {"kernel": machine_params["kernel"], "bias": machine_params["hidden_bias"]}
    with leading("stack"):
        check_entries(f"params[{i}]", old, new)
        for leaf, value in new.items():
            check_like(f"{i}/{leaf}", old[leaf], value, "as the machine has", "give model and machines the same widths")
    return new


def dream(machines: Sequence[RBM], params: Sequence[Params], key: Key, n: int, steps: int = 1000) -> Array:
    """Samples of a deep belief network: Gibbs sampling in the machine on top, then down through the others.

    Args:
        machines, params: those of `greedy`, the lowest first.
        key: a PRNG key.
        n: number of samples. Each has its own chain, which starts with all hidden units of the top machine at 0.
        steps: of `gibbs`.

    Returns: (n, visible). In the last step down they are the means of the visible units.

    References: Hinton, Osindero, Teh, "A Fast Learning Algorithm for Deep Belief Nets", Neural Computation 2006,
    section 7.

    >>> import jax, jax.numpy as jnp, funcnet as fn
    >>> machine = fn.pretraining.rbm(4)
    >>> params, _ = machine.init(jax.random.key(0), jnp.ones((1, 3)))
    >>> fn.pretraining.dream([machine], [params], jax.random.key(1), 2, steps=10).shape
    (2, 3)
    """
    machines = _checked("dream", machines)
    start_key, gibbs_key, down_key = jax.random.split(key, 3)
    top, top_params = machines[-1], params[-1]
    off = jnp.zeros((n, len(top_params["hidden_bias"])), top_params["kernel"].dtype)
    v = gibbs(top, gibbs_key, top_params, top.sample_visible(start_key, top_params, off), steps)
    h = top.sample_hidden(down_key, top_params, v)
    for i in reversed(range(1, len(machines))):
        h = machines[i].sample_visible(jax.random.fold_in(down_key, i), params[i], h)
    return machines[0].visible(params[0], h)


def _checked(name, machines):
    """At least one machine, and nothing else."""
    machines = tuple(machines)
    if not machines or not all(isinstance(machine, RBM) for machine in machines):
        raise ConfigError(f"{name}: expected machines of pretraining.rbm, at least one, got {machines}.")
    return machines
