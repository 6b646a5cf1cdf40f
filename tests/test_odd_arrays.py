"""What stands for arrays, keys and states in a call: it works, or a named error says what to do."""

import os
import stat

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from funcnet import checkpoints, data, layers, losses, metrics, optimizers, training
from funcnet.errors import ConfigError, DataError, DtypeError, FuncnetError, LabelError, StructureError
from funcnet.types import Report

X = np.linspace(-1, 1, 6, dtype=np.float32)[:, None]
MODEL, LOSS, OPTIMIZER = layers.dense(1), losses.mean_squared_error, optimizers.sgd(0.1)


def fit(rows=(X, X), *, optimizer=OPTIMIZER, **options):
    return list(training.fit(MODEL, LOSS, optimizer, rows, **{"epochs": 1, **options}))


class Tensor:
    """A tensor that NumPy cannot take, as torch's with gradients, in bfloat16 or on other devices."""

    shape, ndim, dtype = (6, 1), 2, "torch.float32"

    def __init__(self, error):
        self.error = error

    def __array__(self, dtype=None, copy=None):
        raise self.error


GRADIENT = "Can't call numpy() on Tensor that requires grad. Use tensor.detach().numpy() instead."


@pytest.mark.parametrize("error", [RuntimeError(GRADIENT), TypeError("Got unsupported ScalarType BFloat16")])
@pytest.mark.parametrize("place", ["x", "target", "weights"])
def test_a_tensor_that_numpy_cannot_take(error, place):
    tensor, named = Tensor(error), rf"expected {place} to be an array, got Tensor: .*; give an array of NumPy or jax"
    where = np.ones(6, bool)
    rows = {"x": (tensor, X), "target": (X, tensor), "weights": (X, X, where, tensor)}[place]
    for call in (fit, lambda rows: data.split(*rows), lambda rows: training.evaluate(MODEL, LOSS, {}, (), rows)):
        with pytest.raises(DataError, match=named):
            call(rows)
    with pytest.raises(DataError, match=f"fit: batch 1 of pass 1: {named}"):
        fit([(X, X, where, np.ones(6)), (*rows, *(X, X, where, np.ones(6))[len(rows) :])])
    with pytest.raises(DtypeError, match=r"mean_squared_error: expected .* of a floating dtype"):
        LOSS(tensor, X)


@pytest.mark.parametrize("key", [2**63, 2**70, np.uint64(2**63)])
def test_a_seed_that_jax_cannot_take(key):
    named = "expected key to be at most 9223372036854775807, got"
    with pytest.raises(ConfigError, match=f"fit: {named}"):
        fit(key=key)
    with pytest.raises(ConfigError, match=f"evaluate: {named}"):
        training.evaluate(MODEL, LOSS, {}, (), (X, X), key=key)
    assert training.step.as_key(2**63 - 1).shape == ()


def test_parts_of_a_batch_are_named_at_once():
    with pytest.raises(ConfigError, match="accumulate to divide the 6 rows of a batch, got 1180591620717411303424"):
        fit(accumulate=2**70)
    with pytest.raises(ConfigError, match="got 5; take 3, or another batch_size"):
        fit(accumulate=5)


@pytest.mark.parametrize("key", [None, 3, np.zeros(3)])
def test_a_state_without_a_key(key):
    state = training.create_state(MODEL, OPTIMIZER, 0, X)
    with pytest.raises(DtypeError, match="fit: expected key to be a PRNG key, got .*; or take the state of a run"):
        fit(state=state._replace(key=key))


def test_what_is_no_state():
    state = training.create_state(MODEL, OPTIMIZER, 0, X)
    report = Report(1, 1, {}, state)
    for given, fix in (
        (report, "take its .state"),
        (state.optimizer.params, "take report.state"),
        ([1], "take report"),
    ):
        with pytest.raises(StructureError, match=f"expected state to be a TrainState, got .*; {fix}"):
            fit(state=given)
    with pytest.raises(StructureError, match=r"expected state to be of the optimizer adam\(0.1\), got the SGDState"):
        fit(optimizer=optimizers.adam(0.1), state=state)


@pytest.mark.parametrize("wrong", [[metrics.accuracy()], metrics.accuracy(), (metrics.accuracy(),)])
def test_metrics_without_names(wrong):
    with pytest.raises(ConfigError, match="fit: expected metrics to be a dictionary"):
        fit(metrics=wrong)


def test_a_mask_of_another_length():
    for call in (fit, lambda rows: fit([rows]), lambda rows: fit(validation=rows)):
        with pytest.raises(DataError, match="and where of one length, got 6 and 5 rows"):
            call((X, X, np.ones(5, bool)))


@pytest.mark.parametrize(
    "batch", [(X * np.nan, X), (X, X * np.inf), (np.hstack([X, X]), X), 3, (X, X, np.ones(5, bool))]
)
def test_a_bad_batch_is_named_by_its_number(batch):
    for before in (1, 2, 9):
        with pytest.raises(FuncnetError, match=f"fit: batch {before} of pass 1: "):
            fit([*[(X, X)] * before, batch])


def test_a_bad_label_is_named_by_its_batch_and_pass():
    passes = iter([[0, 1, 2], [0, 1, 3]])

    class Batches:
        def __iter__(self):
            return iter([(X[:3], np.array([0, 1, 2])), (X[:3], np.array(next(passes)))])

    reports = training.fit(layers.dense(3), losses.softmax_cross_entropy, OPTIMIZER, Batches(), epochs=2)
    with pytest.raises(LabelError, match=r"^batch 1 of pass 2: softmax_cross_entropy: expected label in 0..2, got 3"):
        list(reports)


def test_a_batch_after_a_cursor_is_counted_from_it():
    class Source:
        def __init__(self):
            self.at = 0

        def __iter__(self):
            return self

        def __next__(self):
            self.at += 1
            if self.at > 3:
                raise StopIteration
            return (X * np.nan if self.at == 3 else X), X

        def get_state(self):
            return self.at

        def set_state(self, at):
            self.at = at

    with pytest.raises(DataError, match="fit: batch 1 after the cursor of pass 1: x"):
        fit(Source(), cursor={"epoch": 0, "position": 1})


def test_long_doubles_and_other_byte_orders_are_trained_on():
    plain = fit((X, X))[-1].metrics["loss"]
    for dtype in (np.longdouble, ">f4", ">f8"):
        odd = X.astype(dtype)
        assert fit((odd, odd))[-1].metrics["loss"] == plain
        assert fit([(odd, odd)])[-1].metrics["loss"] == plain
    with pytest.raises(DataError, match=r"x\[0, 0\] is -1e\+4000, which float32 cannot hold"):
        data.check_data(X.astype(np.longdouble) * np.longdouble("1e4000"))


@pytest.mark.parametrize("umask", [0o022, 0o077, 0o027])
def test_files_of_a_checkpoint_have_the_mode_of_all_files(umask, tmp_path):
    state = training.create_state(MODEL, OPTIMIZER, 0, jax.ShapeDtypeStruct((1, 1), jnp.float32))
    before = os.umask(umask)
    try:
        folder = checkpoints.save(tmp_path, Report(1, 1, {}, state))
        checkpoints.save_weights(tmp_path / "weights", state.optimizer.params)
    finally:
        os.umask(before)
    files = [*folder.iterdir(), tmp_path / "weights"]
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o666 & ~umask}


@pytest.mark.parametrize(
    ("odd", "named"),
    [
        (X.astype(">f4"), r"got >f4 of NumPy; convert it with \.astype\('float32'\)"),
        (X.astype(np.longdouble), r"got <f\d+ of NumPy; convert it with \.astype\('float32'\)"),
        (np.array([["a"]]), "got <U1 of NumPy; give numbers"),
        (np.array([[None]]), r"got \|O of NumPy; give numbers"),
        (np.array(["2020"], "M8[Y]"), r"got <M8\[Y\] of NumPy; give numbers"),
    ],
    ids=["big-endian", "long double", "text", "objects", "dates"],
)
def test_arrays_of_numpy_that_jax_does_not_have(odd, named):
    """`fit`, `evaluate` and `check_data` convert numbers; what takes single arrays names them."""
    params, state = MODEL.init(jax.random.key(0), X)
    held = f"of a dtype that jax has, {named}"
    with pytest.raises(DtypeError, match=rf"^serial\(dense\(1\)\): expected x {held}"):
        layers.serial(MODEL).apply((params,), (state,), odd)
    for method in (MODEL.apply, MODEL.forward):
        with pytest.raises(DtypeError, match=rf"^dense\(1\): expected x {held}"):
            method(params, state, odd)
    with pytest.raises(DtypeError, match=rf"^dense\(1\): expected x {held}"):
        MODEL.init(jax.random.key(0), odd)
    for function in (LOSS, LOSS.gradient, LOSS.check, LOSS.counted):
        with pytest.raises(DtypeError, match=f"^mean_squared_error: expected prediction {held}"):
            function(odd, X)
    with pytest.raises(
        DtypeError, match=r"^mean_squared_error: expected target of .* dtype.*, got .*; convert it with"
    ):
        LOSS(X, odd.reshape(-1, 1)[[0] * 6])
    labels = np.array([0, 1, 0, 1, 1, 0])  # which are converted on the host
    logits = np.hstack([X, -X])
    assert losses.softmax_cross_entropy(logits, labels) == losses.softmax_cross_entropy(logits, labels.astype(">i8"))
    metric = metrics.r_squared()
    with pytest.raises(DtypeError, match=f"expected prediction {held}"):
        metric.update(metric.init(), odd, X)
