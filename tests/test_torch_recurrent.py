"""Recurrences against torch's own, in float64: values, last states and gradients.

Runs where torch is installed (the extra `bench`): `pytest -m peers tests/test_torch_recurrent.py`.
"""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnet import layers
from funcnet.types import Padded

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.peers

NN = torch.nn
MAKERS = {
    "rnn": (layers.rnn, NN.RNN),
    "relu": (lambda *a, **options: layers.rnn(*a, activation="relu", **options), NN.RNN),
    "lstm": (layers.lstm, NN.LSTM),
    "gru": (layers.gru, NN.GRU),
}
SIZES = [(1, 1, 1, 1), (3, 7, 2, 5), (2, 4, 6, 3)]  # batch, time, in, features
ROWS = list(product(MAKERS, (1, 2), (False, True), (False, True), SIZES))


def model_of(make, count, both, features, use_bias):
    """As many layers one after the other, each in one direction or in both."""
    layer = make(features, use_bias=use_bias)
    return layers.serial(*[layers.bidirectional(layer) if both else layer] * count)


def weights_of(kind, params, use_bias):
    """The four arrays of one layer in one direction as torch has them."""
    features = params["recurrent_kernel"].shape[0]
    first = params.get("bias", np.zeros(params["kernel"].shape[1]))
    second = np.zeros(first.shape)
    if kind == "gru" and use_bias:
        second[2 * features :] = params["recurrent_bias"]
    weights = {"weight_ih": np.asarray(params["kernel"]).T, "weight_hh": np.asarray(params["recurrent_kernel"]).T}
    return weights | ({"bias_ih": np.asarray(first), "bias_hh": second} if use_bias else {})


def directions(params, both):
    """Each layer and direction with the end of the names that torch gives it."""
    for i, layer in enumerate(params):
        yield from (
            [(f"_l{i}", layer["forward"]), (f"_l{i}_reverse", layer["backward"])] if both else [(f"_l{i}", layer)]
        )


def test_the_table_is_long():
    assert len(ROWS) >= 60


@pytest.mark.parametrize("lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("kind, count, both, use_bias, size", ROWS)
def test_torch_agrees(x64, kind, count, both, use_bias, size, lengths):
    batch, time, width, features = size
    make, module = MAKERS[kind]
    random = np.random.default_rng(0)
    values = random.normal(size=(batch, time, width))
    long = np.sort(random.integers(1, time + 1, batch))[::-1].copy()
    where = jnp.asarray(np.arange(time) < long[:, None])
    x = Padded(jnp.asarray(values), where) if lengths else jnp.asarray(values)
    model = model_of(make, count, both, features, use_bias)
    params, state = model.init(jax.random.key(0), x)
    params = jax.tree.map(lambda leaf: leaf + 0.3 * random.normal(size=leaf.shape), params)

    options = {"nonlinearity": "relu" if kind == "relu" else "tanh"} if module is NN.RNN else {}
    theirs = module(width, features, count, bias=use_bias, batch_first=True, bidirectional=both, **options).double()
    for end, own in directions(params, both):
        for name, array in weights_of(kind, own, use_bias).items():
            getattr(theirs, name + end).data = torch.tensor(np.array(array))
    their_x = torch.tensor(values, requires_grad=True)
    packed = NN.utils.rnn.pack_padded_sequence(their_x, long, batch_first=True) if lengths else their_x
    their_y, _ = theirs(packed)
    if lengths:
        their_y, _ = NN.utils.rnn.pad_packed_sequence(their_y, batch_first=True, total_length=time)

    y, _, residuals = model.forward(params, state, x)
    close(y.values if lengths else y, their_y.detach().numpy())
    dy = random.normal(size=their_y.shape) * (np.asarray(where)[..., None] if lengths else 1)
    their_y.backward(torch.tensor(dy))
    dparams, dx = model.backward(params, residuals, jnp.asarray(dy))
    close(dx, their_x.grad.numpy())
    for end, own in directions(dparams, both):
        gradients = {name: getattr(theirs, name + end).grad.numpy() for name in weights_of(kind, own, use_bias)}
        close(own["kernel"].T, gradients["weight_ih"])
        close(own["recurrent_kernel"].T, gradients["weight_hh"])
        if use_bias:
            close(own["bias"], gradients["bias_ih"])
        if use_bias and kind == "gru":
            close(own["recurrent_bias"], gradients["bias_hh"][2 * features :])


def close(ours, theirs):
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape
    assert np.linalg.norm(ours - theirs) <= 1e-10 * max(np.linalg.norm(theirs), 1e-300)
