"""Data of other libraries as users have them: loaders, frames, data sets and generators, trained on and resumed.

What needs torch, grain, datasets or polars runs where they are installed.
"""

import json

import jax
import numpy as np
import pytest

from funcnet import data, layers, losses, optimizers, training
from funcnet.errors import ConfigError, DataError, DtypeError

X = np.random.default_rng(0).standard_normal((20, 3), np.float32)
Y = (X[:, 0] > 0).astype(np.int64)
ARRAYS = data.Batches(X, Y, 5, shuffle=False)  # the same batches, from arrays
MODEL, LOSS, OPTIMIZER = layers.dense(2), losses.softmax_cross_entropy, optimizers.sgd(0.1)


def fit(rows, **options):
    """The last report."""
    return list(training.fit(MODEL, LOSS, OPTIMIZER, rows, **{"epochs": 2, **options}))[-1]


def params_of(report):
    return [np.asarray(leaf).tolist() for leaf in jax.tree.leaves(report.state.optimizer.params)]


def resumes_exactly(make, steps, **options):
    """A run that goes on from each report, through JSON as a checkpoint does, ends in the same bits."""
    run = {"epochs": 3, "report_steps": 1, **options}
    whole = list(training.fit(MODEL, LOSS, OPTIMIZER, make(), **run))
    assert len(whole) == steps
    for report in whole[:-1]:
        end = fit(make(), state=report.state, cursor=json.loads(json.dumps(report.cursor)), **run)
        assert end.step == steps
        assert params_of(end) == params_of(whole[-1])


@pytest.fixture(scope="module")
def expected():
    return params_of(fit(ARRAYS))


# Functions and generators


def batches(size=5):
    for start in range(0, 20, size):
        yield X[start : start + size], Y[start : start + size]


def test_a_function_is_called_for_each_pass(expected):
    calls = []

    def counted():
        calls.append(1)
        return batches()

    assert params_of(fit(batches)) == expected
    assert params_of(fit(data.prefetch(batches))) == expected
    assert params_of(fit(counted)) == expected
    assert len(calls) == 2
    assert fit(batches).cursor is None


def test_a_function_whose_iterator_has_a_position(expected):
    def fresh():
        return data.Batches(X, Y, 5, seed=3)

    resumes_exactly(lambda: fresh, 12)


def test_what_is_no_source_of_batches():
    wanted = r"fit: expected data to be \(x, target\) or an iterable of batches"
    with pytest.raises(DataError, match=rf"{wanted}, got a function: missing a required .*; a function is called"):
        fit(lambda rows: rows)
    with pytest.raises(DataError, match="fit: expected the function to give an iterator of batches, got 3"):
        fit(lambda: 3)
    with pytest.raises(DataError, match="prefetch: expected batches to be an iterable, or a function that gives one"):
        data.prefetch(3)
    with pytest.raises(DataError, match="they ended before pass 2; give .* a function that makes the iterator"):
        fit(batches())
    assert fit(batches(), epochs=1).step == 4


class Examples:
    """A data set as torch and grain read one."""

    def __len__(self):
        return 20

    def __getitem__(self, i):
        return X[i], Y[i]

    def __repr__(self):  # grain compares it before it goes on from a position
        return "Examples()"


def test_examples_are_not_batches():
    with pytest.raises(DataError, match="got a Examples Examples.*; a loader makes batches of the examples"):
        fit(Examples())
    with pytest.raises(DataError, match=r"batch 0 of pass 1: .* got shape \(\); this is a single example, so stack"):
        fit(lambda: zip(X, Y, strict=True))


def test_arrays_by_name_are_chosen():
    named = [{"image": x, "label": y} for x, y in batches()]
    with pytest.raises(DataError, match=r"got a dict of 'image', 'label'; choose two of them by name, .* lambda"):
        fit(lambda: named)
    with pytest.raises(DataError, match=r"evaluate: .* got a dict of 'image', 'label'; choose two of them by name"):
        training.evaluate(MODEL, LOSS, {}, (), named[0])
    assert fit(lambda: ((batch["image"], batch["label"]) for batch in named)).step == 8


def test_batches_are_joined_for_validation_and_evaluation():
    joined = r"join batches, x, target = map\(np.concatenate, zip\(\*batches\)\); only the data of fit"
    for source in (batches, batches(), ARRAYS):
        with pytest.raises(DataError, match=f"fit: expected validation .*{joined}"):
            fit((X, Y), validation=source)
        with pytest.raises(DataError, match=f"evaluate: expected data .*{joined}"):
            training.evaluate(MODEL, LOSS, {}, (), source)
    x, target = map(np.concatenate, zip(*batches(), strict=True))
    assert np.array_equal(x, X)
    assert np.array_equal(target, Y)


# A last batch that is smaller


def test_a_smaller_last_batch_is_a_step_of_its_mean():
    """As by hand: each step is a descent on the mean over the rows of its batch."""
    params = fit(lambda: batches(8), epochs=1).state.optimizer.params
    start = training.create_state(MODEL, OPTIMIZER, 0, X).optimizer.params
    w, b = np.asarray(start["kernel"], np.float64), np.asarray(start["bias"], np.float64)
    for x, y in batches(8):
        p = np.exp(x @ w + b)
        p = p / p.sum(1, keepdims=True) - np.eye(2)[y]
        w, b = w - 0.1 * x.T @ p / len(x), b - 0.1 * p.mean(0)
    np.testing.assert_allclose(params["kernel"], w, atol=1e-6)
    np.testing.assert_allclose(params["bias"], b, atol=1e-6)


def test_the_mean_loss_counts_rows_and_not_batches():
    still = optimizers.sgd(1e-30)
    *_, report = training.fit(MODEL, LOSS, still, lambda: batches(8), epochs=1)
    params = report.state.optimizer.params
    whole = training.evaluate(MODEL, LOSS, params, (), (X, Y))
    assert float(report.metrics["loss"]) == pytest.approx(float(whole["loss"]), rel=1e-6)


def test_a_run_goes_on_with_the_smaller_batch():
    class Source:
        def __init__(self):
            self.at = 0

        def __iter__(self):
            self.at = 0 if self.at == 3 else self.at
            while self.at < 3:
                self.at += 1
                yield X[8 * self.at - 8 : 8 * self.at], Y[8 * self.at - 8 : 8 * self.at]

        def get_state(self):
            return str(self.at).encode()  # as grain's DataLoader gives bytes

        def set_state(self, state):
            self.at = int(state.decode())

    resumes_exactly(Source, 9)


@pytest.mark.parametrize(
    "sizes, options, error, message",
    [
        ((8, 4, 6), {}, DataError, "batch 2 of pass 1: expected batches of one length.*got 6 rows after 8 and 4"),
        ((8, 5), {"accumulate": 2}, ConfigError, "expected accumulate to divide the 5 rows of a batch, got 2"),
    ],
)
def test_a_batch_of_a_wrong_length(sizes, options, error, message):
    with pytest.raises(error, match=message):
        fit([(X[:n], Y[:n]) for n in sizes], epochs=1, **options)


# torch


@pytest.fixture
def torch():
    return pytest.importorskip("torch")


def loader(torch, x=X, **options):
    dataset = torch.utils.data.TensorDataset(torch.as_tensor(x), torch.tensor(Y))
    return torch.utils.data.DataLoader(dataset, **{"batch_size": 5, **options})


@pytest.mark.peers
def test_a_loader_of_torch(torch, expected):
    assert params_of(fit(loader(torch))) == expected
    assert params_of(fit(data.prefetch(loader(torch)))) == expected
    assert params_of(fit(loader(torch, batch_size=8))) == params_of(fit(lambda: batches(8)))
    assert fit(loader(torch, shuffle=True, batch_size=8, drop_last=True)).step == 4
    with pytest.raises(ConfigError, match="expected batches with get_state and set_state"):
        fit(loader(torch), cursor={"epoch": 0, "position": 1})


@pytest.mark.peers
def test_tensors_of_torch(torch):
    x, y = torch.tensor(X), torch.tensor(Y)
    plain = params_of(fit((X, Y)))
    assert params_of(fit((x, y), validation=(x, y))) == plain
    assert fit((x.double(), y)).state.optimizer.params["kernel"].dtype == np.float32
    (part, _), _ = data.split(x, y)
    assert isinstance(part, np.ndarray)
    assert data.prepare(x, y).task == "classes"
    needs_grad = x.clone().requires_grad_()
    for rows in ((needs_grad, y), [(needs_grad, y)]):
        with pytest.raises(DataError, match=r"expected x to be an array, got Tensor: .*detach\(\)"):
            fit(rows)


@pytest.mark.peers
def test_bfloat16_of_torch_stays_bfloat16(torch):
    x = torch.tensor(X).bfloat16()
    as_jax = jax.numpy.asarray(X).astype("bfloat16")
    for rows, same in (((x, Y), (as_jax, Y)), ([(x, Y)], [(as_jax, Y)])):
        assert params_of(fit(rows)) == params_of(fit(same))
    buffer = torch.zeros(20, 3).bfloat16()

    def refilled():
        for value in (1.0, 2.0):
            buffer.fill_(value)
            yield buffer, Y

    assert [float(x[0, 0]) for x, _ in data.prefetch(refilled, size=2)] == [1.0, 2.0]


# grain


@pytest.mark.parametrize("size, steps", [(5, 12), (8, 9)])
def test_grain_goes_on_exactly(size, steps):
    grain = pytest.importorskip("grain")
    shuffled = grain.MapDataset.source(Examples()).shuffle(seed=1).batch(size)
    resumes_exactly(shuffled.to_iter_dataset, steps)
    resumes_exactly(lambda: data.prefetch(shuffled.to_iter_dataset()), steps)


def test_the_loader_of_grain_goes_on_exactly():
    grain = pytest.importorskip("grain")

    def make():
        sampler = grain.samplers.IndexSampler(num_records=20, shuffle=True, seed=0, num_epochs=1)
        operations = [grain.transforms.Batch(5)]
        return grain.DataLoader(data_source=Examples(), sampler=sampler, operations=operations)

    resumes_exactly(make, 12)


# Hugging Face


def test_data_sets_of_hugging_face(expected):
    datasets = pytest.importorskip("datasets")
    rows = datasets.Dataset.from_dict({"pixels": X, "label": Y}).with_format("numpy")
    assert params_of(fit((rows["pixels"][:], rows["label"][:]))) == params_of(fit((X, Y)))
    assert params_of(fit((rows["pixels"], rows["label"]))) == params_of(fit((X, Y)))

    def chosen():
        return ((batch["pixels"], batch["label"]) for batch in rows.iter(batch_size=5))

    assert params_of(fit(chosen)) == expected
    with pytest.raises(DataError, match="got a dict of 'label', 'pixels'; choose two of them by name"):
        fit(rows)
    table = datasets.Dataset.from_dict({"size": X[:, 0], "town": ["Bern", "Basel"] * 10, "label": Y})
    x, target = data.read_table(table, target="label")
    assert [x["town"][0], *target["label"][:2]] == ["Bern", *Y[:2]]


# Frames


def frames(library):
    module = pytest.importorskip(library)
    return module.DataFrame(dict(zip("abc", X.T, strict=True))), module.Series(Y)


@pytest.mark.parametrize("library", ["pandas", "polars"])
def test_frames_of_numbers_are_arrays(library, expected):
    x, target = frames(library)
    assert params_of(fit((x, target), validation=(x, target))) == params_of(fit((X, Y)))
    assert params_of(fit(data.Batches(x, target, 5, shuffle=False))) == expected
    assert params_of(fit(lambda: [(x[i : i + 5], target[i : i + 5]) for i in range(0, 20, 5)])) == expected
    train, _ = data.split(x, target, stratified=True)
    assert data.prepare(*train).row_shape == (3,)
    with pytest.raises(DataError, match="got a DataFrame; put it into a tuple"):
        fit(x)


def test_frames_of_texts_go_through_read_table():
    pandas = pytest.importorskip("pandas")
    x = pandas.DataFrame({"a": X[:, 0], "town": ["Bern", "Basel"] * 10})
    for rows in ((x, Y), [(x, Y)]):
        with pytest.raises(DtypeError, match="columns of a table with data.read_table and data.prepare"):
            fit(rows)
    with pytest.raises(DtypeError, match="expected target of a numeric dtype, got .*; make classes of texts with"):
        fit((X, x["town"]))
    with pytest.raises(DataError, match=r"prepare: .* are given by read_table\(frame, target=…\)"):
        data.prepare(x, Y)


def test_frames_of_polars_with_nulls():
    polars = pytest.importorskip("polars")
    columns = {"a": [1.0, None, 2.0], "town": ["x", None, "y"], "ok": [True, None, False], "t": [0, 1, 1]}
    frame = polars.DataFrame(columns)
    x, target = data.read_table(frame, target="t")
    assert x["town"].tolist() == ["x", None, "y"]
    np.testing.assert_array_equal([x["a"], x["ok"]], [[1.0, np.nan, 2.0], [1.0, np.nan, 0.0]])
    assert target["t"].tolist() == [0, 1, 1]
    with pytest.raises(DataError, match=r"x\[1, 0\] is nan; 1 of 3 rows"):
        fit((frame.select("a"), frame["t"]))
    with pytest.raises(ConfigError, match=r"got a LazyFrame.*; write \.collect\(\) behind it"):
        data.read_table(frame.lazy(), target="t")
