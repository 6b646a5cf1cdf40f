"""A graph network counts the edges of a graph that join two nodes of one colour. Graphs of all sizes lie flat in one
batch. Nodes and edges of a last graph, which does not count, fill the batch up to a fixed size.

Look at `message_passing`, a container: its forward sums over edges, and its backward gathers. Look at the batches too:
x is a dictionary whose arrays differ in length, and `where` marks the real graphs.
"""

import jax
import jax.numpy as jnp
import numpy as np

import funcnet as fn
from funcnet.layers import container, dense, merged, parameterless, relu, serial

GRAPHS, NODES, EDGES, COLOURS = 16, 160, 480, 4


@fn.constructor
def message_passing(inner):
    """For each node h ← f(h, Σ h of the senders of incoming edges), with f = `inner`; the graph stays as it is.

    Backward. With (dh, dm) = backward_f(g), dh goes to h directly, and dm of each edge's receiver to its sender.
    """

    def gathered(x):
        messages = jax.ops.segment_sum(x["nodes"][x["senders"]], x["receivers"], len(x["nodes"]))
        return jnp.concatenate([x["nodes"], messages], 1)

    def walk(run, x):
        return {**x, "nodes": run(0, merged(gathered, x))}, (x["senders"], x["receivers"])

    def back(run, kept, dy):
        senders, receivers = kept
        dh, dm = jnp.split(run(0, dy["nodes"]), 2, 1)
        return {**dy, "nodes": dh + jax.ops.segment_sum(dm[receivers], senders, len(dh))}

    return container(inner, walk, back)


@fn.constructor
def readout(graphs):
    """The sum over the nodes of each graph. Backward. Each node gets the gradient of its graph. Kept: its graph."""

    def forward(x, *, key, train):
        return jax.ops.segment_sum(x["nodes"], x["graph"], graphs), x["graph"]

    def backward(graph, dy):
        return {"nodes": dy[graph], "graph": None, "senders": None, "receivers": None}

    return parameterless(forward, backward, trees=True)


def batch(random):
    """Graphs as (x, target, where). The filling belongs to the last graph; its edges join the last node to itself."""
    sizes = random.integers(4, 10, GRAPHS - 1)
    colours, graph = random.integers(0, COLOURS, sizes.sum()), np.repeat(np.arange(GRAPHS - 1), sizes)
    senders, receivers = np.nonzero((graph[:, None] == graph) & (random.uniform(size=(len(graph),) * 2) < 0.4))
    alike = np.bincount(graph[senders], colours[senders] == colours[receivers], GRAPHS)

    def filled(values, size, last):
        return np.concatenate([values, np.full(size - len(values), last)]).astype(np.int32)

    nodes = np.eye(COLOURS, dtype=np.float32)[filled(colours, NODES, 0)]
    edges = {"senders": filled(senders, EDGES, NODES - 1), "receivers": filled(receivers, EDGES, NODES - 1)}
    x = {"nodes": nodes, "graph": filled(graph, NODES, GRAPHS - 1), **edges}
    return x, alike[:, None].astype(np.float32), np.arange(GRAPHS) < GRAPHS - 1


step = message_passing(serial(dense(32), relu()))  # in a model each use has its own parameters
model, loss, r2 = serial(step, step, readout(GRAPHS), dense(1)), fn.losses.mean_squared_error, fn.metrics.r_squared()

if __name__ == "__main__":
    random = np.random.default_rng(0)
    train, held_out = ([batch(random) for _ in range(n)] for n in (64, 16))
    *_, last = fn.training.fit(model, loss, fn.optimizers.adam(3e-3), train, engine="backprop", epochs=40)
    tally, params, state = r2.init(), last.state.optimizer.params, last.state.model
    for x, target, where in held_out:
        tally = r2.update(tally, model.apply(params, state, x)[0], target, where)
    print(f"edges between nodes of one colour, in graphs held out: R² {r2.compute(tally):.3f}")
