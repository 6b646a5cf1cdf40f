"""The restricted Boltzmann machine, contrastive divergence, stacking, and what they promise."""

import itertools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import quick_jit, worst_leaf

from funcnet import data, initializers, layers, losses, metrics, models, optimizers, pretraining, training
from funcnet.errors import ConfigError, DataError, DtypeError, MissingKeyError, ShapeError, StructureError
from funcnet.pretraining import contrastive_divergence, dream, gibbs, greedy, rbm, stack, train

KEY = jax.random.key(0)


# The machine


def machine_and_params(visible="binary", sizes=(4, 3), chains=0, scale=1.0):
    machine = rbm(sizes[1], visible=visible, chains=chains)
    rng = np.random.default_rng(2)
    shapes = {"kernel": sizes, "visible_bias": sizes[:1], "hidden_bias": sizes[1:]}
    return machine, {leaf: jnp.asarray(scale * rng.normal(size=shape)) for leaf, shape in shapes.items()}


def states(n):
    """All rows of n zeros and ones."""
    return np.array(list(itertools.product([0.0, 1.0], repeat=n)))


def energies(visible, params, v, h):
    """E(v, h) for each v with each h, by NumPy and loops, as the formula stands."""
    W, b, c = (np.asarray(params[leaf]) for leaf in ("kernel", "visible_bias", "hidden_bias"))
    own = {"binary": lambda v: -v @ b, "gaussian": lambda v: ((v - b) ** 2).sum() / 2}[visible]
    return np.array([[own(one) - other @ c - one @ W @ other for other in h] for one in v])


def rows_for(visible):
    return states(4) if visible == "binary" else np.random.default_rng(3).normal(size=(6, 4))


both_kinds = pytest.mark.parametrize("visible", ["binary", "gaussian"])


@both_kinds
def test_energies_by_enumeration(x64, visible):
    machine, params = machine_and_params(visible)
    v, h = rows_for(visible), states(3)
    energy = energies(visible, params, v, h)
    pairs = np.repeat(v, len(h), 0), np.tile(h, (len(v), 1))

    @quick_jit
    def run(params):
        each = machine.energy(params, *map(jnp.asarray, pairs))
        return each, machine.free_energy(params, v), machine.hidden(params, v), machine.visible(params, h)

    each, free, hidden, mean = run(params)
    np.testing.assert_allclose(each, energy.ravel(), rtol=1e-13)
    np.testing.assert_allclose(free, -np.log(np.exp(-energy).sum(1)), rtol=1e-13)
    given_v = np.exp(-energy) / np.exp(-energy).sum(1, keepdims=True)
    np.testing.assert_allclose(hidden, given_v @ h, rtol=1e-13)
    given_h = np.exp(-energy) / np.exp(-energy).sum(0)
    gaussian = np.asarray(params["visible_bias"]) + h @ np.asarray(params["kernel"]).T
    np.testing.assert_allclose(mean, given_h.T @ v if visible == "binary" else gaussian, rtol=1e-13)


@both_kinds
def test_units_are_drawn_from_their_distributions(visible):
    machine, params = machine_and_params(visible)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    v, h = jnp.full((20_000, 4), 0.5), jnp.full((20_000, 3), 1.0)
    for drawn, mean in (
        (machine.sample_hidden(KEY, params, v), machine.hidden(params, v)[0]),
        (machine.sample_visible(KEY, params, h), machine.visible(params, h)[0]),
    ):
        binary = drawn.shape[1] == 3 or visible == "binary"
        variance = mean * (1 - mean) if binary else jnp.ones_like(mean)
        assert set(np.unique(drawn)) == {0, 1} if binary else len(np.unique(drawn)) > 1000
        np.testing.assert_allclose(drawn.mean(0), mean, atol=0.03)
        np.testing.assert_allclose(drawn.var(0), variance, atol=0.04)


@both_kinds
def test_the_gradient_of_the_free_energy_is_that_of_autodiff(x64, visible):
    machine, params = machine_and_params(visible)
    v, weights = (
        jnp.asarray(rows_for(visible)),
        jnp.asarray(np.random.default_rng(4).normal(size=len(rows_for(visible)))),
    )
    by_autodiff = quick_jit(jax.grad(lambda params: weights @ machine.free_energy(params, v)))(params)
    assert worst_leaf(quick_jit(machine.free_energy_gradient)(params, v, weights), by_autodiff) <= 1e-13


# Contrastive divergence


@both_kinds
@pytest.mark.parametrize("chains", [0, 5])
@pytest.mark.parametrize("where", [None, (True, False, True, True)])
def test_contrastive_divergence_is_the_gradient_of_a_gap(x64, visible, chains, where):
    """That of the free energies of the data and of what the chains reached, which is held fixed."""
    machine, params = machine_and_params(visible, chains=chains)
    v = jnp.asarray(rows_for(visible)[2:6])
    state = machine.init(KEY, v)[1]
    batch = (v, None) if where is None else (v.at[1].set(jnp.nan), None, jnp.array(where))
    got = quick_jit(contrastive_divergence(machine, steps=3))(params, state, batch, KEY)
    data_rows = v if where is None else v[jnp.array([0, 2, 3])]
    reached = got.prediction if where is None or chains else got.prediction[jnp.array([0, 2, 3])]

    def gap(params):
        return machine.free_energy(params, data_rows).mean() - machine.free_energy(params, reached).mean()

    value, grads = quick_jit(jax.value_and_grad(gap))(params)
    assert worst_leaf(got.grads, grads) <= 1e-13
    assert float(got.loss) == pytest.approx(float(value), rel=1e-12)
    assert got.prediction.shape == (chains or 4, 4)
    assert got.state == () if not chains else (got.state == got.prediction).all()


def exact_gradient(params, v):
    """Of the mean of −log p(v), all of it by enumeration."""
    units, h = states(4), states(3)
    joint = np.exp(-energies("binary", params, units, h))
    p = joint.sum(1) / joint.sum()
    given = [-np.array([[np.outer(one, other) for other in h] for one in units]), -units[:, None], -h[None]]
    slopes = [np.broadcast_to(g, (16, 8, *g.shape[2:])) for g in given]  # ∂E/∂W, ∂E/∂b, ∂E/∂c of each pair
    of_v = [np.einsum("vh,vh...->v...", joint / joint.sum(1, keepdims=True), slope) for slope in slopes]  # ∂F/∂…
    rows = [int("".join(str(int(bit)) for bit in one), 2) for one in v]
    leaves = [slope[rows].mean(0) - np.einsum("v,v...->...", p, slope) for slope in of_v]
    return dict(zip(("kernel", "visible_bias", "hidden_bias"), leaves, strict=True))


def test_more_steps_come_closer_to_the_likelihood(x64):
    machine, params = machine_and_params()
    v = states(4)[[3, 3, 7, 11]]
    exact = exact_gradient(params, v)
    # The exact phases first: with all states and their probabilities the hand-derived gradient is the likelihood's.
    units = jnp.asarray(states(4))
    p = jax.nn.softmax(-machine.free_energy(params, units))
    phases = [machine.free_energy_gradient(params, jnp.asarray(v), np.full(4, 0.25))]
    phases += [machine.free_energy_gradient(params, units, p)]
    assert worst_leaf(jax.tree.map(jnp.subtract, *phases), exact) <= 1e-13

    many = jnp.asarray(np.tile(v, (10_000, 1)))  # 40,000 chains, whose mean is off by about 0.005

    def distance(steps):
        grads = quick_jit(contrastive_divergence(machine, steps))(params, (), (many, None), KEY).grads
        return max(float(jnp.abs(grads[leaf] - exact[leaf]).max()) for leaf in exact)

    near, far = distance(30), distance(1)
    assert near < 0.01
    assert far > 5 * near


def test_steps_and_keys():
    machine, params = machine_and_params(chains=3)
    params = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), params)
    v = jnp.asarray(states(4), jnp.float32)
    assert (gibbs(machine, KEY, params, v, 0) == v).all()
    once = gibbs(machine, KEY, params, v, 1)
    assert (once == gibbs(machine, KEY, params, v, 1)).all()
    assert (once != gibbs(machine, jax.random.key(1), params, v, 1)).any()
    hidden_key, visible_key = jax.random.split(jax.random.fold_in(KEY, 0))
    assert (once == machine.sample_visible(visible_key, params, machine.sample_hidden(hidden_key, params, v))).all()
    assert machine.init(KEY, v)[1].shape == (3, 4)


@pytest.mark.parametrize(
    "optimizer",
    [
        optimizers.sgd(0.1), optimizers.sgd(0.1, momentum=0.5, nesterov=True), optimizers.adagrad(0.1),
        optimizers.rmsprop(0.1), optimizers.adam(0.1), optimizers.adamw(0.1),
        optimizers.decayed(optimizers.clipped(optimizers.sgd(0.1), norm=1.0), 1e-4),
        optimizers.averaged(optimizers.sgd(0.1), 0.9),
        optimizers.guarded(optimizers.sgd(0.1)),
    ],
)  # fmt: skip
@pytest.mark.parametrize("chains", [0, 3])
def test_any_optimizer_takes_the_gradient(optimizer, chains):
    machine = rbm(2, chains=chains)
    v = jax.ShapeDtypeStruct((4, 3), jnp.float32)
    state = jax.eval_shape(lambda: training.create_state(machine, optimizer, KEY, v))
    step = training.train_step(contrastive_divergence(machine), optimizer)
    after, metrics = jax.eval_shape(step, state, (v, None))
    assert after == state
    assert metrics["loss"].shape == ()


@pytest.mark.parametrize("chains, optimizer", [(0, optimizers.sgd(0.1, momentum=0.5)), (8, optimizers.adam(0.02))])
def test_two_patterns_are_learned(chains, optimizer):
    """Of 6 units in two blocks that are equal within; the exact likelihood rises, as the pseudo-likelihood says."""
    machine = rbm(4, chains=chains)
    v = np.repeat(states(2), 3, 1).astype(np.float32)[[1, 2] * 10]
    units = jnp.asarray(states(6), jnp.float32)

    @quick_jit
    def scores(params):
        log_z = jax.nn.logsumexp(-machine.free_energy(params, units))
        return -machine.free_energy(params, v).mean() - log_z, pretraining.pseudo_log_likelihood(machine, params, v)

    reports = list(train(machine, optimizer, v, epochs=150, batch_size=10))
    (first, first_told), (last, last_told) = (scores(report.state.optimizer.params) for report in reports[::149])
    assert first < -3  # 6 log ½ is -4.2
    assert last > -2  # log ½ is -0.7
    assert first_told < -3 < -1 < last_told
    assert reports[-1].metrics["reconstruction_error"] < 0.1 < reports[0].metrics["reconstruction_error"]


def test_pseudo_likelihood_by_enumeration(x64):
    machine, params = machine_and_params()
    F = dict(zip(map(tuple, states(4)), np.asarray(machine.free_energy(params, states(4))), strict=True))
    v = states(4)[[2, 5, 15]]
    total = 0
    for row in map(tuple, v):
        for i in range(4):
            flipped = (*row[:i], 1 - row[i], *row[i + 1 :])
            total += np.log(np.exp(-F[row]) / (np.exp(-F[row]) + np.exp(-F[flipped])))
    assert float(pretraining.pseudo_log_likelihood(machine, params, jnp.asarray(v))) == pytest.approx(
        total / 3, rel=1e-13
    )


# Training


def test_a_run_goes_on_where_it_was():
    machine, optimizer = rbm(5, chains=3), optimizers.adam(0.01)
    v = data.digits()[0][:50]
    *_, whole = train(machine, optimizer, v, epochs=3, batch_size=20, key=3)
    *_, half = train(machine, optimizer, v, epochs=1, batch_size=20, key=3)
    (second, third) = train(machine, optimizer, v, epochs=3, batch_size=20, key=3, state=half.state)
    assert (half.epoch, second.epoch, third.epoch, third.step) == (1, 2, 3, 6)
    assert worst_leaf(third.state.optimizer, whole.state.optimizer) == 0
    assert worst_leaf(third.state.model, whole.state.model) == 0


def test_an_epoch_sees_each_row_once():
    """If all v_k are 0, db = −⟨v₀⟩: with rate 1 the bias counts how often each unit was on."""
    machine = rbm(1)
    machine = machine._replace(sample_visible=lambda key, params, h: jnp.zeros((len(h), 6)))
    *_, last = train(machine, optimizers.sgd(1.0), np.eye(6, dtype=np.float32)[:5], epochs=3, batch_size=1)
    np.testing.assert_allclose(last.state.optimizer.params["visible_bias"], [3, 3, 3, 3, 3, 0])


# Stacking


def sigmoid_units(params, v):
    return 1 / (1 + np.exp(-(v @ np.asarray(params["kernel"]) + np.asarray(params["hidden_bias"]))))


@pytest.fixture(scope="module")
def stacked():
    """Data, machines, an optimizer, and the machines' params."""
    v, machines, optimizer = data.digits()[0][:60], (rbm(5), rbm(4)), optimizers.sgd(0.1)
    return v, machines, optimizer, greedy(machines, optimizer, v, epochs=2, batch_size=20, key=1)


@pytest.mark.parametrize(
    "model, places",
    [
        (models.sigmoid_network((5, 4, 3)), (0, 2)),
        (models.mlp((5, 4, 3), activation=layers.sigmoid), (0, 2)),
        (models.mlp((5, 4, 3), activation=layers.sigmoid, dropout=0.5), (0, 3)),
    ],
    ids=["sigmoid_network", "mlp", "dropout"],
)
def test_a_stack_fits_a_network(stacked, model, places):
    v, _, _, trained = stacked
    params, state = jax.jit(model.init)(KEY, v)
    started = stack(model, params, trained)
    assert jax.tree.structure(started) == jax.tree.structure(params)
    assert jax.tree.map(lambda leaf: (leaf.shape, leaf.dtype), started) == jax.tree.map(
        lambda leaf: (leaf.shape, leaf.dtype), params
    )
    for place, machine_params in zip(places, trained, strict=True):
        assert started[place]["kernel"] is machine_params["kernel"]
        assert started[place]["bias"] is machine_params["hidden_bias"]
    for place in set(range(len(params))) - set(places):
        assert started[place] is params[place]
    depth = places[1] + 2  # up to the sigmoid behind the second dense layer
    y, _ = layers.serial(*model.inside.layers[:depth]).apply(started[:depth], state[:depth], v)
    np.testing.assert_allclose(y, sigmoid_units(trained[1], sigmoid_units(trained[0], v)), rtol=1e-5)


def test_each_machine_learns_what_the_one_below_sees(stacked):
    v, machines, optimizer, trained = stacked
    for i, machine in enumerate(machines):
        key = jax.random.fold_in(jax.random.key(1), i)
        *_, last = train(machine, optimizer, v, epochs=2, batch_size=20, key=key)
        assert worst_leaf(trained[i], last.state.optimizer.params) == 0
        v = machine.hidden(trained[i], v)


def test_dreams_are_of_what_was_seen():
    """Two patterns and a machine on top of a machine: a dream is one of them, and both are dreamt."""
    v = np.repeat(np.array([[1, 0], [0, 1]] * 20, np.float32), 4, 1)
    machines = rbm(6), rbm(4)
    trained = greedy(machines, optimizers.adam(0.05), v, epochs=60, batch_size=10)
    dreams = np.asarray(dream(machines, trained, KEY, 200, steps=50))
    assert dreams.shape == (200, 8)
    assert 0 <= dreams.min() < dreams.max() <= 1
    left, right = dreams[:, :4].mean(1), dreams[:, 4:].mean(1)
    assert (abs(left - right) > 0.5).mean() > 0.8
    assert 0.1 < (left > right).mean() < 0.9


def test_pretraining_helps_a_deep_network_with_few_labels():
    """Three sigmoid layers, 30 labelled digits: what examples/pretraining.py measures, on one draw and one start."""
    (x, labels), test = data.split(*data.digits(), fractions=(1000 / 1797, 797 / 1797), stratified=True)
    few, _ = data.split(x, labels, fractions=(30 / 1000, 970 / 1000), seed=1, stratified=True)
    trained = greedy([rbm(64)] * 3, optimizers.sgd(0.1, momentum=0.5), x, epochs=25, batch_size=20)
    model = models.mlp((64, 64, 64, 10), activation=layers.sigmoid, kernel_init=initializers.xavier_normal())
    loss, optimizer = losses.softmax_cross_entropy, optimizers.adam(1e-2)
    found = {}
    for name, below in {"random": (), "pretrained": trained}.items():
        state = training.create_state(model, optimizer, 0, x)
        state = state._replace(optimizer=optimizer.init(stack(model, state.optimizer.params, below)))
        *_, last = training.fit(model, loss, optimizer, few, state=state, epochs=100, report_steps=100)
        params, model_state = last.state.optimizer.params, last.state.model
        result = training.evaluate(model, loss, params, model_state, test, metrics={"right": metrics.accuracy()})
        found[name] = float(result["right"])
    assert found["pretrained"] > 0.7
    assert found["pretrained"] > found["random"] + 0.02


# Refusals

V = jnp.full((2, 4), 0.5)
BINARY, PARAMS = machine_and_params()
PARAMS = jax.tree.map(lambda leaf: leaf.astype(jnp.float32), PARAMS)
NETWORK = models.mlp((3, 2), activation=layers.sigmoid)


def network_params(width=4, dtype=jnp.float32):
    return NETWORK.init(KEY, jnp.ones((1, width), dtype))[0]


@pytest.mark.parametrize(
    "error, message, call",
    [
        (ConfigError, r"rbm\(0\): expected hidden to be a positive integer, got 0", lambda: rbm(0)),
        (ConfigError, r"rbm\(2, visible='real'\): expected visible to be \"binary\" or \"gaussian\"",
         lambda: rbm(2, visible="real")),
        (ConfigError, r"rbm\(2, chains=-1\): expected chains to be an integer >= 0", lambda: rbm(2, chains=-1)),
        (DataError, r"rbm\(3\): expected v of binary units in \[0, 1\], got 1.5 at \[0, 2\]; scale it, "
         r"or use visible=\"gaussian\"",
         lambda: BINARY.hidden(PARAMS, V.at[0, 2].set(1.5))),
        (DataError, r"rbm\(3\): expected v of binary units in \[0, 1\], got nan at \[1, 0\]",
         lambda: BINARY.init(KEY, V.at[1, 0].set(jnp.nan))),
        (DataError, r"rbm\(3\): expected v of binary units in \[0, 1\], got -1.0",
         lambda: next(train(BINARY, optimizers.sgd(0.1), -2 * V, epochs=1, batch_size=1))),
        (DataError, r"greedy\[0\] rbm\(3\): expected v of binary units in \[0, 1\]",
         lambda: greedy([BINARY], optimizers.sgd(0.1), -V, epochs=1, batch_size=1)),
        (DataError, r"rbm\(3\): expected v of binary units in \[0, 1\]",
         lambda: contrastive_divergence(BINARY)(PARAMS, (), (V + 1, None), KEY)),
        (ShapeError, r"rbm\(3\): expected v of shape \(batch, 4\), got \(2, 5\)",
         lambda: BINARY.free_energy(PARAMS, jnp.ones((2, 5)))),
        (ShapeError, r"rbm\(3\): expected h of shape \(batch, 3\), got \(2, 4\)", lambda: BINARY.visible(PARAMS, V)),
        (ShapeError, r"rbm\(3\): expected v of shape \(batch, visible\), got \(4,\)", lambda: BINARY.init(KEY, V[0])),
        (ShapeError, r"rbm\(2\): expected params\['kernel'\] of shape \(4, 2\) for x of shape \(2, 4\), got \(4, 3\)",
         lambda: rbm(2).hidden(PARAMS, V)),
        (StructureError, r"rbm\(3\): expected params with the leaves \['hidden_bias', 'kernel', 'visible_bias'\]",
         lambda: BINARY.hidden({"kernel": PARAMS["kernel"]}, V)),
        (StructureError, r"rbm\(3\): expected params with the leaves", lambda: BINARY.hidden(V, V)),
        (DtypeError, r"rbm\(3\): expected v of a floating dtype, got an array of dtype int32",
         lambda: BINARY.init(KEY, jnp.ones((2, 4), int))),
        (DtypeError, r"rbm\(3\): expected v of a floating dtype, got an array of dtype int32",
         lambda: BINARY.hidden(PARAMS, jnp.ones((2, 4), int))),
        (DtypeError, r"rbm\(3\): expected x of dtype float32.* got bfloat16",
         lambda: BINARY.hidden(PARAMS, V.astype(jnp.bfloat16))),
        (DtypeError, r"rbm\(3\): expected v of a floating dtype, got a list",
         lambda: BINARY.hidden(PARAMS, [[0.0, 1.0, 0.0, 1.0]])),
        (DtypeError, r"^train: expected x of a floating dtype, .* scale images to \[0, 1\]\.$",
         lambda: next(train(BINARY, optimizers.sgd(0.1), np.ones((2, 4), int), epochs=1, batch_size=1))),
        (ConfigError, r"contrastive_divergence\(rbm\(3\), steps=0\): expected steps to be a positive integer",
         lambda: contrastive_divergence(BINARY, 0)),
        (MissingKeyError, r"contrastive_divergence\(rbm\(3\)\): it draws random numbers, got key=None",
         lambda: contrastive_divergence(BINARY)(PARAMS, (), (V, None))),
        (DtypeError, r"contrastive_divergence.*: expected batch to be \(x, target\)",
         lambda: contrastive_divergence(BINARY)(PARAMS, (), V, KEY)),
        (ConfigError, r"pseudo_log_likelihood: expected a machine with binary visible units, got rbm\(3, visible='g",
         lambda: pretraining.pseudo_log_likelihood(rbm(3, visible="gaussian"), PARAMS, V)),
        (ConfigError, r"gibbs: expected steps to be an integer >= 0, got -1",
         lambda: gibbs(BINARY, KEY, PARAMS, V, -1)),
        (ConfigError, r"train: expected epochs to be a positive integer, got 0",
         lambda: next(train(BINARY, optimizers.sgd(0.1), V, epochs=0, batch_size=1))),
        (DataError, r"steps_per_epoch: expected batch_size to be at most 2",
         lambda: next(train(BINARY, optimizers.sgd(0.1), V, epochs=1, batch_size=3))),
        (ConfigError, r"greedy: expected machines of pretraining.rbm, at least one, got \(\)",
         lambda: greedy([], optimizers.sgd(0.1), V, epochs=1, batch_size=1)),
        (ConfigError, r"dream: expected machines of pretraining.rbm", lambda: dream([PARAMS], [PARAMS], KEY, 1)),
        (ConfigError, r"stack: expected a model that begins with 2 dense layers, each followed by a sigmoid, got s",
         lambda: stack(NETWORK, network_params(), [PARAMS, PARAMS])),
        (ConfigError, r"stack: expected a model that begins with 1 dense layers",
         lambda: stack(models.mlp((3, 2)), network_params(), [PARAMS])),
        (StructureError, r"stack: expected params of serial\(.*, one entry per layer",
         lambda: stack(NETWORK, PARAMS, [PARAMS])),
        (ShapeError, r"stack: expected 0/kernel of shape \(4, 3\) as the machine has, got \(5, 3\)",
         lambda: stack(NETWORK, network_params(5), [PARAMS])),
        (DtypeError, r"stack: expected 0/kernel of dtype float32 as the machine has, got bfloat16",
         lambda: stack(NETWORK, network_params(4, jnp.bfloat16), [PARAMS])),
    ],
)  # fmt: skip
def test_refusals(error, message, call):
    with pytest.raises(error, match=message):
        call()


def test_a_machine_prints_as_the_call_that_made_it():
    assert repr(rbm(8, visible="gaussian", chains=4)) == "rbm(8, visible='gaussian', chains=4)"
