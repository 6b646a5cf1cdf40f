"""torch on its CPU: eager and `torch.compile`, images channels last, fused optimizers, one thread per core."""

from contextlib import nullcontext
from functools import partial

import numpy as np
import torch
from torch import nn

from benchmarks import network as n
from benchmarks.network import chain, parameters
from benchmarks.workload import (
    BATCHES,
    CHECKED,
    Column,
    Convolution,
    Inference,
    Training,
    Update,
    batches,
    leaves,
    operands,
)

__all__ = ["columns", "double"]

OPTIMIZERS = {
    "adam": partial(torch.optim.Adam, lr=1e-3, fused=True),
    "sgd": partial(torch.optim.SGD, lr=0.01, fused=True),
    "momentum": partial(torch.optim.SGD, lr=0.01, momentum=0.9, fused=True),
}
double = nullcontext


def compiled(model):
    """Compile as if it were the first network. After eight networks torch stops compiling and runs them eagerly."""
    torch.compiler.reset()
    return torch.compile(model)


WAYS = {"eager": lambda model: model, "compile": compiled}


def columns(workload):
    match workload:
        case Training():
            return {name: partial(training, workload, way) for name, way in WAYS.items()}
        case Inference():
            return {name: partial(prediction, workload, way) for name, way in WAYS.items()}
        case Update():
            return {"fused": partial(updates, workload)}
        case Convolution():
            return {"eager": partial(convolution, workload)}
    return {}


class Residual(nn.Module):
    def __init__(self, body, shortcut):
        super().__init__()
        self.body, self.shortcut = body, shortcut

    def forward(self, x):
        return self.body(x) + self.shortcut(x)


class Flatten(nn.Module):
    """Flatten in the order height, width, channels, which costs nothing when channels are last."""

    def forward(self, x):
        return x.permute(0, 2, 3, 1).flatten(1)


class Last(nn.Module):
    def forward(self, x):
        return x[:, -1]


class Positions(nn.Module):
    def __init__(self, embedding):
        super().__init__()
        self.embedding = nn.Parameter(torch.tensor(embedding))

    def forward(self, x):
        return x + self.embedding


class Attention(nn.Module):
    """The three products as one, and torch's own kernel for the rest."""

    def __init__(self, heads, width, own):
        super().__init__()
        self.heads = heads
        names = ("query", "key", "value")
        kernel = np.concatenate([own[f"{name}_kernel"].T for name in names])
        bias = np.concatenate([own.get(f"{name}_bias", np.zeros_like(own["out_bias"])) for name in names])
        self.looks = _with(nn.Linear(width, 3 * width), kernel, bias)
        self.out = _with(nn.Linear(width, width), own["out_kernel"].T, own["out_bias"])

    def forward(self, x):
        q, k, v = self.looks(x).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        y = nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True)
        return self.out(y.transpose(1, 2).flatten(2))


class Lstm(nn.Module):
    """torch has two biases, whose sum counts. One stays 0."""

    def __init__(self, width, features, own):
        super().__init__()
        self.inner = nn.LSTM(width, features, batch_first=True, dtype=torch.tensor(own["bias"]).dtype)
        self.inner.bias_hh_l0.requires_grad_(False)
        given = {"weight_ih": own["kernel"].T, "weight_hh": own["recurrent_kernel"].T, "bias_ih": own["bias"]}
        with torch.no_grad():
            self.inner.bias_hh_l0.zero_()
            for name, value in given.items():
                getattr(self.inner, f"{name}_l0").copy_(torch.tensor(np.ascontiguousarray(value)))

    def forward(self, x):
        return self.inner(x)[0]


def build(network, shape, given):
    return nn.Sequential(*(_layer(use.layer, use.before, given) for use in chain(network, shape)))


def _layer(layer, before, given):
    match layer:
        case n.Dense(features):
            own = next(given)
            return _with(nn.Linear(before[-1], features), own["kernel"].T, own["bias"])
        case n.Conv(features, size, stride, bias):
            own = next(given)
            conv = nn.Conv2d(before[-1], features, size, stride, size // 2, bias=bias)
            return _with(conv, own["kernel"].transpose(3, 2, 0, 1), own.get("bias"))
        case n.BatchNorm():
            own = next(given)
            return _with(nn.BatchNorm2d(before[-1]), own["scale"], own["bias"])
        case n.MaxPool(size):
            return nn.MaxPool2d(size)
        case n.MeanOverPlaces():
            return nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten())
        case n.Flatten():
            return Flatten()
        case n.Relu():
            return nn.ReLU()
        case n.Gelu():
            return nn.GELU("tanh")
        case n.Last():
            return Last()
        case n.Embedding(words, features):
            return _with(nn.Embedding(words, features), next(given)["embedding"], None)
        case n.Positions():
            return Positions(next(given)["embedding"])
        case n.LayerNorm():
            own = next(given)
            return _with(nn.LayerNorm(before[-1]), own["scale"], own["bias"])
        case n.Attention(heads):
            return Attention(heads, before[-1], next(given))
        case n.Lstm(features):
            return Lstm(before[-1], features, next(given))
        case n.Residual(body, shortcut):
            return Residual(build(body, before, given), build(shortcut, before, given))
    raise TypeError(layer)


def _with(module, weight, bias):
    weight = torch.tensor(np.ascontiguousarray(weight))
    module.to(weight.dtype)  # before the copy, which would round float64 to the module's float32
    with torch.no_grad():
        module.weight.copy_(weight)
        if bias is not None:
            module.bias.copy_(torch.tensor(bias))
    return module


def loaded(workload, seed=0):
    given = parameters(workload.network, workload.shape, workload.dtype, seed)
    model = build(workload.network, workload.shape, iter(given))
    return model.to(memory_format=torch.channels_last)


def tensor(x):
    x = torch.tensor(x)
    return x.permute(0, 3, 1, 2).contiguous(memory_format=torch.channels_last) if x.ndim == 4 else x


def mean_loss(scores, target):
    return nn.functional.cross_entropy(scores.flatten(0, -2), target.flatten())


def one(workload, way):
    """The parameters of the model, and `(x, target) -> loss`."""
    model = loaded(workload)
    called = way(model)
    return [leaf for leaf in model.parameters() if leaf.requires_grad], lambda x, target: mean_loss(called(x), target)


def many(workload, way):
    """The stacked parameters of all models, and `(x, target) -> losses`, by `vmap` as in torch's page on ensembles."""
    models = [loaded(workload, seed) for seed in range(workload.models)]
    params, buffers = torch.func.stack_module_state(models)

    def loss(params, buffers, x, target):
        return mean_loss(torch.func.functional_call(models[0], (params, buffers), x), target)

    losses = way(torch.vmap(loss, in_dims=(0, 0, None, None)))
    return params.values(), partial(losses, params, buffers)


def training(workload, way):
    x, target = batches(workload)
    rows, target = workload.batch, target.astype(np.int64)
    data = [(x[i : i + rows], target[i : i + rows]) for i in range(0, len(x), rows)]
    if workload.fed == "device":
        data = [(tensor(x), torch.tensor(target)) for x, target in data]
    params, losses = (one if workload.models == 1 else many)(workload, way)
    optimizer = OPTIMIZERS[workload.optimizer](params)

    def advance(x, target):
        optimizer.zero_grad(set_to_none=True)
        loss = losses(torch.as_tensor(x), torch.as_tensor(target))
        loss.backward(torch.ones_like(loss))
        optimizer.step()
        return loss

    def check():
        return [loss for _ in range(CHECKED) for loss in advance(*data[0]).ravel().tolist()]

    def run():
        for i in range(workload.steps):
            advance(*data[i % BATCHES])

    return Column(check, run, workload.steps)


def prediction(workload, way):
    model = way(loaded(workload).eval())
    x = tensor(batches(workload)[0][: workload.batch])

    def run():
        with torch.inference_mode():
            for _ in range(workload.calls):
                model(x)

    def check():
        with torch.inference_mode():
            return model(x)[0].ravel()[:CHECKED].tolist()

    return Column(check, run, workload.calls)


def updates(workload):
    params, grads = zip(*((torch.tensor(p), torch.tensor(g)) for p, g in leaves(workload)), strict=True)
    params = [nn.Parameter(param) for param in params]
    for param, grad in zip(params, grads, strict=True):
        param.grad = grad
    optimizer = OPTIMIZERS["adam"](params)

    def check():
        for _ in range(CHECKED):
            optimizer.step()
        return [param.ravel()[0].item() for param in params[:CHECKED]]

    def run():
        for _ in range(workload.updates):
            optimizer.step()

    return Column(check, run, workload.updates)


def convolution(workload):
    x, kernel, dy = operands(workload)
    x, dy, kernel = tensor(x), tensor(dy), tensor(kernel.transpose(3, 0, 1, 2))
    stride, padding = (workload.stride,) * 2, (workload.size // 2,) * 2
    wanted = [workload.result == "dx", workload.result == "dW", False]

    def call():
        if workload.result == "y":
            return nn.functional.conv2d(x, kernel, None, stride, padding)
        backward = torch.ops.aten.convolution_backward
        found = backward(dy, x, kernel, None, stride, padding, (1, 1), False, (0, 0), 1, wanted)
        return found[1 if workload.result == "dW" else 0]

    def check():
        result = call().permute((2, 3, 1, 0) if workload.result == "dW" else (0, 2, 3, 1))
        return result[0].ravel()[:CHECKED].tolist()

    def run():
        for _ in range(workload.calls):
            call()

    return Column(check, run, workload.calls)
