"""Every message that there was before the contracts changed, and its successor: none lost what it told.

`messages.jsonl` has a line for each: code that raises it, the class and text of before, and of now where they differ. A
message that is made better is written into its line; run `python tests/test_messages.py` to write what is raised today.
"""

import json
import os
import re
import sys
import warnings
from pathlib import Path
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn

TABLE = Path(__file__).with_name("messages.jsonl")
CASES = [json.loads(line) for line in TABLE.read_text("utf-8").splitlines()] if TABLE.exists() else []
AREAS = sorted({case["area"] for case in CASES})

# What the codes find in their names.

key = jax.random.key(0)
x = jnp.ones((4, 5))
integers = jnp.ones((4, 5), jnp.int32)
image = jnp.ones((2, 6, 6, 3))
labels = jnp.array([0, 1, 2, 0])


def start(layer, x=x):
    """Its params and state for `x`."""
    return jax.eval_shape(lambda: layer.init(key, x))


def run(layer, x=x, at=None, *, params=None, state=None, **options):
    """`init` for `x` and `apply` for `at`, another input, with `params` or `state` changed by functions of them."""

    def whole():
        p, s = layer.init(key, x)
        p, s = params(p) if params else p, state(s) if state else s
        return layer.apply(p, s, x if at is None else at, **options)

    return jax.eval_shape(whole)


def back(layer, dy, x=x, **options):
    """`backward` of this cotangent, with the residuals of `forward`."""

    def whole():
        params, state = layer.init(key, x)
        _, _, residuals = layer.forward(params, state, x, **options)
        return layer.backward(params, residuals, dy)

    return jax.eval_shape(whole)


def engine(gradient, model, batch, x=x, **changes):
    """One call of a gradient engine's function; `changes` are those of `run`, and `key`."""

    def whole():
        params, state = model.init(key, x)
        params = changes["params"](params) if "params" in changes else params
        return gradient(params, state, batch, changes.get("key", key))

    return jax.eval_shape(whole)


def own_layer(name="own", kernel=(5, 3)):
    """A layer of one's own, x @ kernel, whose gradient is autodiff's; it has no rule for gradients per example."""

    def init(key, x):
        return {"kernel": jnp.ones(kernel)}, ()

    def apply(params, state, x, *, key=None, train=False):
        return x @ params["kernel"], state

    apply.__name__ = name
    return fn.gradients.automatic(init, apply)


def own_function(function, name):
    function.__name__ = name
    return fn.gradients.automatic_function(function)


def own_parameterless(forward, backward, name):
    forward.__qualname__ = name
    return fn.layers.parameterless(forward, backward)


def fit(model=None, loss=fn.losses.mean_squared_error, optimizer=None, data=None, **options):
    """A run of one epoch, through to its last report."""
    model = fn.layers.dense(3) if model is None else model
    data = (np.ones((4, 5), np.float32), np.ones((4, 3), np.float32)) if data is None else data
    return list(fn.training.fit(model, loss, optimizer or fn.optimizers.sgd(0.1), data, **{"epochs": 1} | options))


def update(optimizer, params=None, grads=None, state=None):
    """One update from `init`; `grads` are like the params unless given."""
    params = {"w": jnp.ones(2), "b": jnp.ones(1)} if params is None else params
    started = optimizer.init(params)
    return optimizer.update(started if state is None else state, params if grads is None else grads)


def measure(metric, prediction, target, where=None):
    """One update of a metric."""
    return metric.update(metric.init(), prediction, target, where)


NAMES = {name: value for name, value in globals().items() if not name.startswith("__")} | {"mock": mock}


def raised(code):
    """The class and the text of what code raises, with funcnet's notes, less what differs: addresses, jax's version."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            exec(compile(code, "<case>", "exec"), dict(NAMES))
    except (Exception, Warning) as error:
        notes = [note for note in getattr(error, "__notes__", ()) if note.startswith("funcnet:")]
        text = re.sub(r"0x[0-9a-f]{6,}", "0x…", "\n".join([str(error), *notes]))
        return [type(error).__name__, text.replace(f"jax {jax.__version__} ", "jax … ")]
    return ["", ""]


@pytest.mark.parametrize("area", AREAS)
def test_messages_are_as_written(area, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for case in CASES:
        if case["area"] == area:
            kind, text = case.get("now", case["before"])
            got = raised(case["code"])
            assert got[0] == kind, (case["code"], got)
            # What stands behind "got an error: " is jax's, and differs between its versions.
            assert got[1].partition("got an error: ")[0] == text.partition("got an error: ")[0], case["code"]


def lost(before, now):
    """What a message told and its successor does not: what was expected, what came, the fix, the place of a note."""
    (_, old), (_, new) = before, now
    parts = {"expected": "expected " in old and "expected " not in new, "got": " got " in old and " got " not in new}
    parts["fix"] = ";" in old and ";" not in new
    parts["note"] = old.count("funcnet: raised in") > new.count("funcnet: raised in")
    parts["message"] = not new
    return [part for part, is_lost in parts.items() if is_lost]


def test_no_message_lost_what_it_told():
    assert len(CASES) > 800
    assert [(case["code"], case["now"]) for case in CASES if "now" in case and lost(case["before"], case["now"])] == []


@pytest.mark.parametrize(
    "now, part",
    [
        ("dense(0): expected features to be positive; choose more.", "got"),
        ("dense(0): expected features to be positive, got 0.", "fix"),
        ("dense(0): features is wrong, got 0; choose more.", "expected"),
    ],
)
def test_a_planted_loss_is_seen(now, part):
    before = "dense(0): expected features to be positive, got 0; choose more."
    assert lost(["ConfigError", before], ["ConfigError", now]) == [part]


if __name__ == "__main__":
    os.chdir("/tmp")
    for case in CASES:
        got = raised(case["code"])
        case.pop("now", None)
        case |= {} if got == case["before"] else {"now": got}
    TABLE.write_text("".join(json.dumps(case, ensure_ascii=False) + "\n" for case in CASES), "utf-8")
    sys.exit(bool(CASES and [1 for case in CASES if lost(case["before"], case.get("now", case["before"]))]))
