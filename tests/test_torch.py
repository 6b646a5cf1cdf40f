"""Values and gradients against torch's own layers, in float64: an implementation that shares nothing with this one.

Runs where torch is installed (the extra `bench`): `pytest -m peers tests/test_torch.py`.
"""

from itertools import product

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnet import layers

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.peers

NN = torch.nn


def channels_first(a):
    return np.moveaxis(np.asarray(a), -1, 1)


def channels_last(a):
    return np.moveaxis(np.asarray(a), 1, -1)


def kernel_to_torch(kernel):
    """(*window, in, out) -> (out, in, *window)"""
    return np.moveaxis(np.asarray(kernel), (-1, -2), (0, 1))


def transposed_kernel_to_torch(kernel):
    """(*window, in, out) -> (in, out, *window)"""
    return np.moveaxis(np.asarray(kernel), (-2, -1), (0, 1))


def as_is(a):
    return np.asarray(a)


DENSE = {"kernel": ("weight", lambda kernel: np.asarray(kernel).T), "bias": ("bias", as_is)}
CONV = {"kernel": ("weight", kernel_to_torch), "bias": ("bias", as_is)}
TRANSPOSED = {"kernel": ("weight", transposed_kernel_to_torch), "bias": ("bias", as_is)}
NORM = {"scale": ("weight", as_is), "bias": ("bias", as_is)}
PRELU = {"negative_slope": ("weight", lambda a: np.asarray(a).reshape(1))}


def table():
    """name -> (funcnet's layer, torch's, shape of x with the channels last, where the parameters go, train)"""
    rows = {}

    def add(layer, module, shape, places=None, train=False):
        rows[f"{layer} {shape}{' training' if train else ''}"] = (layer, module, shape, places or {}, train)

    conv = {1: NN.Conv1d, 2: NN.Conv2d, 3: NN.Conv3d}
    size = {1: (9,), 2: (7, 8), 3: (5, 4, 6)}
    for axes, k, s, p, d, groups in product((1, 2), (1, 2, 3), (1, 2), (0, 1, 2), (1, 2), (1, 2)):
        layer = layers.conv(4, (k,) * axes, strides=s, padding=p, dilation=d, groups=groups)
        module = conv[axes](4, 4, k, stride=s, padding=p, dilation=d, groups=groups)
        add(layer, module, (2, *size[axes], 4), CONV)
    for k, s, p, groups in product((2, 3), (1, 2), (0, 1), (1, 3)):
        layer = layers.conv(3, (k, k, k), strides=s, padding=p, groups=groups)
        add(layer, conv[3](3, 3, k, stride=s, padding=p, groups=groups), (2, *size[3], 3), CONV)
    for window, strides, padding, dilation in (((3, 2), (1, 2), (2, 0), (1, 3)), ((1, 5), (3, 1), (0, 2), (2, 1))):
        layer = layers.conv(40, window, strides=strides, padding=padding, dilation=dilation, use_bias=False)
        module = conv[2](3, 40, window, stride=strides, padding=padding, dilation=dilation, bias=False)
        add(layer, module, (3, 8, 9, 3), CONV)
    for multiplier, s in product((1, 2), (1, 2)):
        layer = layers.depthwise_conv(3, multiplier=multiplier, strides=s, padding=1)
        add(layer, conv[2](4, 4 * multiplier, 3, stride=s, padding=1, groups=4), (2, 6, 7, 4), CONV)
    transposed = {1: NN.ConvTranspose1d, 2: NN.ConvTranspose2d, 3: NN.ConvTranspose3d}
    for axes, k, s, p, d in product((1, 2), (2, 3), (1, 2, 3), (0, 1), (1, 2)):
        layer = layers.conv_transpose(3, (k,) * axes, strides=s, padding=p, dilation=d)
        add(layer, transposed[axes](4, 3, k, stride=s, padding=p, dilation=d), (2, *size[axes][:axes], 4), TRANSPOSED)
    add(
        layers.conv_transpose(2, (2, 2, 2), strides=2, padding=0),
        transposed[3](3, 2, 2, stride=2),
        (2, 3, 2, 3, 3),
        TRANSPOSED,
    )

    max_pool = {1: NN.MaxPool1d, 2: NN.MaxPool2d, 3: NN.MaxPool3d}
    avg_pool = {1: NN.AvgPool1d, 2: NN.AvgPool2d, 3: NN.AvgPool3d}
    for axes, k, s, p in product((1, 2, 3), (2, 3), (1, 2, 3), (0, 1)):
        shape = (2, *size[axes], 3)
        add(layers.max_pool((k,) * axes, strides=s, padding=p), max_pool[axes](k, stride=s, padding=p), shape)
        for counted in (True, False):
            layer = layers.avg_pool((k,) * axes, strides=s, padding=p, count_include_pad=counted)
            add(layer, avg_pool[axes](k, stride=s, padding=p, count_include_pad=counted), shape)
    add(layers.max_pool(2), NN.MaxPool2d(2), (2, 6, 7, 3))
    add(layers.avg_pool(3), NN.AvgPool2d(3), (2, 6, 7, 3))
    add(layers.global_avg_pool(), NN.Sequential(NN.AdaptiveAvgPool2d(1), NN.Flatten()), (2, 6, 7, 3))
    add(layers.global_max_pool(), NN.Sequential(NN.AdaptiveMaxPool2d(1), NN.Flatten()), (2, 6, 7, 3))

    for train in (False, True):
        add(layers.batch_norm(unbiased_running_var=True), NN.BatchNorm2d(3), (4, 5, 6, 3), NORM, train)
        add(layers.batch_norm(unbiased_running_var=True), NN.BatchNorm1d(3), (5, 3), NORM, train)
        add(
            layers.batch_norm(epsilon=0.1, momentum=0.7, unbiased_running_var=True),
            NN.BatchNorm3d(3, 0.1, 0.3),
            (3, 2, 3, 2, 3),
            NORM,
            train,
        )
    add(layers.layer_norm(), NN.LayerNorm(6), (4, 6), NORM)
    add(layers.rms_norm(), NN.RMSNorm(6, eps=1e-5), (4, 6), NORM)
    for groups in (1, 2, 3):
        add(layers.group_norm(groups), NN.GroupNorm(groups, 6), (3, 4, 5, 6), NORM)
    add(layers.instance_norm(), NN.InstanceNorm2d(3, affine=True), (3, 4, 5, 3), NORM)
    for channels in (3, 5):
        add(
            layers.local_response_norm(channels, alpha=0.5, beta=0.6, k=2.0),
            NN.LocalResponseNorm(channels, 0.5, 0.6, 2.0),
            (2, 3, 4, 7),
        )

    add(layers.upsample(2), NN.Upsample(scale_factor=2), (2, 3, 4, 2))
    add(layers.upsample((2, 3), method="bilinear"), NN.Upsample(scale_factor=(2, 3), mode="bilinear"), (2, 3, 4, 2))
    add(layers.pad(((1, 2), (0, 3)), value=0.5), NN.ConstantPad2d((0, 3, 1, 2), 0.5), (2, 3, 4, 2))
    add(layers.dense(5), NN.Linear(3, 5), (4, 3), DENSE)
    add(layers.flatten(), NN.Flatten(), (4, 3))
    add(layers.identity(), NN.Identity(), (4, 3))
    add(layers.dropout(0.5), NN.Dropout(0.5).eval(), (4, 3))
    for layer, module in (
        (layers.sigmoid(), NN.Sigmoid()),
        (layers.tanh(), NN.Tanh()),
        (layers.relu(), NN.ReLU()),
        (layers.leaky_relu(0.2), NN.LeakyReLU(0.2)),
        (layers.rrelu(), NN.RReLU().eval()),
        (layers.elu(1.5), NN.ELU(1.5)),
        (layers.silu(), NN.SiLU()),
        (layers.softplus(), NN.Softplus(threshold=100)),
        (layers.softplus(3.0), NN.Softplus(3.0, threshold=100)),
        (layers.log_sigmoid(), NN.LogSigmoid()),
        (layers.gelu(), NN.GELU()),
        (layers.gelu(approximate=True), NN.GELU("tanh")),
        (layers.softmax(), NN.Softmax(-1)),
        (layers.log_softmax(), NN.LogSoftmax(-1)),
    ):
        add(layer, module, (4, 5))
    add(layers.prelu(), NN.PReLU(), (4, 5), PRELU)
    return rows


ROWS = table()


def test_the_table_is_long():
    assert len(ROWS) >= 200


@pytest.mark.parametrize("name", ROWS)
def test_torch_agrees(x64, name):
    layer, module, shape, places, train = ROWS[name]
    random = np.random.default_rng(0)
    x = random.normal(size=shape)
    params, state = layer.init(jax.random.key(0), jnp.asarray(x))
    params = jax.tree.map(lambda leaf: leaf + random.normal(size=leaf.shape), params)
    module = module.double().train(train)
    for leaf, (place, convert) in places.items():
        if leaf in params:
            getattr(module, place).data = torch.tensor(convert(params[leaf]).copy())
    images = len(shape) > 2
    theirs = torch.tensor(channels_first(x) if images else x, requires_grad=True)
    their_y = module(theirs)

    def from_theirs(a):
        a = a.detach().numpy()
        return channels_last(a) if a.ndim > 2 else a

    y, new_state, residuals = layer.forward(params, state, jnp.asarray(x), train=train)
    close(y, from_theirs(their_y))
    dy = random.normal(size=y.shape)
    their_y.backward(torch.tensor(channels_first(dy) if dy.ndim > 2 else dy))
    dparams, dx = layer.backward(params, residuals, jnp.asarray(dy))
    close(dx, from_theirs(theirs.grad))
    for leaf, (place, convert) in places.items():
        if leaf in params:
            close(convert(dparams[leaf]), getattr(module, place).grad.numpy())
    if isinstance(new_state, dict):
        close(new_state["mean"], module.running_mean.numpy())
        close(new_state["var"], module.running_var.numpy())


def close(ours, theirs):
    ours = np.asarray(ours)
    assert ours.shape == theirs.shape
    assert np.linalg.norm(ours - theirs) <= 1e-10 * max(np.linalg.norm(theirs), 1e-300)
