"""Weights on disk: what goes in comes out, and no damaged file gets through."""

import hashlib
import json
import os
import random
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

import funcnet as fn
from funcnet import layers
from funcnet.checkpoints import load_weights, save_weights, weights, weights_table
from funcnet.errors import CheckpointError, ConfigError, DtypeError, MissingExtraError, StructureError
from funcnet.trees import shapes

PARAMS = (
    {"kernel": jnp.arange(6.0).reshape(2, 3), "bias": jnp.array([1.0, -0.0, jnp.inf])},
    (),
    {"scale": jnp.ones((), jnp.bfloat16), "empty": jnp.zeros((0, 4)), "mask": jnp.array([True, False])},
)
STATE = ((), {"mean": jnp.array([0.5, jnp.nan]), "count": jnp.array(7, jnp.int32)})
METADATA = {"model": "mlp((2, 3))", "epoch": 3, "loss": 0.25, "labels": ["ä", None, True]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.safetensors"


def same_leaves(got, want):
    """Same trees, dtypes, shapes and bits (so that NaN and −0 count)."""
    assert jax.tree.structure(got) == jax.tree.structure(want)
    for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(want), strict=True):
        assert isinstance(a, jax.Array)
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        assert np.asarray(a).tobytes() == np.asarray(b).tobytes()


@pytest.mark.parametrize("kind", ["arrays", "structs"])
def test_trees_come_back_bit_by_bit(path, kind):
    save_weights(path, PARAMS, STATE, METADATA)
    like = (PARAMS, STATE) if kind == "arrays" else jax.eval_shape(lambda: (PARAMS, STATE))
    params, state, metadata = load_weights(path, like)
    same_leaves((params, state), (PARAMS, STATE))
    assert metadata == METADATA


def test_without_like_leaves_come_by_path(path):
    save_weights(str(path), PARAMS, STATE)
    params, state, metadata = load_weights(str(path))
    assert sorted(params) == ["0/bias", "0/kernel", "2/empty", "2/mask", "2/scale"]
    assert sorted(state) == ["1/count", "1/mean"]
    np.testing.assert_array_equal(params["0/kernel"], [[0, 1, 2], [3, 4, 5]])
    assert state["1/count"].dtype == np.int32
    assert metadata is None


def test_a_single_array_is_a_tree_too(path):
    save_weights(path, jnp.arange(3))
    np.testing.assert_array_equal(load_weights(path)[0][""], [0, 1, 2])
    same_leaves(load_weights(path, (jnp.zeros(3, jnp.int32), ()))[0], jnp.arange(3))


def test_other_tools_read_the_file(path):
    save_weights(path, PARAMS[:1])
    with safetensors.safe_open(path, framework="np") as file:
        assert sorted(file.keys()) == ["params/0/bias", "params/0/kernel"]
        assert list(file.metadata()) == ["funcnet"]
        np.testing.assert_array_equal(file.get_tensor("params/0/kernel"), PARAMS[0]["kernel"])


def test_numpy_arrays_in_any_memory_order(path):
    transposed = np.arange(6.0, dtype=np.float32).reshape(2, 3).T
    save_weights(path, {"kernel": transposed})
    np.testing.assert_array_equal(load_weights(path)[0]["kernel"], transposed)


def test_float64(path, x64):
    params = {"kernel": jnp.array([1 / 3, np.pi], jnp.float64)}
    save_weights(path, params)
    same_leaves(load_weights(path, (params, ()))[0], params)


def test_a_model_predicts_the_same_after_the_round_trip(path):
    model = fn.layers.serial(fn.layers.dense(4), fn.layers.relu(), fn.layers.dense(2))
    x = jnp.linspace(-1, 1, 15).reshape(5, 3)
    params, state = model.init(jax.random.key(0), x)
    save_weights(path, params, state)
    params_again, state_again, _ = load_weights(path, jax.eval_shape(model.init, jax.random.key(1), x))
    np.testing.assert_array_equal(model.apply(params_again, state_again, x)[0], model.apply(params, state, x)[0])


LIKE = ({"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)}, {"mean": jnp.zeros(3)})


@pytest.mark.parametrize(
    "params, state, problem",
    [
        ({"kernel": jnp.zeros((2, 3))}, LIKE[1], "params/bias is missing"),
        ({**LIKE[0], "scale": jnp.zeros(3)}, LIKE[1], "params/scale is unexpected"),
        ({**LIKE[0], "kernel": jnp.zeros((3, 2))}, LIKE[1], r"params/kernel has shape \(3, 2\), expected \(2, 3\)"),
        (LIKE[0], (), "state/mean is missing"),
        ({**LIKE[0], "bias": jnp.zeros(3, jnp.int32)}, LIKE[1], "params/bias has dtype int32, expected float32"),
        ({"kernel": LIKE[0]["kernel"], "Bias": jnp.zeros(3)}, LIKE[1], "bias is missing; params/Bias is unexpected"),
    ],
)
def test_weights_of_another_model(path, params, state, problem):
    save_weights(path, params, state)
    with pytest.raises(
        CheckpointError, match=rf"load_weights\('.*model.safetensors'\).*do not fit the model: .*{problem}"
    ):
        load_weights(path, LIKE)


def test_float64_weights_are_not_narrowed_in_silence(path):
    params = {"kernel": np.array([1 / 3])}
    save_weights(path, params)
    with pytest.raises(CheckpointError, match=r"params/kernel has dtype float64, which needs jax.enable_x64\(True\)"):
        load_weights(path, (params, ()))


# Damage


def flip_bit(rng, data):
    at = rng.randrange(len(data))
    return data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :]


def truncate(rng, data):
    return data[: rng.randrange(len(data))]


def delete(rng, data):
    at = rng.randrange(len(data))
    return data[:at] + data[at + rng.randint(1, 40) :]


def insert(rng, data):
    at = rng.randrange(len(data) + 1)
    return data[:at] + rng.randbytes(rng.randint(1, 40)) + data[at:]


def overwrite(rng, data):
    at, n = rng.randrange(len(data)), rng.randint(1, 40)
    return (data[:at] + rng.randbytes(n) + data[at + n :])[: len(data)]


def swap_halves(rng, data):
    at = rng.randrange(1, len(data))
    return data[at:] + data[:at]


@pytest.mark.parametrize("mutate", [flip_bit, truncate, delete, insert, overwrite, swap_halves])
def test_no_damaged_file_gets_through(path, mutate):
    save_weights(path, PARAMS, STATE, METADATA)
    data = path.read_bytes()
    rng = random.Random(mutate.__name__)
    for _ in range(100):
        mutated = mutate(rng, data)
        assert mutated != data
        path.write_bytes(mutated)
        with pytest.raises(
            CheckpointError, match=r"^load_weights\('[^']*model.safetensors'\): (?!load_weights).*(damaged|version)"
        ):
            load_weights(path)


def test_every_bit_of_a_small_file_counts(path):
    save_weights(path, {"a": jnp.ones(1)})
    data = path.read_bytes()
    for bit in range(8 * len(data)):
        path.write_bytes(data[: bit // 8] + bytes([data[bit // 8] ^ 1 << bit % 8]) + data[bit // 8 + 1 :])
        with pytest.raises(
            CheckpointError, match=r"^load_weights\('[^']*model.safetensors'\): (?!load_weights).*(damaged|version)"
        ):
            load_weights(path)


def record(**changes):
    """A well-formed file of one tensor, with changes to what save_weights records about it."""
    tensors = {"params/a": np.ones(2, np.float32)}
    good = {"version": 1, "sha256": weights._digest(tensors, "null"), "metadata": None}
    return safetensors.numpy.save(tensors, {"funcnet": json.dumps(good | changes)})


def test_the_recorded_form(path):
    path.write_bytes(record())
    np.testing.assert_array_equal(load_weights(path)[0]["a"], [1, 1])
    head = '["null", ["params/a", "float32", [2]]]'
    digest = hashlib.sha256(head.encode() + np.ones(2, "<f4").tobytes()).hexdigest()
    assert digest == weights._digest({"params/a": np.ones(2, np.float32)}, "null")


@pytest.mark.parametrize(
    "data, problem",
    [
        (b"", "damaged or no safetensors file"),
        (b"{}", "damaged or no safetensors file"),
        (b"not safetensors at all", "damaged or no safetensors file"),
        (bytes(200), "damaged or no safetensors file"),
        (b"\xff" * 8, "damaged or no safetensors file"),
        (safetensors.numpy.save({"params/a": np.ones(2)}, {"funcnev": json.dumps({"sha256": ""})}), "damaged or"),
        (safetensors.numpy.save({"a": np.ones(2)}, {"funcnet": "["}), "damaged or no safetensors file"),
        (safetensors.numpy.save({"a": np.ones(2)}, {"funcnet": "[" * 100_000}), "damaged or no safetensors file"),
        (safetensors.numpy.save({"a": np.ones(2)}, {"funcnet": "[1, 2]"}), "damaged or no safetensors file"),
        (safetensors.numpy.save({"a": np.ones(2, np.complex64)}), "damaged or no safetensors file"),
        (record(sha256="0" * 64), "does not have the SHA-256"),
        (record(sha256=None), "does not have the SHA-256"),
        (record(metadata={"epoch": 1}), "does not have the SHA-256"),
        (record(version=2), "expected format version 1, got 2; update funcnet"),
    ],
)
def test_files_of_another_origin(path, data, problem):
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=rf"load_weights\('.*model.safetensors'\): .*{problem}"):
        load_weights(path)


# Files of another origin, and a part of a model.

NET = layers.serial(trunk=layers.serial(layers.dense(3), layers.batch_norm()), head=layers.dense(2))


def started(net=NET, seed=0):
    return net.init(jax.random.key(seed), jnp.ones((4, 5)))


@pytest.mark.parametrize("select", ["trunk/.*", lambda path: path.startswith("trunk/")])
def test_a_part_of_the_leaves_is_loaded_and_the_rest_is_kept(path, select):
    """Those of the trunk, with its statistics, into a model with another head."""
    params, state = started()
    state["trunk"][1]["mean"] = jnp.full(3, 7.0)
    save_weights(path, params, state)
    wider = started(layers.serial(trunk=NET.inside.layers[0], head=layers.dense(4)), seed=1)
    got, got_state, _ = load_weights(path, wider, select=select)
    same_leaves(got, {"trunk": params["trunk"], "head": wider[0]["head"]})
    same_leaves(got_state, state)
    flat, _, _ = load_weights(path, select="head/.*")
    assert sorted(flat) == ["head/bias", "head/kernel"]


@pytest.mark.parametrize(
    "like, options, error, message",
    [
        (started(), {"select": "trunk"}, ConfigError, "expected 'trunk' to match a leaf, got none of head/bias"),
        (None, {"select": "trunk"}, ConfigError, "expected 'trunk' to match a leaf, got none of head/bias"),
        (started(), {"select": "("}, ConfigError, r"expected '\(' to be a regular expression, got an error: missing"),
        (started(), {"select": 3}, ConfigError, "select to be a regular expression or a function .*, got 3"),
        (shapes(started()), {"select": "trunk/.*"}, StructureError,
         "expected like with the values of what stays, got its shape at params/head/bias; give the arrays"),
        (started(layers.serial(trunk=layers.dense(3), head=layers.dense(4))), {"select": "trunk/.*"}, CheckpointError,
         "do not fit the model: params/trunk/bias is missing; .*; params/trunk/0/bias is unexpected"),
        (started(), {"rename": lambda name: "a"}, ConfigError, "each tensor a path of its own, got 1 for 8"),
    ],
)  # fmt: skip
def test_what_cannot_be_selected(path, like, options, error, message):
    save_weights(path, *started())
    with pytest.raises(error, match=rf"^load_weights\('.*'\): .*{message}"):
        load_weights(path, like, **options)


def test_files_of_any_origin(path):
    kernel, bias = np.arange(6, dtype=np.float32).reshape(2, 3), np.ones(3, np.float32)
    path.write_bytes(safetensors.numpy.save({"0.kernel": kernel, "0.bias": bias}, {"format": "np"}))
    params, state, metadata = load_weights(path)
    assert (sorted(params), state, metadata) == (["0.bias", "0.kernel"], {}, {"format": "np"})
    like = ({"kernel": jnp.zeros((2, 3)), "bias": jnp.zeros(3)},), ()
    same_leaves(load_weights(path, like)[0], ({"kernel": kernel, "bias": bias},))
    # As torch names and lays out a layer; the names are changed, and the kernel is turned by hand.
    path.write_bytes(safetensors.numpy.save({"fc.weight": np.ascontiguousarray(kernel.T), "fc.bias": bias}))
    names = {"fc.weight": "0/kernel", "fc.bias": "0/bias"}
    with pytest.raises(CheckpointError, match=r"params/0/kernel has shape \(3, 2\), expected \(2, 3\); weights_table"):
        load_weights(path, like, rename=names.get)
    with pytest.raises(CheckpointError, match="params/0/bias is missing; .* params/fc.bias is unexpected"):
        load_weights(path, like)
    table = [" ".join(line.split()) for line in weights_table(path, like, rename=names.get).splitlines()]
    assert table[2:] == ["params/0/bias (3,) (3,) matches", "params/0/kernel (2, 3) (3, 2) transposed"]
    # What a part is loaded from may hold more.
    (got,), _, _ = load_weights(path, like, select=".*bias", rename=names.get)
    np.testing.assert_array_equal(got["bias"], bias)
    np.testing.assert_array_equal(got["kernel"], 0)
    # State has a place too, and a table is made of files of one's own as well.
    path.write_bytes(safetensors.numpy.save({"state/mean": bias}))
    same_leaves(load_weights(path, ((), {"mean": jnp.zeros(3)}))[1], {"mean": bias})
    save_weights(path, {"a": bias, "b": bias})
    table = [" ".join(line.split()) for line in weights_table(path, ({"a": jnp.ones(2), "c": bias}, ())).splitlines()]
    assert table[2:] == ["params/a (2,) (3,) another shape", "params/b (3,) unused", "params/c (3,) missing"]


def test_a_missing_file_and_a_folder(tmp_path):
    with pytest.raises(CheckpointError, match=r"load_weights\('.*missing'\): the file cannot be read.*No such file"):
        load_weights(tmp_path / "missing")
    with pytest.raises(CheckpointError, match="the file cannot be read: expected a plain file, got a folder"):
        load_weights(tmp_path)


# Writing


def test_a_failed_write_leaves_the_old_file_and_nothing_else(path, monkeypatch):
    save_weights(path, {"a": jnp.ones(1)})

    def full(descriptor):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(CheckpointError, match=r"save_weights\('.*'\): the file cannot be written: .*No space left"):
        save_weights(path, {"a": jnp.zeros(1)})
    assert [file.name for file in path.parent.iterdir()] == [path.name]
    np.testing.assert_array_equal(load_weights(path)[0]["a"], [1])


def test_a_link_stays_and_a_pipe_is_written_to(path, tmp_path):
    (tmp_path / "link").symlink_to(path)
    save_weights(tmp_path / "link", {"a": jnp.ones(1)})
    assert (tmp_path / "link").is_symlink()
    os.mkfifo(tmp_path / "pipe")
    reader = os.open(tmp_path / "pipe", os.O_RDWR)
    save_weights(tmp_path / "pipe", {"a": jnp.ones(1)})
    assert os.read(reader, 2**16) == path.read_bytes()
    os.close(reader)
    assert (tmp_path / "pipe").is_fifo()


def test_the_file_is_replaced_only_once_its_bytes_are_on_disk(path, monkeypatch):
    events = []
    for name in ("fsync", "replace"):
        function = getattr(os, name)
        monkeypatch.setattr(
            os, name, lambda *args, name=name, function=function: (events.append(name), function(*args))
        )
    save_weights(path, {"a": jnp.ones(1)})
    assert events == ["fsync", "replace", "fsync"]  # file, rename, folder


def test_a_missing_folder(tmp_path):
    with pytest.raises(CheckpointError, match="the file cannot be written.*No such file or directory"):
        save_weights(tmp_path / "nowhere" / "model", {"a": jnp.ones(1)})


@pytest.mark.parametrize(
    "params, error, message",
    [
        ({"a": jax.random.key(0)}, DtypeError, r"expected params/a to be an array.*key<fry>.*jax.random.key_data"),
        ({"a": 1.0}, DtypeError, "expected params/a to be an array of plain numbers, got 1.0;"),
        ({"a": np.ones(1, np.complex64)}, DtypeError, "params/a .* got an array of dtype complex64"),
        ({"a/b": jnp.ones(1), "a": {"b": jnp.ones(1)}}, StructureError, "several for params/a/b; rename"),
    ],
)
def test_leaves_that_cannot_be_saved(path, params, error, message):
    with pytest.raises(error, match=rf"save_weights\('.*model.safetensors'\): .*{message}"):
        save_weights(path, params)


def test_metadata_that_is_no_json(path):
    with pytest.raises(ConfigError, match="expected metadata that JSON can hold.*Object of type set"):
        save_weights(path, (), metadata={"classes": {1, 2}})


def test_metadata_whose_keys_become_the_same(path):
    with pytest.raises(ConfigError, match="expected metadata that JSON can hold.* two keys .* have the same text"):
        save_weights(path, (), metadata={"labels": [{1: "one", "1": "other"}]})
    assert not path.exists()


def test_like_must_be_a_pair(path):
    with pytest.raises(StructureError, match=r"expected like to be the pair \(params, state\), got a dict"):
        load_weights(path, PARAMS[0])


def test_without_the_extra(path, monkeypatch):
    save_weights(path, ())
    monkeypatch.setitem(sys.modules, "safetensors", None)
    monkeypatch.setitem(sys.modules, "safetensors.numpy", None)
    for call in (lambda: save_weights(path, ()), lambda: load_weights(path)):
        with pytest.raises(MissingExtraError, match=r"safetensors.*pip install 'funcnet\[checkpoint\]'"):
            call()
