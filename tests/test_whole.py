"""Arrays without rows, in data and in predictions: wherever rows are believed they stay whole."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import norm_relative, worst_leaf

from funcnet import Padded, Whole, data, deployment, gradients, layers, losses, optimizers, parallel, training, trees
from funcnet.checking import check_gradients
from funcnet.errors import DataError, ShapeError

TABLE = np.linspace(-1, 1, 12, dtype=np.float32).reshape(6, 2)  # as many rows as a batch, which is no accident
X, TARGET = np.random.default_rng(0).normal(size=(6, 6)).astype(np.float32), np.arange(6) % 2


def against_a_table():
    """y = a ⊙ (x T), with a table T that belongs to all examples. dT = xᵀ (a ⊙ g)."""

    def init(key, x):
        del key
        return {"scale": jnp.ones(x[1].array.shape[1:], x[0].dtype)}, ()

    def forward(params, state, x, *, key=None, train=False):
        rows, table = x[0], x[1].array
        return params["scale"] * (rows @ table), state, (rows, table)

    def backward(params, residuals, dy):
        rows, table = residuals
        return {"scale": (dy * (rows @ table)).sum(0)}, (
            (params["scale"] * dy) @ table.T,
            rows.T @ (params["scale"] * dy),
        )

    return layers.layer(forward, backward, init=init, trees=True)


MODEL, LOSS = against_a_table(), losses.softmax_cross_entropy
BATCH = (X, Whole(TABLE)), TARGET


def test_functions_of_trees():
    tree = {"x": Padded(jnp.ones((4, 2)), jnp.ones((4, 2), bool)), "table": Whole(jnp.ones((3, 5)))}
    assert [type(leaf) for leaf in trees.leaves(tree)] == [Whole, Padded]
    assert trees.equal_rows(tree, "cut it") == 4
    cut = trees.map_rows(lambda leaf: leaf[:1], tree)
    assert (cut["x"].values.shape, cut["table"].array.shape) == ((1, 2), (3, 5))
    rows, whole = trees.apart(tree)
    assert rows["table"] is None
    assert not jax.tree.leaves(whole["x"])
    jax.tree.map(np.testing.assert_array_equal, trees.together(rows, whole), tree)
    with pytest.raises(ShapeError, match="expected arrays with rows, got none"):
        trees.equal_rows(tree["table"], "cut it")


def test_gradients_are_checked():
    report = check_gradients(MODEL, (X, Whole(TABLE)))
    assert report.ok, report
    assert {row.leaf for row in report.rows} == {"params/scale", "x/0", "x/1"}


@pytest.mark.parametrize("engine", [gradients.autodiff, gradients.backprop])
def test_parts_add_up(engine):
    params, state = MODEL.init(jax.random.key(0), BATCH[0])
    whole = engine(MODEL, LOSS)(params, state, BATCH)
    parts = gradients.accumulated(engine(MODEL, LOSS), 3)(params, state, BATCH)
    assert worst_leaf(parts.grads, whole.grads) <= 1e-6
    np.testing.assert_allclose(parts.prediction, whole.prediction, rtol=1e-6)


def plainly():
    """The same model, in which the table is known."""
    table = jnp.asarray(TABLE)

    def forward(params, state, x, *, key=None, train=False):
        return params["scale"] * (x @ table), state, x

    def backward(params, x, dy):
        return {"scale": (dy * (x @ table)).sum(0)}, (params["scale"] * dy) @ table.T

    def init(key, x):
        return {"scale": jnp.ones(2, x.dtype)}, ()

    return layers.layer(forward, backward, init=init)


@pytest.mark.parametrize("batch_size", [4, 6])
def test_training_evaluation_and_batches(batch_size):
    """The same numbers as with the table within the model: whole and incomplete batches, arrays and batches."""
    rest = {"epochs": 2, "key": 0}
    found = []
    for model, x in ((MODEL, BATCH[0]), (plainly(), X)):
        *_, report = training.fit(
            model, LOSS, optimizers.sgd(0.1), (x, TARGET), batch_size=batch_size, validation=(x, TARGET), **rest
        )
        params, state = report.state.optimizer.params, report.state.model
        tested = training.evaluate(model, LOSS, params, state, (x, TARGET), batch_size=4)
        batches = data.Batches(x, TARGET, batch_size=batch_size, epochs=2, seed=1)
        *_, from_batches = training.fit(model, LOSS, optimizers.sgd(0.1), batches, key=0, epochs=2)
        found.append((report.metrics, tested, params, from_batches.state.optimizer.params))
    assert worst_leaf(*found) <= 1e-6


def test_splits_keep_it_whole():
    one, other = data.split(BATCH[0], TARGET, fractions=(0.5, 0.5))
    for (x, table), target in (one, other):
        assert (len(x), len(target)) == (3, 3)
        np.testing.assert_array_equal(table.array, TABLE)
    with pytest.raises(DataError, match="expected x with at least one array"):
        data.split(Whole(TABLE), TARGET)


def test_a_layout_divides_only_the_rows():
    mesh = parallel.mesh()
    placed = parallel.layout(mesh).place_batch(BATCH)
    assert placed[0][1].array.sharding.spec == jax.sharding.PartitionSpec()
    assert placed[0][0].sharding.spec == jax.sharding.PartitionSpec("data")
    np.testing.assert_array_equal(parallel.global_batch(BATCH, mesh)[0][1].array, TABLE)


def test_means_over_rows():
    params, state = MODEL.init(jax.random.key(0), BATCH[0])
    assert parallel.mean_over_rows(gradients.backprop(MODEL, LOSS), params, state, BATCH)
    deferred = layers.deferred(layers.dense(3, use_bias=False))
    params, state = deferred.init(jax.random.key(0), X)
    gradient = gradients.backprop(deferred, losses.linear_cross_entropy)
    assert parallel.mean_over_rows(gradient, params, state, (X, TARGET))


def test_one_buffer_over_a_mesh():
    """What several devices compute, on a mesh of one: rows and arrays without rows have their own specifications."""
    from funcnet.parallel.flat import summed

    model, mesh = layers.deferred(layers.dense(3, use_bias=False)), parallel.mesh()
    params, state = model.init(jax.random.key(0), X)
    gradient = gradients.backprop(model, losses.linear_cross_entropy)
    want, got = (one(params, state, (X, TARGET)) for one in (gradient, jax.jit(summed(gradient, mesh, "data"))))
    assert worst_leaf((got.grads, got.loss), (want.grads, want.loss)) <= 1e-6
    assert norm_relative(got.prediction[1].array, params["kernel"]) == 0
    params, state = MODEL.init(jax.random.key(0), BATCH[0])
    gradient = gradients.autodiff(MODEL, LOSS)
    want, got = (one(params, state, BATCH) for one in (gradient, jax.jit(summed(gradient, mesh, "data"))))
    assert worst_leaf(got.grads, want.grads) <= 1e-6


def test_export(tmp_path):
    """In the file it is a plain array, whose length the batch does not change."""
    pytest.importorskip("flatbuffers")
    params, state = MODEL.init(jax.random.key(0), BATCH[0])
    file = tmp_path / "model.bin"
    file.write_bytes(deployment.export_model(MODEL, params, state, BATCH[0], platforms=["cpu"]))
    predict = deployment.load_exported(file)
    for rows in (1, 6):
        want = MODEL.apply(params, state, (X[:rows], Whole(TABLE)))[0]
        np.testing.assert_allclose(predict((X[:rows], TABLE)), want, rtol=1e-6)
        np.testing.assert_allclose(predict((X[:rows], Whole(TABLE))), want, rtol=1e-6)
    with pytest.raises(ShapeError, match="expected x of shape"):
        predict((X, TABLE[:5]))
    head = layers.deferred(layers.dense(3, use_bias=False))
    params, state = head.init(jax.random.key(0), X)
    file.write_bytes(deployment.export_model(head, params, state, X, platforms=["cpu"]))
    np.testing.assert_array_equal(deployment.load_exported(file)(X)[1], params["kernel"])
