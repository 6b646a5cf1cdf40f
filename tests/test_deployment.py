"""Exported models: the output is that of `apply`, bit for bit, without funcnet; damage and wrong input are named."""

import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export
from layer_cases import ARRAYS

from funcnet import data, gradients, layers, models
from funcnet.deployment import export_model, load_exported
from funcnet.errors import (
    ChecksumError,
    ConfigError,
    DtypeError,
    FormatError,
    MissingExtraError,
    ShapeError,
    StructureError,
)
from funcnet.types import Gradient, Padded

# constructor: (a small model, the shape of an example, and its dtype if it is not float32)
MODELS = {
    "linear": (models.linear(3), (4,)),
    "mlp": (models.mlp((8, 3), dropout=0.5), (4,)),
    "sigmoid_network": (models.sigmoid_network((5, 3)), (4,)),
    "perceptron": (models.perceptron(3), (4,)),
    "recurrent_classifier": (models.recurrent_classifier(3, features=(4, 4), bidirectional=True), (5, 3)),
    "gpt": (models.gpt(5, 6, blocks=1, features=4, heads=2), (6,), jnp.int32),
    "softmax_regression": (models.softmax_regression(3), (4, 4, 2)),
    "lenet": (models.lenet(3, features=(2, 3), hidden=(5,)), (12, 12, 1)),
    "vgg": (models.vgg(3, blocks=((2, 3), (4,)), hidden=(5,), dropout=0.1), (8, 8, 1)),
    "resnet": (models.resnet(3, depth=8, features=2), (8, 8, 1)),
    "mobilenet": (models.mobilenet(3, features=2, blocks=((3, 2), (4, 1))), (8, 8, 1)),
}


def started(model, *shape, dtype=jnp.float32):
    """(params, state) in which no number is 0 or 1, as they are after training."""
    made = jax.jit(model.init)(jax.random.key(0), jnp.ones((1, *shape), dtype))
    leaves, tree = jax.tree.flatten(made)
    noise = np.random.default_rng(0)
    return tree.unflatten([leaf + noise.uniform(0.1, 0.2, leaf.shape).astype(leaf.dtype) for leaf in leaves])


def rows(batch, *shape, dtype=jnp.float32):
    random, size = np.random.default_rng(1), (batch, *shape)
    words = jnp.issubdtype(dtype, jnp.integer)
    return jnp.asarray(random.integers(0, 5, size) if words else random.normal(size=size), dtype)


def test_every_model_has_a_row():
    assert set(MODELS) == set(models.__all__)


@pytest.mark.parametrize("name", MODELS)
def test_the_output_is_that_of_apply(name):
    """For a platform among others, and for every batch size, which the file was not made for."""
    model, shape, dtype = (*MODELS[name], jnp.float32)[:3]
    params, state = started(model, *shape, dtype=dtype)
    file = export_model(model, params, state, rows(2, *shape, dtype=dtype))
    exported, apply = export.deserialize(bytearray(file)), jax.jit(model.apply)
    for batch in (1, 3):
        x = rows(batch, *shape, dtype=dtype)
        np.testing.assert_array_equal(exported.call(x), apply(params, state, x)[0], strict=True)


POOLS = [layers.max_pool(2), layers.global_max_pool(), layers.global_avg_pool(), layers.flatten()]


@pytest.mark.parametrize("pool", POOLS, ids=str)
def test_what_follows_a_norm_rounds_as_in_apply(pool):
    """XLA may give all of it to YNNPACK, and then constants round otherwise than arguments."""
    before = (layers.conv(8, 3, use_bias=False), layers.batch_norm(), layers.relu())
    model = layers.serial(*before, pool, layers.flatten(), layers.dense(32))
    params, state = started(model, 8, 8, 1)
    x = rows(20, 8, 8, 1)
    exported = export.deserialize(bytearray(export_model(model, params, state, x)))
    np.testing.assert_array_equal(exported.call(x), jax.jit(model.apply)(params, state, x)[0])


@pytest.mark.parametrize("name", ARRAYS)
def test_every_layer_is_exported_for_any_batch_size(name):
    case = ARRAYS[name]
    x = case.example(2, 4)
    params, state = jax.tree.map(
        lambda leaf: np.ones(leaf.shape, leaf.dtype), jax.eval_shape(case.layer.init, jax.random.key(0), x)
    )
    (y,) = export.deserialize(bytearray(export_model(case.layer, params, state, x))).out_avals
    assert str(y.shape[0]) == "batch"


@pytest.mark.usefixtures("compiled_as_usual")  # as the process is
def test_digits_in_a_process_without_funcnet(tmp_path):
    images = data.digits()[0][:7].reshape(-1, 8, 8, 1)
    model, shape = MODELS["vgg"]
    params, state = started(model, *shape)
    (tmp_path / "model.stablehlo").write_bytes(export_model(model, params, state, images[:1]))
    np.save(tmp_path / "images.npy", images)
    program = """if True:
        import pathlib, sys
        import jax.export, numpy
        exported = jax.export.deserialize(bytearray(pathlib.Path("model.stablehlo").read_bytes()))
        numpy.save("logits.npy", exported.call(numpy.load("images.npy")))
        assert "funcnet" not in sys.modules
    """
    command = [sys.executable, "-W", "error", "-c", program]
    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    expected = np.asarray(jax.jit(model.apply)(params, state, images)[0])
    np.testing.assert_array_equal(np.load(tmp_path / "logits.npy"), expected, strict=True)


@pytest.mark.parametrize("page", ["README.md", "docs/data.md", "docs/guides/own_data.md", "docs/guides/own_data.zh.md"])
def test_the_pages_name_both_packages_that_a_file_needs(page):
    assert "pip install jax flatbuffers" in " ".join((Path(__file__).parents[1] / page).read_text("utf-8").split())


def test_jax_alone_does_not_read_a_file(tmp_path):
    (tmp_path / "model.stablehlo").write_bytes(export_model(layers.tanh(), (), (), jnp.ones((1, 2))))
    program = """if True:
        import pathlib, sys
        sys.modules["flatbuffers"] = None  # not installed
        import jax.export
        jax.export.deserialize(bytearray(pathlib.Path("model.stablehlo").read_bytes()))
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=tmp_path)
    assert "ImportError: Please install 'flatbuffers'" in done.stderr


def test_evaluation_is_exported():
    """No dropout, and the running statistics."""
    model = layers.serial(layers.batch_norm(), layers.dropout(0.5))
    params, state = (
        ({"scale": jnp.full(2, 3.0), "bias": jnp.ones(2)}, ()),
        ({"mean": jnp.full(2, 4.0), "var": jnp.full(2, 0.25)}, ()),
    )
    file = export_model(model, params, state, jnp.ones((1, 2)), platforms=["cpu"])
    y = export.deserialize(bytearray(file)).call(jnp.array([[4.0, 5.0]]))
    np.testing.assert_allclose(y, [[1, 1 + 3 / 0.5]], rtol=1e-4)


def test_the_parameters_are_written_once():
    """As they lie in memory, and for three platforms."""
    model = models.linear(300)
    file = export_model(model, *started(model, 200), jnp.ones((1, 200)))
    assert 4 * 200 * 300 < len(file) < 4 * 200 * 300 + 8000


def test_trees_of_inputs_and_outputs(tmp_path):
    model = layers.layer(
        lambda params, state, x, *, key=None, train=False: ({"sum": x["a"] + x["b"], "b": x["b"]}, state, None),
        lambda params, residuals, dy: ((), {"a": dy["sum"], "b": dy["sum"] + dy["b"]}),
        trees=True,
    )
    path = tmp_path / "model"
    path.write_bytes(export_model(model, (), (), {"a": rows(1, 2), "b": rows(1, 2)}))
    predict = load_exported(path)
    np.testing.assert_array_equal(predict({"a": rows(3, 2), "b": rows(3, 2)})["sum"], 2 * rows(3, 2))
    with pytest.raises(StructureError, match=r"load_exported\('.*'\): expected x to be the tree PyTreeDef.*'a'"):
        predict(rows(3, 2))
    match = "expected the same number of rows in every array of a batch, got {} at .*a and {} at .*b; each of them has"
    with pytest.raises(ShapeError, match=match.format(3, 4)):
        predict({"a": rows(3, 2), "b": rows(4, 2)})
    with pytest.raises(ShapeError, match=match.format(1, 2)):
        export_model(model, (), (), {"a": rows(1, 2), "b": rows(2, 2)})


def test_padded_batches(tmp_path):
    """In the file they are dictionaries, which need no funcnet; what is padded changes nothing."""
    model = layers.serial(layers.dense(4), layers.parallel(word=layers.dense(2), tag=layers.tanh()))
    where = np.array([[True, True, False], [True, False, False]])
    x = Padded(jnp.asarray(np.random.default_rng(0).normal(size=(2, 3, 5)), jnp.float32), jnp.asarray(where))
    params, state = model.init(jax.random.key(0), x)
    path = tmp_path / "model"
    path.write_bytes(export_model(model, params, state, x))
    y, _ = jax.jit(model.apply)(params, state, x)
    predicted = load_exported(path)(x)
    assert set(predicted["tag"]) == {"values", "where"}
    np.testing.assert_array_equal(predicted["tag"]["values"], y["tag"].values)
    np.testing.assert_array_equal(predicted["word"]["where"], where)
    plain = {"values": x.values, "where": x.where}
    alone = export.deserialize(bytearray(path.read_bytes())).call(plain)
    np.testing.assert_array_equal(alone["word"]["values"], y["word"].values)
    with pytest.raises(StructureError, match="expected x to be the tree PyTreeDef.*'values'"):
        load_exported(path)(x.values)


def test_float64(x64, tmp_path):
    model = models.linear(3)
    params, state = started(model, 4, dtype=jnp.float64)
    path = tmp_path / "model"
    path.write_bytes(export_model(model, params, state, rows(1, 4, dtype=jnp.float64)))
    x = np.asarray(rows(5, 4, dtype=jnp.float64))
    y = load_exported(path)(x)
    assert y.dtype == jnp.float64
    np.testing.assert_array_equal(y, jax.jit(model.apply)(params, state, x)[0])


# Reading


@pytest.fixture(scope="module")
def file():
    model = models.linear(3)
    return export_model(model, *started(model, 4), jnp.ones((1, 4)))


@pytest.fixture
def path(file, tmp_path):
    path = tmp_path / "model.stablehlo"
    path.write_bytes(file)
    return path


def test_what_is_read_predicts(path):
    model = models.linear(3)
    params, state = started(model, 4)
    predict = load_exported(path)
    for batch in (1, 5):
        x = rows(batch, 4)
        np.testing.assert_array_equal(predict(x), jax.jit(model.apply)(params, state, x)[0])
        np.testing.assert_array_equal(predict(np.asarray(x, np.float64)), predict(x))  # as jax takes it, x64 being off


def test_every_flipped_bit_is_found(path, file):
    for place in range(len(file)):
        damaged = bytearray(file)
        damaged[place] ^= 1 << place % 8
        path.write_bytes(damaged)
        with pytest.raises((FormatError, ChecksumError), match=r"load_exported\('.*model.stablehlo'\): "):
            load_exported(path)


def test_damage_is_told_from_another_origin(path, file):
    for length in (*range(0, 100, 7), *range(100, len(file), 97)):
        path.write_bytes(file[:length])
        with pytest.raises(FormatError, match=r"expected a file of export_model, got one that is cut short or of an"):
            load_exported(path)
    path.write_bytes(file[:1000] + file[1001:])
    with pytest.raises(ChecksumError, match=r"the file is damaged: its content does not have the SHA-256 recorded"):
        load_exported(path)


def test_a_file_of_another_version_of_jax(path, file, monkeypatch):
    def newer(data):
        raise ValueError("unknown version 99")

    monkeypatch.setattr(export, "deserialize", newer)
    message = rf"jax {jax.__version__} cannot read this file: ValueError\('unknown version 99'\); export it again"
    with pytest.raises(FormatError, match=message):
        load_exported(path)


def test_no_file(tmp_path):
    with pytest.raises(FormatError, match=r"load_exported\('.*none'\): the file cannot be read: .*No such file"):
        load_exported(tmp_path / "none")


@pytest.mark.parametrize(
    "x, error, message",
    [
        (jnp.ones((2, 5)), ShapeError, r"expected x of shape \(batch, 4\), got \(2, 5\)"),
        (jnp.ones(4), ShapeError, r"expected x of shape \(batch, 4\), got \(4,\)"),
        (jnp.ones((0, 4)), ShapeError, r"expected x of shape \(batch, 4\), got \(0, 4\)"),
        (jnp.ones((2, 4), jnp.int32), DtypeError, r"expected x of dtype float32, got int32; convert it with"),
        ((jnp.ones((2, 4)),), StructureError, r"expected x to be the tree PyTreeDef\(\*\), got PyTreeDef\(\(\*,\)\)"),
    ],
)
def test_wrong_input(path, x, error, message):
    with pytest.raises(error, match=rf"load_exported\('.*model.stablehlo'\): {message}"):
        load_exported(path)(x)


def test_another_platform(path):
    path.write_bytes(export_model(layers.tanh(), (), (), jnp.ones((1, 2)), platforms=["tpu", "cuda"]))
    message = r"expected a file for cpu, .* got one for tpu, cuda; export it with platforms=\['tpu', 'cuda', 'cpu'\]"
    with pytest.raises(ConfigError, match=message):
        load_exported(path)


def test_without_the_extra(path, monkeypatch):
    monkeypatch.setitem(sys.modules, "flatbuffers", None)
    message = r": expected the package flatbuffers, which is not installed; pip install 'funcnet\[export\]'"
    with pytest.raises(MissingExtraError, match=r"export_model\(tanh\(\)\)" + message):
        export_model(layers.tanh(), (), (), jnp.ones((1, 2)))
    with pytest.raises(MissingExtraError, match=r"load_exported\('.*'\)" + message):
        load_exported(path)


# Writing


@pytest.mark.parametrize("platforms", [(), "cpu", ["gpu"], ["cpu", "cpu"]])
def test_platforms_are_known(platforms):
    message = (
        r"export_model\(tanh\(\)\): expected platforms to be some of cpu, cuda, rocm, tpu, in a tuple or list, got"
    )
    with pytest.raises(ConfigError, match=message):
        export_model(layers.tanh(), (), (), jnp.ones((1, 2)), platforms=platforms)


def test_numbers_are_needed():
    model = layers.dense(2)
    x = jnp.ones((1, 3))
    params, state = jax.eval_shape(model.init, jax.random.key(0), x)
    with pytest.raises(DtypeError, match=r"export_model\(dense\(2\)\): expected params of arrays .* at 'bias'"):
        export_model(model, params, state, x)


def test_the_models_own_errors_are_kept():
    model = layers.dense(2)
    params, state = model.init(jax.random.key(0), jnp.ones((1, 3)))
    with pytest.raises(ShapeError, match=r"^dense\(2\): expected params\['kernel'\] of shape \(4, 2\) for x of"):
        export_model(model, params, state, jnp.ones((1, 4)))


def halves(x):
    """A layer for batches of an even size: what it does with the rows depends on how many there are."""
    return x[: int(x.shape[0]) // 2]


def test_a_model_that_needs_the_batch_size():
    model = gradients.automatic_function(halves)
    message = (
        r"export_model\(halves\): expected a model with one program for all batch sizes, got an error: .*; give the .* "
        "batch_size=…"
    )
    with pytest.raises(ConfigError, match=message):
        export_model(model, (), (), jnp.ones((4, 2)))
    exported = export.deserialize(bytearray(export_model(model, (), (), jnp.ones((4, 2)), batch_size=6)))
    assert exported.in_avals[0].shape == (6, 2)
    assert exported.call(jnp.ones((6, 2))).shape == (3, 2)
    with pytest.raises(ConfigError, match=r"expected batch_size to be a positive integer, got 0"):
        export_model(model, (), (), jnp.ones((4, 2)), batch_size=0)


def test_outputs_in_a_class_are_refused():
    def wrapped(x):
        return Gradient(x, x, x, x)

    model = gradients.automatic_function(wrapped)
    message = r"export_model\(wrapped\): expected input and output in tuples, lists or dictionaries of arrays, got"
    with pytest.raises(StructureError, match=message):
        export_model(model, (), (), jnp.ones((1, 2)))
