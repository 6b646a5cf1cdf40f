"""The ten programs of examples/ that show what the parts are for: a model, a loss or an engine of one's own in each.

`test_docs.py` runs them and looks at what they print. Here their parts are looked at: backpropagation by hand against
autodiff, values against NumPy, and how long the programs are.
"""

import ast
import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import norm_relative, worst_leaf
from source import code_lines

import funcnet as fn

EXAMPLES = Path(__file__).parent.parent / "examples"


def program(name):
    """The example as a module; its main part does not run."""
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


vae, gan, siamese, dqn, physics, maml, distillation, tasks, transfer, graphs = map(
    program,
    ["variational_autoencoder", "gan", "siamese", "double_dqn", "physics_informed", "maml", "distillation", "two_tasks",
     "transfer", "graph_network"],
)  # fmt: skip


def like(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def drawn(tree, seed=0):
    """Numbers for the shapes, those of a uniform distribution on [0, 1]; arrays as they are."""
    random = np.random.default_rng(seed)
    return jax.tree.map(
        lambda leaf: random.uniform(size=leaf.shape) if isinstance(leaf, jax.ShapeDtypeStruct) else leaf, tree
    )


def graph():
    return graphs.batch(np.random.default_rng(3))


# model, x
MODELS = {
    "variational_autoencoder": (vae.model, like(3, 64)),
    "gan": (gan.model, like(4, gan.SIZE)),
    "siamese": (siamese.model, (like(3, 64), like(3, 64))),
    "double_dqn": (dqn.model, like(4, 4)),
    "physics_informed": (physics.model, {"inside": like(4, 1), "edge": like(2, 1)}),
    "maml": (maml.net, like(4, 1)),
    "distillation": (distillation.taught, like(3, 64)),
    "two_tasks": (tasks.model, like(3, 64)),
    "transfer": (transfer.tuned, like(3, 8, 8, 1)),
    "graph_network": (graphs.model, graph()[0]),
}


@pytest.mark.parametrize("name", MODELS)
def test_the_checker_takes_the_model(name):
    model, x = MODELS[name]
    fn.checking.check_gradients(model, x, most=200).raise_if_failed()


@pytest.mark.parametrize(
    "part, x",
    [
        (vae.draw(), like(3, 6)),
        (siamese.siamese(fn.layers.dense(3)), (like(4, 5), like(4, 5))),
        (graphs.message_passing(fn.layers.dense(3)), graph()[0]),
        (graphs.readout(graphs.GRAPHS), graph()[0]),
    ],
    ids=str,
)
def test_layers_of_their_own(part, x):
    fn.checking.check_gradients(part, x).raise_if_failed()


@pytest.mark.parametrize(
    "loss, prediction, target",
    [
        (vae.divergence, like(3, 6), None),
        (vae.loss, {"image": like(3, 4), "code": like(3, 6)}, {"image": drawn(like(3, 4))}),
        (siamese.nt_xent, like(4, 2, 3), None),
        (tasks.loss, {"digit": like(4, 10), "ink": like(4, 1)}, {"digit": np.arange(4), "ink": drawn(like(4, 1))}),
        (
            distillation.both,
            {"label": like(2, 3), "chances": like(2, 3)},
            {"label": np.arange(2), "chances": np.full((2, 3), 1 / 3)},
        ),
    ],
    ids=["divergence", "vae", "nt_xent", "two_tasks", "distillation"],
)  # fmt: skip
def test_losses_of_their_own(loss, prediction, target):
    fn.checking.check_gradients(loss, prediction, target).raise_if_failed()


images = drawn(like(6, 64))
labels, some = np.array([1, 0, 9, 3, 3, 5]), np.array([True, False, True, True, False, True])

# model, loss, batch
BATCHES = {
    "variational_autoencoder": (vae.model, vae.loss, (images, {"image": images}, some)),
    "siamese": (siamese.model, siamese.nt_xent, ((images, drawn(like(6, 64), 1)), None)),
    "double_dqn": (
        dqn.model, fn.losses.huber,
        (drawn(like(3, 4)), drawn(like(3, 2), 1), np.eye(2, dtype=bool)[[0, 1, 1]], drawn(like(3), 2)),
    ),
    "physics_informed": (
        physics.model, physics.loss,
        (dict.fromkeys(("inside", "edge"), drawn(like(4, 1))), {"inside": np.ones((4, 1)), "edge": np.zeros((4, 1))}),
    ),
    "distillation": (
        distillation.taught, distillation.both,
        (images, {"label": labels, "chances": np.full((6, 10), 0.1)}, {"label": some}),
    ),
    "two_tasks": (
        tasks.model, tasks.loss,
        (images, {"digit": np.where(some, labels, -1), "ink": images[:, :1]}, {"digit": some}),
    ),
    "transfer": (transfer.tuned, transfer.loss, (images.reshape(6, 8, 8, 1), transfer.HOLES[labels])),
    "graph_network": (graphs.model, graphs.loss, graph()),
}  # fmt: skip


@pytest.mark.parametrize("name", BATCHES)
def test_both_engines_give_one_gradient(x64, name):
    model, loss, batch = BATCHES[name]
    _agree(*(engine(model, loss) for engine in (fn.gradients.backprop, fn.gradients.autodiff)), model, batch)


def test_both_engines_within_the_engines_of_their_own(x64):
    engines = fn.gradients.backprop, fn.gradients.autodiff
    by_adversary = (gan.adversarial(gan.model, gan.loss, engine=engine) for engine in engines)
    _agree(*by_adversary, gan.model, (drawn(like(5, gan.SIZE)), drawn(like(5, 2), 1)))
    through_training = (maml.meta(maml.net, maml.loss, steps=2, engine=engine) for engine in engines)
    _agree(*through_training, maml.net, _wide(maml.waves(0, 3, points=4)), like(4, 1))


def _wide(tree):
    return jax.tree.map(
        lambda leaf: jnp.asarray(leaf, jnp.float64) if leaf.dtype.kind == "f" else jnp.asarray(leaf), tree
    )


def _agree(by_hand, by_autodiff, model, batch, x=None):
    """Two gradients at one point, in float64."""
    batch = _wide(batch)
    params, state = model.init(jax.random.key(0), batch[0] if x is None else drawn(x))
    a, b = (jax.jit(gradient)(params, state, batch, jax.random.key(1)) for gradient in (by_hand, by_autodiff))
    assert norm_relative(a.loss, b.loss) < 1e-12
    assert jax.tree.leaves(a.grads)[0].dtype == jnp.float64
    assert all(np.any(leaf) for leaf in jax.tree.leaves(a.grads))
    assert worst_leaf(a.grads, b.grads) < 1e-12


# What they compute.


def test_the_code_is_drawn_in_training_alone():
    layer, x = vae.draw(), jnp.array([[3.0, -1.0, 0.0, 2 * np.log(5.0)]])  # μ = (3, −1), σ = (1, 5)
    np.testing.assert_array_equal(layer.apply((), (), x)[0], [[3.0, -1.0]])
    many = jax.vmap(lambda key: layer.apply((), (), x, key=key, train=True)[0][0])(
        jax.random.split(jax.random.key(0), 4000)
    )
    np.testing.assert_allclose(many.mean(0), [3, -1], atol=0.3)
    np.testing.assert_allclose(many.std(0), [1, 5], rtol=0.05)


def test_the_divergence_of_two_normal_distributions(x64):
    """Against the integral of q log(q / p), on a grid."""
    z, width = np.linspace(-30, 30, 200001, retstep=True)

    def density(mean, deviation):
        return np.exp(-(((z - mean) / deviation) ** 2) / 2) / (deviation * np.sqrt(2 * np.pi))

    q, p = density(0.7, 1.5), density(0, 1)
    found = vae.divergence(jnp.array([[0.7, 2 * np.log(1.5)]]), None)
    np.testing.assert_allclose(found, np.sum(q * (np.log(q + 1e-300) - np.log(p + 1e-300))) * width, rtol=1e-6)


def test_nt_xent_by_hand(x64):
    pairs = np.array([[[1.0, 0.0], [2.0, 0.0]], [[0.0, 1.0], [0.0, 5.0]]])
    # Two directions at a right angle: of three others the partner has the cosine 1 and the rest 0.
    e = np.exp(1 / 0.5)
    np.testing.assert_allclose(siamese.nt_xent(jnp.array(pairs), None), np.log((e + 2) / e), rtol=1e-12)
    with pytest.raises(
        fn.errors.ShapeError, match=r"nt_xent: expected prediction of shape \(batch, 2, features\), got"
    ):
        next(fn.training.fit(fn.layers.dense(3), siamese.nt_xent, fn.optimizers.sgd(0.1), (images, None), epochs=1))


def test_the_weights_of_a_memory(x64):
    prediction, target = np.array([[1.0, 9.0], [9.0, 3.0]]), np.array([[0.5, 0.0], [0.0, 0.0]])
    loss = fn.losses.huber(
        prediction, target, where=np.array([[True, False], [False, True]]), weights=np.array([1.0, 0.25])
    )
    np.testing.assert_allclose(loss, (1.0 * 0.125 + 0.25 * 2.5) / 1.25)  # ½ 0.5², and 3 − ½


def test_a_pole_left_to_itself_falls():
    s = jnp.array([[0.0, 0.0, 0.1, 0.0]])
    steps = 0
    failed = False
    while not failed:
        s, fell = dqn.pushed(s, jnp.array([steps % 2]))  # pushed to and fro
        failed, steps = bool(fell[0]), steps + 1
    assert float(s[0, 2]) > 0.2095
    assert 10 < steps < 60


def test_the_curvature_is_that_of_the_network(x64):
    x = {"inside": np.array([[0.3], [-0.8]]), "edge": np.array([[1.0], [-1.0]])}
    params, state = physics.model.init(jax.random.key(0), x)
    found, _ = physics.model.apply(params, state, x)

    def u(x):
        return physics.net.apply(params, state, x)[0]

    h = 1e-4
    around = (u(x["inside"] + h) - 2 * u(x["inside"]) + u(x["inside"] - h)) / h**2
    np.testing.assert_allclose(found["inside"], -around, rtol=1e-5)
    np.testing.assert_array_equal(found["edge"], u(x["edge"]))


def test_meta_learning_differentiates_through_the_step(x64):
    """y = w x: one step from w on (x, y) = (1, 2) gives w + 0.02 (2 − w), judged on (3, 6): by hand."""
    model = fn.layers.dense(1, use_bias=False)
    x, target = ({"shown": jnp.array([[[a]]]), "asked": jnp.array([[[b]]])} for a, b in ((1.0, 3.0), (2.0, 6.0)))
    found = maml.meta(model, maml.loss)({"kernel": jnp.array([[1.0]])}, (), (x, target))
    w = 1 + 0.02 * (2 - 1)
    np.testing.assert_allclose(found.loss, (3 * w - 6) ** 2)
    np.testing.assert_allclose(found.grads["kernel"], [[2 * (3 * w - 6) * 3 * (1 - 0.02)]])


def test_distillation_is_a_sum_of_two_cross_entropies(x64):
    z, labels, chances = drawn(like(2, 3)), np.array([0, 2]), np.full((2, 3), 1 / 3)
    heads = fn.layers.serial(distillation.taught.inside.layers[1])
    prediction, _ = heads.apply(*heads.init(jax.random.key(0), z), z)
    found = distillation.both(prediction, {"label": labels, "chances": chances})

    def log_softmax(z):
        return z - np.log(np.exp(z).sum(1, keepdims=True))

    hard, soft = -log_softmax(z)[[0, 1], labels].mean(), -(chances * log_softmax(z / 4)).sum(1).mean()
    np.testing.assert_allclose(found, 0.1 * hard + 0.9 * 16 * soft)


def test_a_label_that_is_not_known_is_not_read():
    gradient = fn.gradients.backprop(tasks.model, tasks.loss)
    x, ink = jnp.asarray(images, jnp.float32), jnp.zeros((6, 1))
    params, state = tasks.model.init(jax.random.key(0), x)
    one, other = (
        gradient(params, state, (x, {"digit": jnp.where(some, labels, unknown), "ink": ink}, {"digit": some})).grads
        for unknown in (-1, 7)
    )
    jax.tree.map(np.testing.assert_array_equal, one, other)


def test_only_the_new_head_moves():
    x = np.tile(images.reshape(6, 8, 8, 1), (5, 1, 1, 1)).astype(np.float32)
    start = fn.training.create_state(transfer.tuned, transfer.head_alone, 0, x)
    last = transfer.trained(transfer.tuned, transfer.head_alone, (x, np.tile(transfer.HOLES[labels], 5)), 3, start)
    for before, after in ((start.optimizer.params, last.optimizer.params), (start.model, last.model)):
        jax.tree.map(np.testing.assert_array_equal, before["trunk"], after["trunk"])
    assert np.any(start.optimizer.params["head"]["kernel"] != last.optimizer.params["head"]["kernel"])


def test_what_fills_up_a_batch_of_graphs_changes_nothing():
    gradient = fn.gradients.backprop(graphs.model, graphs.loss)
    x, target, where = graph()
    params, state = graphs.model.init(jax.random.key(0), x)
    filling = x["graph"] == graphs.GRAPHS - 1
    assert 0 < filling.sum() < len(filling)
    rubbish = {**x, "nodes": np.where(filling[:, None], np.float32(100), x["nodes"])}
    one, other = (gradient(params, state, (nodes, target, where)) for nodes in (x, rubbish))
    np.testing.assert_array_equal(one.loss, other.loss)
    jax.tree.map(np.testing.assert_array_equal, one.grads, other.grads)


def test_the_number_of_edges_between_nodes_of_one_colour():
    x, target, where = graph()
    for g in np.flatnonzero(where):
        edges = [
            np.argmax(x["nodes"][a]) == np.argmax(x["nodes"][b])
            for a, b in zip(x["senders"], x["receivers"], strict=True)
            if x["graph"][a] == g
        ]
        assert sum(edges) == target[g, 0]


# How long they are.

# Code lines of the same with flax.nnx and optax, in November 2026. Of the network with physics and the GAN without the
# data, which those programs took from elsewhere; ours have them.
WITH_FLAX = {"variational_autoencoder": 34, "gan": 29, "physics_informed": 20, "distillation": 32, "two_tasks": 32}


def test_what_a_code_line_is():
    assert (
        code_lines(
            '"""Text\n\nof two."""\nimport a\n\n\ndef f(\n    x,  # x\n):\n    """Text."""\n    # more\n    return x\n'
        )
        == 4
    )


@pytest.mark.parametrize("name", WITH_FLAX)
def test_they_are_no_longer_than_with_flax(name):
    assert code_lines((EXAMPLES / f"{name}.py").read_text("utf-8")) <= WITH_FLAX[name]


@pytest.mark.parametrize("name", MODELS)
def test_they_use_public_parts_alone(name):
    nodes = list(ast.walk(ast.parse((EXAMPLES / f"{name}.py").read_text("utf-8"))))
    for node in nodes:
        if isinstance(node, ast.ImportFrom):
            assert node.module == "funcnet.layers"
            assert {one.name for one in node.names} <= set(fn.layers.__all__)
    parts = [node for node in nodes if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Attribute)]
    used = {(part.value.attr, part.attr) for part in parts if ast.unparse(part.value.value) == "fn"}
    assert used
    assert [part for part in used if part[1] not in getattr(fn, part[0]).__all__] == []
