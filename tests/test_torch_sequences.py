"""Embedding and attention against torch's own, in float64: values, and gradients of all parameters and inputs.

Runs where torch is installed (the extra `bench`): `pytest -m peers tests/test_torch_sequences.py`.
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

F64 = torch.float64
BATCH, TIME, CONTEXT = 3, 5, 7


def close(ours, theirs):
    ours, theirs = np.asarray(ours), np.asarray(theirs)
    assert ours.shape == theirs.shape
    assert np.linalg.norm(ours - theirs) <= 1e-10 * max(np.linalg.norm(theirs), 1e-300)


def tensor(array, grad=False):
    return torch.tensor(np.array(array), requires_grad=grad)


def numbers(*shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape)


def lengths(time):
    """At least one position of each row is there, as rows without a key are NaN in torch."""
    return np.arange(time) < np.array([time, 2, 1])[:, None]


EMBEDDINGS = list(product((3, 20), (1, 4), ((4,), (2, 3)), (False, True)))


@pytest.mark.parametrize("vocabulary, features, shape, same", EMBEDDINGS)
def test_embedding(x64, vocabulary, features, shape, same):
    words = np.random.default_rng(1).integers(0, 1 if same else vocabulary, (2, *shape))
    layer, module = layers.embedding(vocabulary, features), torch.nn.Embedding(vocabulary, features, dtype=F64)
    params, _ = layer.init(jax.random.key(0), words)
    module.weight.data = tensor(params["embedding"])
    y, _, residuals = layer.forward(params, (), words)
    theirs, dy = module(torch.tensor(words)), numbers(*y.shape)
    close(y, theirs.detach())
    theirs.backward(tensor(dy))
    close(layer.backward(params, residuals, jnp.asarray(dy))[0]["embedding"], module.weight.grad)


# Heads, kind, bias, padding. With a window a padded query may see no key, which in torch gives NaN, here zeros.
ATTENTIONS = [
    (heads, kind, bias, padded)
    for heads, kind, bias, padded in product(
        (1, 2, 4, 8), ("self", "causal", "window", "cross"), (True, False), (False, True)
    )
    if kind != "window" or not padded
]


@pytest.mark.parametrize("heads, kind, bias, padded", ATTENTIONS)
def test_attention(x64, heads, kind, bias, padded):
    """torch's key bias is left at zero: its gradient is zero, as the softmax cancels it."""
    width, context_width = 8, 6 if kind == "cross" else 8
    options = {"causal": {"causal": True}, "window": {"window": 2}}.get(kind, {})
    layer = layers.attention(heads, use_bias=bias, **options)
    x, context = numbers(BATCH, TIME, width), numbers(BATCH, CONTEXT, context_width, seed=1)
    there = lengths(CONTEXT if kind == "cross" else TIME)
    if kind == "cross":
        given = (jnp.asarray(x), Padded(jnp.asarray(context), there) if padded else jnp.asarray(context))
    else:
        given = Padded(jnp.asarray(x), there) if padded else jnp.asarray(x)
    params = jax.eval_shape(lambda: layer.init(jax.random.key(0), given))[0]
    params = {name: jnp.asarray(numbers(*leaf.shape, seed=i)) for i, (name, leaf) in enumerate(params.items())}
    counts = there[..., None] if padded and kind != "cross" else True  # padded queries do not count
    dy = np.where(counts, numbers(BATCH, TIME, width, seed=3), 0)

    module = torch.nn.MultiheadAttention(
        width, heads, bias=bias, kdim=context_width, vdim=context_width, batch_first=True, dtype=F64
    )
    names = ("query", "key", "value")
    kernels = [np.asarray(params[f"{name}_kernel"]).T for name in names]
    if kind == "cross":
        for name, kernel in zip("qkv", kernels, strict=True):
            getattr(module, f"{name}_proj_weight").data = tensor(kernel)
    else:
        module.in_proj_weight.data = tensor(np.concatenate(kernels))
    module.out_proj.weight.data = tensor(np.asarray(params["out_kernel"]).T)
    if bias:
        biases = [np.asarray(params.get(f"{name}_bias", np.zeros(width))) for name in names]
        module.in_proj_bias.data = tensor(np.concatenate(biases))
        module.out_proj.bias.data = tensor(params["out_bias"])

    apart = np.subtract.outer(np.arange(TIME), np.arange(TIME))
    mask = {"causal": apart < 0, "window": np.abs(apart) >= 2}.get(kind)
    theirs = [tensor(x, True), tensor(context, True)]
    source = theirs[1] if kind == "cross" else theirs[0]
    their_y, _ = module(
        theirs[0], source, source,
        attn_mask=None if mask is None else torch.tensor(mask),
        key_padding_mask=torch.tensor(~there) if padded else None,
    )  # fmt: skip

    y, _, residuals = layer.forward(params, (), given)
    values = y.values if isinstance(y, Padded) else y
    close(np.where(counts, values, 0), np.where(counts, their_y.detach(), 0))
    their_y.backward(tensor(dy))
    dparams, dx = layer.backward(params, residuals, jnp.asarray(dy))
    ours = dx if kind == "cross" else (dx,)
    for got, want in zip(ours, theirs, strict=False):
        close(got, want.grad)
    their_kernels = (
        [getattr(module, f"{name}_proj_weight").grad for name in "qkv"]
        if kind == "cross"
        else np.split(module.in_proj_weight.grad.numpy(), 3)
    )
    for name, want in zip(names, their_kernels, strict=True):
        close(np.asarray(dparams[f"{name}_kernel"]).T, want)
    close(np.asarray(dparams["out_kernel"]).T, module.out_proj.weight.grad)
    if bias:
        dquery, dkey, dvalue = np.split(module.in_proj_bias.grad.numpy(), 3)
        close(dparams["query_bias"], dquery)
        close(dparams["value_bias"], dvalue)
        assert np.abs(dkey).max() <= 1e-12
        close(dparams["out_bias"], module.out_proj.bias.grad)


BLOCKS = list(product((1, 4), (True, False), ("relu", "gelu"), (True, False), (True, False)))


@pytest.mark.parametrize("heads, pre_norm, activation, bias, padded", BLOCKS)
def test_transformer_encoder_layer(x64, heads, pre_norm, activation, bias, padded):
    """The causal one without padding, the other one with it. Without bias torch leaves out that of the norms too."""
    f = getattr(layers, activation)()
    norm = layers.layer_norm(use_bias=bias)
    layer = layers.transformer_block(
        8, heads, hidden=6, pre_norm=pre_norm, causal=not padded, activation=f, norm=norm, use_bias=bias
    )
    x, there = numbers(BATCH, TIME, 8), lengths(TIME) if padded else np.ones((BATCH, TIME), bool)
    given = Padded(jnp.asarray(x), there)
    params, state = layer.init(jax.random.key(0), given)
    params = jax.tree.map(lambda leaf: jnp.asarray(leaf + 0.3 * numbers(*leaf.shape, seed=leaf.size)), params)
    module = torch.nn.TransformerEncoderLayer(
        8, heads, 6, 0.0, activation, norm_first=pre_norm, bias=bias, batch_first=True, dtype=F64
    )
    places = dict(module.named_parameters())
    arrays = in_torch_order(params, pre_norm)
    assert set(places) == set(arrays)
    for name, leaf in places.items():
        leaf.data = tensor(arrays[name])
    theirs = tensor(x, True)
    mask = torch.tensor(~np.tri(TIME, dtype=bool)) if not padded else None
    their_y = module(theirs, mask, torch.tensor(~there) if padded else None)
    y, _, residuals = layer.forward(params, state, given)
    counts = there[..., None]
    close(np.where(counts, y.values, 0), np.where(counts, their_y.detach(), 0))
    dy = np.where(counts, numbers(BATCH, TIME, 8, seed=3), 0)
    their_y.backward(tensor(dy))
    dparams, dx = layer.backward(params, residuals, jnp.asarray(dy))
    close(dx, theirs.grad)
    for name, want in in_torch_order(dparams, pre_norm).items():
        if name == "self_attn.in_proj_bias":  # without that of the keys, whose gradient is zero
            got, want = (np.delete(array, np.s_[8:16]) for array in (want, places[name].grad.numpy()))
            close(got, want)
        else:
            close(want, places[name].grad)


def in_torch_order(params, pre_norm):
    """The leaves by torch's names."""
    if pre_norm:
        ((norm1, looks),), ((norm2, wide, _, narrow),) = params
    else:
        ((looks,),), norm1, ((wide, _, narrow),), norm2 = params
    places = {"norm1.weight": norm1["scale"], "norm2.weight": norm2["scale"]}
    places["self_attn.in_proj_weight"] = np.concatenate([looks[f"{n}_kernel"].T for n in ("query", "key", "value")])
    places |= {"self_attn.out_proj.weight": looks["out_kernel"].T}
    places |= {"linear1.weight": wide["kernel"].T, "linear2.weight": narrow["kernel"].T}
    if "bias" in wide:
        biases = [looks["query_bias"], np.zeros_like(looks["query_bias"]), looks["value_bias"]]
        places |= {"self_attn.in_proj_bias": np.concatenate(biases), "self_attn.out_proj.bias": looks["out_bias"]}
        places |= {"linear1.bias": wide["bias"], "linear2.bias": narrow["bias"]}
        places |= {"norm1.bias": norm1["bias"], "norm2.bias": norm2["bias"]}
    return places


def test_there_are_enough():
    assert len(EMBEDDINGS) + len(ATTENTIONS) + len(BLOCKS) >= 100
