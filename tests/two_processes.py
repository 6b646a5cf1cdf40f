"""What each of two processes does for `test_shards.py`: `python two_processes.py FOLDER COORDINATOR NUMBER`."""

import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnet import checkpoints, layers, models, optimizers, parallel, training, types
from funcnet.errors import CheckpointError
from funcnet.trees import on_host


def same_bytes(a, b):
    return all(map(np.array_equal, *map(jax.tree.leaves, on_host((jax.tree.map(plain, a), jax.tree.map(plain, b))))))


def plain(leaf):
    return jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf


def main(folder, coordinator, number):
    parallel.start(coordinator, 2, number)
    rules = [(".*kernel", parallel.fsdp(min_bytes=0)), (".*", parallel.replicate())]
    model = models.mlp((16, 8), activation=layers.tanh)
    optimizer, x = optimizers.adam(1e-2), jnp.zeros((4, 6))
    state = parallel.init_state(
        lambda key: training.create_state(model, optimizer, key, x), jax.random.key(3), parallel.mesh(), rules
    )
    spread = [leaf for leaf in jax.tree.leaves(state) if not (leaf.is_fully_addressable or leaf.is_fully_replicated)]
    assert len(spread) == 6  # two kernels and their moments

    reports = [types.Report(1, step, {"loss": 0.5}, state) for step in (10, 20, 30)]
    assert len(list(checkpoints.saving(iter(reports), folder, keep=2, metadata="mine"))) == 3
    assert number == 1 or checkpoints.steps(folder) == [20, 30]  # process 0 takes the oldest away
    like = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=leaf.sharding), state)
    report, metadata = checkpoints.restore(folder, like)
    assert (report.step, metadata) == (30, "mine")
    assert same_bytes(report.state, state)
    assert [leaf.sharding for leaf in jax.tree.leaves(report.state)] == [x.sharding for x in jax.tree.leaves(state)]
    heard = "expected no checkpoint of step 30" if number == 0 else "process 0 could not do its part"
    with pytest.raises(CheckpointError, match=heard):
        checkpoints.save(folder, reports[-1])
    whole = on_host(jax.tree.map(plain, state))
    if number == 0:
        np.savez(folder / "whole.npz", *jax.tree.leaves(whole))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3]))
