"""`funcnet forecast`: a training step on TPUs that need not be here."""

import dataclasses

import jax
import jax.numpy as jnp

from funcnet import parallel
from funcnet.cli import options
from funcnet.cli.networks import build_model, build_optimizer
from funcnet.cli.phases import phase
from funcnet.cli.rows import read_parts
from funcnet.cli.tables import print_json
from funcnet.cli.tasks import task_of

__all__ = ["forecast", "partition_of"]


def forecast(chosen: options.Forecast) -> int:
    """The table of a step, for the network and the loss that `funcnet train` would take."""
    train = dataclasses.replace(options.as_train(chosen), optimizer=chosen.optimizer, engine=chosen.engine)
    preparation = read_parts(train).preparation()
    rows = chosen.batch_size
    x = jax.ShapeDtypeStruct((rows, *preparation.shape), jnp.float32)
    if preparation.task == "classes":
        target = jax.ShapeDtypeStruct((rows,), jnp.int32)
    else:
        target = jax.ShapeDtypeStruct((rows, preparation.outputs), jnp.float32)
    with phase("compiling"):
        found = parallel.forecast(
            build_model(train, preparation), task_of(preparation).loss, build_optimizer(train, 1000), (x, target),
            engine=chosen.engine, devices=chosen.devices, rules=[(".*", partition_of(chosen.sharding))],
        )  # fmt: skip
    if chosen.json:
        print_json(found._asdict() | {"memory": found.memory, "fits": found.fits, "seconds": found.times})
    else:
        print(found)
    return 0


def partition_of(sharding: str):
    """The rule for parameters that `--sharding` names."""
    return parallel.replicate() if sharding == "replicate" else parallel.fsdp(min_bytes=2**16)
