"""Data: the bundled set, splits, the order of batches, and what is refused."""

from importlib import resources
from itertools import islice
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from funcnet.data import Batches, batch_rows, check_data, digits, epoch_order, split, steps_per_epoch
from funcnet.errors import ChecksumError, ConfigError, DataError, DtypeError, LabelError, ShapeError
from funcnet.types import Padded

ROWS = np.arange(60, dtype=np.float32).reshape(20, 3)
LABELS = np.arange(20, dtype=np.int32) % 4
NUMBERS = np.arange(20)


# The bundled set.


def test_digits():
    images, labels = digits()
    assert (images.shape, images.dtype, labels.shape, labels.dtype) == ((1797, 64), np.float32, (1797,), np.int32)
    assert (images.min(), images.max(), (images * 16).sum(dtype=int)) == (0, 1, 561718)
    assert (images[0, :8] * 16).tolist() == [0, 0, 5, 13, 9, 1, 0, 0]
    assert np.bincount(labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]


def test_digits_are_those_of_scikit_learn():
    reference = pytest.importorskip("sklearn.datasets").load_digits()
    np.testing.assert_array_equal(digits()[0] * 16, reference.data)
    np.testing.assert_array_equal(digits()[1], reference.target)


def test_digits_are_fresh_arrays():
    digits()[0][:] = 0
    assert digits()[0].any()


def test_a_changed_file_is_found(monkeypatch, tmp_path):
    changed = bytearray(resources.files("funcnet.data").joinpath("digits.xz").read_bytes())
    changed[1000] ^= 1
    (tmp_path / "digits.xz").write_bytes(changed)
    monkeypatch.setattr(resources, "files", lambda package: tmp_path)
    with pytest.raises(ChecksumError, match=r"digits\(\): expected a file of SHA-256 b87d7d.*, got .*; install"):
        digits()


def test_the_attribution_is_there():
    notice = (Path(__file__).parent.parent / "NOTICE").read_text()
    for words in ("Alpaydin", "Kaynak", "10.24432/C50P49", "CC BY 4.0", "funcnet/data/digits.xz"):
        assert words in notice


# Splits.


@pytest.mark.parametrize("stratified", [False, True])
@pytest.mark.parametrize("fractions", [(0.8, 0.2), (0.5, 0.25, 0.25), (1.0,), (0.1,) * 10])
def test_split_has_each_row_once(fractions, stratified):
    parts = split(ROWS, LABELS, fractions=fractions, seed=3, stratified=stratified)
    assert [len(x) for x, _ in parts] == [round(20 * fraction) for fraction in fractions]
    rows = np.concatenate([x for x, _ in parts])
    labels = np.concatenate([target for _, target in parts])
    order = rows[:, 0].astype(int) // 3
    assert sorted(order) == list(range(20))
    np.testing.assert_array_equal(labels, LABELS[order])
    np.testing.assert_array_equal(rows, ROWS[order])


def test_split_is_a_function_of_the_seed():
    first, again, other = (split(ROWS, LABELS, seed=seed)[0][0] for seed in (1, 1, (1, 2)))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    assert not np.array_equal(first, ROWS[:16])


def test_split_keeps_arrays_on_the_device():
    parts = split(jnp.asarray(ROWS), jnp.asarray(LABELS))
    assert all(isinstance(array, jax.Array) for part in parts for array in part)
    np.testing.assert_array_equal(parts[1][0], split(ROWS, LABELS)[1][0])


@given(st.lists(st.integers(0, 4), min_size=30, max_size=80), st.integers(0, 9))
def test_stratified_shares(labels, seed):
    labels = np.array(labels)
    first, second = split(np.zeros((len(labels), 1)), labels, fractions=(0.7, 0.3), seed=seed, stratified=True)
    for label, count in zip(*np.unique(labels, return_counts=True), strict=True):
        in_first = int(np.sum(first[1] == label))
        assert in_first + np.sum(second[1] == label) == count
        # Within one row for classes of at most average size, otherwise in proportion more.
        assert abs(in_first - 0.7 * count) <= 1 + 5 * count / len(labels)


@pytest.mark.parametrize("target", [np.array(["a", "b"] * 6, object), {"class": np.array(["a", "b"] * 6)}])
def test_stratified_texts(target):
    (_, train), (_, test) = split(np.zeros((12, 1)), target, fractions=(0.5, 0.5), stratified=True)
    for part in (train, test):
        assert sorted(part["class"] if isinstance(part, dict) else part) == ["a"] * 3 + ["b"] * 3


def test_stratified_digits():
    (_, train), (_, test) = split(*digits(), fractions=(0.8, 0.2), stratified=True)
    np.testing.assert_allclose(np.bincount(test) / np.bincount(np.r_[train, test]), 0.2, atol=1 / 174)
    assert not np.array_equal(test, np.sort(test))


@pytest.mark.parametrize(
    "error, message, arrays, options",
    [
        (DataError, "expected x and target of one length, got 20 and 19 rows", (ROWS, LABELS[1:]), {}),
        (DataError, "expected x/a and x/b of one length, got 20 and 19 rows", ({"a": ROWS, "b": LABELS[1:]},), {}),
        (DataError, "expected x and weights of one length, got 20 and 19", (ROWS, LABELS, None, LABELS[1:]), {}),
        (ConfigError, r"expected fractions by name, .* write fractions=\(0.8, 0.2\)", (ROWS, LABELS, (0.8, 0.2)), {}),
        (DataError, "expected at least one row for each of 2 parts, 0.99, 0.01, got 20 rows in all; ", (ROWS, LABELS),
         {"fractions": (0.99, 0.01)}),
        (DataError, r"expected x with at least one row.*\(0, 3\)", (ROWS[:0], LABELS[:0]), {}),
        (ConfigError, r"expected fractions .* the sum 1, got \(0.8, 0.3\)", (ROWS, LABELS), {"fractions": (0.8, 0.3)}),
        (ConfigError, "expected fractions to be positive numbers", (ROWS, LABELS), {"fractions": (1.2, -0.2)}),
        (ConfigError, "expected fractions to be positive numbers", (ROWS, LABELS), {"fractions": ()}),
        (ConfigError, "expected fractions to be positive numbers .* got 0.8", (ROWS, LABELS), {"fractions": 0.8}),
        (ConfigError, r"expected fractions to be positive .* got \('a',\)", (ROWS, LABELS), {"fractions": ("a",)}),
        (ConfigError, "expected seed to be a non-negative integer .* got -1", (ROWS, LABELS), {"seed": -1}),
        (LabelError, r"expected target of .* texts and shape \(n,\).*argmax", (ROWS, ROWS), {"stratified": True}),
        (LabelError, "expected target of integers", (ROWS, LABELS * 1.0), {"stratified": True}),
        (LabelError, "expected target of integers", (ROWS, {"a": LABELS, "b": LABELS}), {"stratified": True}),
    ],
)  # fmt: skip
def test_split_errors(error, message, arrays, options):
    with pytest.raises(error, match=f"^split: {message}"):
        split(*arrays, **options)


def test_split_keeps_groups_together():
    groups = np.repeat([7, 3, 9, 1, 5], [10, 20, 5, 5, 10])
    parts = split(np.arange(50.0), groups, fractions=(0.6, 0.2, 0.2), groups=groups, seed=2)
    assert sorted(np.concatenate([part[0] for part in parts])) == list(range(50))
    found = [set(part[1].tolist()) for part in parts]
    assert sum(map(len, found)) == 5 == len(set.union(*found))
    texts = split(np.arange(50.0), groups, fractions=(0.6, 0.2, 0.2), groups=groups.astype(str), seed=2)
    assert [len(part[0]) for part in texts] == [len(part[0]) for part in parts]
    assert len({len(split(np.arange(50.0), None, groups=groups, seed=seed)[1][0]) for seed in range(9)}) > 1


def test_split_in_the_order_of_the_rows():
    parts = split(np.arange(10.0), None, fractions=(0.5, 0.3, 0.2), shuffle=False)
    assert [part[0].tolist() for part in parts] == [[0, 1, 2, 3, 4], [5, 6, 7], [8, 9]]


@pytest.mark.parametrize(
    "options, error, message",
    [
        ({"groups": np.arange(10), "shuffle": False}, ConfigError, "expected one of stratified=True, groups and shuff"),
        ({"groups": np.arange(9)}, DataError, r"groups to be integers or texts of shape \(10,\), got int64 of shape"),
        ({"groups": np.arange(10.0)}, DataError, "groups to be integers or texts .*, got float64"),
        ({"groups": np.zeros(10, int)}, DataError, "expected groups for each of 2 parts, got 1 groups; take smaller"),
    ],
)
def test_impossible_groups(options, error, message):
    with pytest.raises(error, match=f"^split: {message}" if message.startswith("expected") else message):
        split(np.arange(10.0), None, **options)


def test_split_of_trees_has_as_many_entries_as_were_given():
    x = {"image": ROWS, "text": (jnp.asarray(NUMBERS),)}
    where, weights = NUMBERS > 3, NUMBERS / 20
    for data in [(x,), (x, None), (x, LABELS), (x, LABELS, where), (x, LABELS, None, weights)]:
        parts = split(*data, seed=3)
        assert [len(part) for part in parts] == [max(len(data), 2)] * 2
        for part in parts:
            order = part[0]["image"][:, 0] // 3
            np.testing.assert_array_equal(part[0]["text"][0], order)
            for entry, array in zip(part[1:], data[1:], strict=False):
                np.testing.assert_array_equal(entry, None if array is None else array[order.astype(int)])


# The order of batches.


def test_epoch_order():
    np.testing.assert_array_equal(epoch_order(7, 3, 100), np.random.default_rng([7, 3]).permutation(100))
    np.testing.assert_array_equal(epoch_order((7, 8), 3, 100), np.random.default_rng([7, 8, 3]).permutation(100))
    assert not np.array_equal(epoch_order(7, 3, 100), epoch_order(7, 4, 100))


@given(st.integers(1, 40), st.data(), st.booleans(), st.booleans())
def test_each_row_once_an_epoch(n, data, drop_last, shuffle):
    batch_size = data.draw(st.integers(1, n))
    processes = data.draw(st.sampled_from([p for p in range(1, 9) if batch_size % p == 0]))
    steps = steps_per_epoch(n, batch_size, drop_last)
    for epoch in (0, 2):
        batches = [batch_rows(5, epoch * steps + i, n, batch_size, drop_last, shuffle=shuffle) for i in range(steps)]
        rows, where = (np.concatenate(arrays) for arrays in zip(*batches, strict=True))
        assert all(len(rows) == len(where) == batch_size for rows, where in batches)
        order = epoch_order(5, epoch, n) if shuffle else np.arange(n)
        kept = n // batch_size * batch_size if drop_last else n
        np.testing.assert_array_equal(rows[where], order[:kept])
        # Only the end is filled up, with the start of the same order.
        assert where[:kept].all()
        assert not where[kept:].any()
        np.testing.assert_array_equal(rows[~where], order[: steps * batch_size - kept])
        # Process p of P has the p-th part of each batch: together they see each row once too.
        shares = (steps, processes, -1)
        seen = [rows.reshape(shares)[:, p][where.reshape(shares)[:, p]] for p in range(processes)]
        assert sorted(np.concatenate(seen)) == sorted(order[:kept])


def test_batch_rows_by_hand():
    rows = [batch_rows(0, step, 5, 2, shuffle=False)[0].tolist() for step in range(4)]
    assert rows == [[0, 1], [2, 3], [4, 0], [0, 1]]
    assert batch_rows(0, 2, 5, 2, shuffle=False)[1].tolist() == [True, False]
    assert batch_rows(0, 2, 5, 2, drop_last=True, shuffle=False)[0].tolist() == [0, 1]


@pytest.mark.parametrize("batch_size, drop_last, steps", [(5, False, 2), (4, False, 3), (4, True, 2), (10, True, 1)])
def test_steps_per_epoch(batch_size, drop_last, steps):
    assert steps_per_epoch(10, batch_size, drop_last) == steps


@pytest.mark.parametrize("function", ["steps_per_epoch", "batch_rows", "Batches"])
@pytest.mark.parametrize(
    "error, message, n, batch_size",
    [
        (DataError, "expected batch_size to be at most 20, the number of rows, got 21", 20, 21),
        (ConfigError, "expected batch_size to be a positive integer, got 0", 20, 0),
        (ConfigError, "expected batch_size to be a positive integer, got 2.0", 20, 2.0),
        (ConfigError, "expected batch_size to be a positive integer, got True", 20, True),
        (DataError, "at least one row", 0, 1),
    ],
)
def test_batch_sizes(function, error, message, n, batch_size):
    calls = {
        "steps_per_epoch": lambda: steps_per_epoch(n, batch_size),
        "batch_rows": lambda: batch_rows(0, 0, n, batch_size),
        "Batches": lambda: Batches(ROWS[:n], LABELS[:n], batch_size),
    }
    with pytest.raises(error, match=f"^{function}: .*{message}"):
        calls[function]()


@pytest.mark.parametrize(
    "message, call",
    [
        ("epoch_order: expected seed to be a non-negative integer or a tuple", lambda: epoch_order("a", 0, 5)),
        (r"epoch_order: expected seed .* got \(\)", lambda: epoch_order((), 0, 5)),
        ("batch_rows: expected step to be an integer >= 0, got -1", lambda: batch_rows(0, -1, 5, 2)),
        ("Batches: expected seed", lambda: Batches(ROWS, LABELS, 5, seed=1.5)),
        ("Batches: expected epochs to be a positive integer, got 0", lambda: Batches(ROWS, LABELS, 5, epochs=0)),
        ("Batches.set_state: expected {'step': integer}, got 3", lambda: Batches(ROWS, LABELS, 5).set_state(3)),
        ("Batches.set_state: expected step .* got -3", lambda: Batches(ROWS, LABELS, 5).set_state({"step": -3})),
    ],
)
def test_impossible_arguments(message, call):
    with pytest.raises(ConfigError, match=message):
        call()


def test_batches_of_two_lengths():
    with pytest.raises(DataError, match="Batches: expected x and target of one length, got 20 and 19 rows"):
        Batches(ROWS, LABELS[1:], 4)


@pytest.mark.parametrize(
    "arrays, options, message",
    [
        (
            ({"a": ROWS, "b": [LABELS, LABELS[1:]]}, None),
            {},
            "expected x/a and x/b/1 of one length, got 20 and 19 rows",
        ),
        ((ROWS, None), {"where": LABELS[1:] > 3}, "expected x and where of one length, got 20 and 19 rows"),
        (
            (ROWS, None),
            {"where": {"a": NUMBERS > 3}},
            "expected batch_size to divide the rows if where is a dictionary, got 3 for",
        ),
    ],
)
def test_batches_of_trees_that_do_not_fit(arrays, options, message):
    with pytest.raises((ConfigError, DataError), match=f"^Batches: {message}"):
        Batches(*arrays, 3, **options)


# Batches.


def flat(batches):
    return [np.concatenate([np.ravel(part) for part in batch]) for batch in batches]


def test_batches_are_those_of_batch_rows():
    batches = Batches(ROWS, LABELS, 6, seed=4, epochs=2)
    steps = 0
    for step, (x, target, where) in enumerate(batches):
        rows, expected = batch_rows(4, step, 20, 6)
        np.testing.assert_array_equal(x, ROWS[rows])
        np.testing.assert_array_equal(target, LABELS[rows])
        np.testing.assert_array_equal(where, expected)
        steps += 1
    assert steps == 2 * steps_per_epoch(20, 6)


def test_batches_of_trees_with_where_and_weights():
    x = {"image": ROWS, "text": (LABELS,)}
    where, weights = np.arange(40).reshape(20, 2) % 3 > 0, NUMBERS / 20
    for i, batch in enumerate(Batches(x, None, 6, where=where, weights=weights, seed=4)):
        rows, mask = batch_rows(4, i, 20, 6)
        np.testing.assert_array_equal(batch[0]["image"], ROWS[rows])
        np.testing.assert_array_equal(batch[0]["text"][0], LABELS[rows])
        np.testing.assert_array_equal(batch[2], where[rows] & mask[:, None])
        np.testing.assert_array_equal(batch[3], weights[rows])
        assert batch[1] is None
    by_parts = Batches(x, LABELS, 5, where={"a": NUMBERS > 3}, weights=weights)
    assert all(batch[2]["a"].shape == (5,) for batch in by_parts)
    assert all(batch[2] is None for batch in Batches(x, LABELS, 5, weights=weights))


@pytest.mark.parametrize("batch_size, drop_last, parts", [(5, False, 2), (6, True, 2), (6, False, 3)])
def test_a_mask_only_where_batches_are_incomplete(batch_size, drop_last, parts):
    assert {len(batch) for batch in Batches(ROWS, LABELS, batch_size, drop_last=drop_last)} == {parts}


def test_each_pass_is_the_next_epoch():
    batches = Batches(ROWS, LABELS, 5)
    first, second = flat(batches), flat(batches)
    assert len(first) == len(second) == 4
    assert not np.array_equal(first, second)
    np.testing.assert_array_equal(first + second, flat(Batches(ROWS, LABELS, 5, epochs=2)))
    unshuffled = Batches(ROWS, LABELS, 5, shuffle=False)
    np.testing.assert_array_equal(flat(unshuffled), flat(unshuffled))


def test_batches_without_end():
    assert len(list(islice(Batches(ROWS, LABELS, 5, epochs=None), 50))) == 50


@pytest.mark.parametrize("done", [0, 1, 3, 4, 7, 8, 11])  # of 2 epochs a pass, 4 batches an epoch
def test_resume_is_exact(done):
    whole = Batches(ROWS, LABELS, 6, seed=(1, 2), epochs=3)
    iterator = iter(whole)
    for _ in range(done):
        next(iterator)
    state = whole.get_state()
    assert state == {"step": done}
    rest = flat(iterator)
    assert len(rest) == 12 - done

    resumed = Batches(ROWS, LABELS, 6, seed=(1, 2), epochs=3)
    resumed.set_state(state)
    np.testing.assert_array_equal(flat(resumed), rest)


def test_batches_of_a_device_array():
    (x, target), *_ = Batches(jnp.asarray(ROWS), LABELS, 5)
    assert isinstance(x, jax.Array)
    np.testing.assert_array_equal(x[:, 0] // 3, np.arange(20)[batch_rows(0, 0, 20, 5)[0]])
    assert isinstance(target, np.ndarray)


# What is refused, and what is converted.


@pytest.mark.parametrize(
    "x, target, dtypes",
    [
        (ROWS, LABELS, ("float32", "int32")),
        (ROWS.astype(np.float64), LABELS.astype(np.int64), ("float32", "int32")),
        (ROWS.astype(">f8"), LABELS.astype(">i8"), ("float32", "int32")),
        (ROWS.astype(">f4"), LABELS.astype(">i2"), ("float32", "int16")),
        (ROWS.astype(np.float16), LABELS.astype(np.uint8), ("float16", "uint8")),
        (ROWS.astype(jnp.bfloat16), LABELS % 2 == 0, ("bfloat16", "bool")),
        (ROWS[:, ::-1], ROWS[:, :1], ("float32", "float32")),
        (np.asfortranarray(ROWS), ROWS[:, 0].astype(np.float64), ("float32", "float32")),
        (ROWS.tolist(), LABELS.tolist(), ("float32", "int32")),
        (jnp.asarray(ROWS), jnp.asarray(LABELS), ("float32", "int32")),
    ],
)
def test_conversions(x, target, dtypes):
    for given_array, array, dtype in zip((x, target), check_data(x, target), dtypes, strict=True):
        assert array.dtype == np.dtype(dtype)
        np.testing.assert_array_equal(np.asarray(array, np.float64), np.asarray(given_array, np.float64))
        if isinstance(given_array, jax.Array):
            assert array is given_array
        else:
            assert array.flags.c_contiguous
            assert array.dtype.isnative
        assert jnp.asarray(array).dtype == array.dtype  # jax has nothing left to convert


def test_64_bit_mode_keeps_64_bits(x64):
    x, target = check_data(ROWS.astype(">f8"), LABELS.astype(np.int64) + 2**40)
    assert (x.dtype, target.dtype) == (np.float64, np.int64)
    assert x.dtype.isnative
    assert target[3] == 2**40 + 3


def test_no_copy_where_none_is_needed():
    x, target = check_data(ROWS, LABELS)
    assert x is ROWS
    assert target is LABELS


def test_integers_on_demand():
    tokens, _ = check_data(LABELS.reshape(4, 5).astype(np.int64), np.ones((4, 2)), integers=True)
    assert tokens.dtype == np.int32
    assert check_data(ROWS, LABELS, integers=True)[0].dtype == np.float32


def changed(array, index, value):
    array = np.array(array)
    array[index] = value
    return array


@pytest.mark.parametrize(
    "error, message, x, target",
    [
        (DataError, r"x\[12, 2\] is nan; 1 of 20 rows have such values", changed(ROWS, (12, 2), np.nan), LABELS),
        (DataError, r"x\[12, 2\] is nan; 1 of 20", jnp.asarray(changed(ROWS, (12, 2), np.nan)), LABELS),
        (DataError, r"x\[3, 0\] is -inf; 2 of 20", changed(ROWS, ([3, 3, 5], [0, 2, 1]), -np.inf), LABELS),
        (DataError, r"target\[7\] is inf; 1 of 20", ROWS, changed(ROWS[:, 0], 7, np.inf)),
        (DataError, r"x\[1, 1\] is 1e\+300, which float32 cannot", changed(np.float64(ROWS), (1, 1), 1e300), LABELS),
        (LabelError, r"target\[3\] is 1099511627776, which int32 cannot", ROWS, changed(np.int64(LABELS), 3, 2**40)),
        (DataError, "expected x and target of one length, got 20 and 19 rows", ROWS, LABELS[1:]),
        (DataError, r"expected x with at least one row and no empty axis, got shape \(0, 3\)", ROWS[:0], LABELS[:0]),
        (DataError, r"expected x with at least one row and no empty axis, got shape \(20, 0\)", ROWS[:, :0], LABELS),
        (DataError, r"expected target with at least one row.*shape \(\)", ROWS, np.float32(1)),
        (DataError, "expected x to be an array, got list", [[1.0], [1.0, 2.0]], LABELS[:2]),
        (DataError, "expected x without masked values", np.ma.masked_less(ROWS, 3), LABELS),
        (DataError, r"expected \(x, target\), got an array of dtype int32.*look swapped", LABELS, ROWS),
        (
            DtypeError,
            "expected x of a floating dtype, got an array of dtype uint8 .*; convert.*scale images",
            np.uint8(ROWS),
            LABELS,
        ),
        (DtypeError, "expected x of a floating dtype, got an array of dtype int32", jnp.int32(ROWS), LABELS),
        (DtypeError, "expected x of a floating dtype, got an array of dtype bool", ROWS > 3, LABELS),
        (
            DtypeError,
            "expected x/a of a floating dtype, .*; make features .*data.prepare",
            {"a": np.array(["b"])},
            None,
        ),
        (DtypeError, "expected x of a floating dtype, got an array of dtype object", ROWS.astype(object), LABELS),
        (
            DtypeError,
            "expected x of a floating dtype, got an array of dtype complex64",
            ROWS.astype(np.complex64),
            LABELS,
        ),
        (DtypeError, "expected target of a numeric dtype, got <U", ROWS, LABELS.astype(str)),
        (DtypeError, "expected target of a numeric dtype, got object", ROWS, LABELS.astype(object)),
    ],
)
def test_refused(error, message, x, target):
    with pytest.raises(error, match=f"^check_data: .*{message}"):
        check_data(x, target)


BAD = changed(ROWS[:, 0], 7, np.nan)
TIMES = np.arange(40).reshape(20, 2)


@pytest.mark.parametrize(
    "error, message, data",
    [
        (DataError, r"x/b\[12, 2\] is nan; 1 of 20", ({"a": ROWS, "b": changed(ROWS, (12, 2), np.nan)}, None)),
        (DataError, r"target/0\[7\] is nan; 1 of 20", (ROWS, [BAD, LABELS])),
        (DataError, r"target/b\[7\] is nan", (ROWS, {"a": BAD, "b": BAD}, {"a": NUMBERS != 7})),
        (DataError, r"target\[7\] is nan", (ROWS, BAD, {"a": NUMBERS != 7})),  # a part without a mask may read it
        (DataError, r"target\[3, 1\] is nan", (ROWS, changed(TIMES / 2, (3, 1), np.nan), TIMES != 6)),
        (DataError, r"x\[12, 2\] is nan", (changed(ROWS, (12, 2), np.nan), LABELS, NUMBERS != 12)),
        (DataError, "expected x/0 and target of one length, got 3 and 20 rows; .* np.stack", (list(ROWS), LABELS)),
        (DataError, "expected x and where of one length, got 20 and 19", (ROWS, LABELS, LABELS[1:] > 3)),
        (DtypeError, "expected where/a of dtype bool, got int64; compare it", (ROWS, LABELS, {"a": np.int64(LABELS)})),
        (DtypeError, "expected weights of numbers, got dtype bool; pass", (ROWS, LABELS, None, NUMBERS > 3)),
        (DataError, "expected weights to be finite numbers >= 0, got nan at row 7", (ROWS, LABELS, NUMBERS != 8, BAD)),
        (ShapeError, r"expected where and weights over .* got \(20, 3\) and \(20, 2\)", (ROWS, ROWS, ROWS > 3, TIMES)),
        (DtypeError, r"expected x/0.where of dtype bool, got float32; compare it",
         ((Padded(ROWS, ROWS),), LABELS)),
        (ShapeError, r"expected x.where of shape \(20,\) or \(20, 3\), got \(20, 2\)",
         (Padded(ROWS, TIMES > 3), LABELS)),
        (DataError, "expected x with at least one array, got None", (None, LABELS)),
        (DtypeError, "expected x/text of a floating dtype, got an array of dtype int64",
         ({"text": np.int64(LABELS)}, None)),
    ],
)  # fmt: skip
def test_trees_refused(error, message, data):
    with pytest.raises(error, match=f"^check_data: {message}"):
        check_data(*data)


def test_what_where_excludes_may_be_anything():
    bad = changed(np.int64(LABELS), 7, 2**40)
    _, target, where = check_data(ROWS, {"a": BAD, "b": bad}, {"a": NUMBERS != 7, "b": NUMBERS < 7})
    assert np.isnan(target["a"][7])
    assert (where["a"].dtype, target["b"].dtype) == (bool, np.int32)
    check_data(ROWS, changed(TIMES / 2, (3, 1), np.nan), TIMES != 7)
    check_data(ROWS, BAD, (TIMES != 14) & (TIMES != 15))  # a label per row, of which no time counts
    padded = Padded(changed(ROWS, (3, 1), np.nan), TIMES[:, 0] != 6)
    check_data(ROWS, padded)
    with pytest.raises(DataError, match=r"x\[3, 1\] is nan"):
        check_data(padded, None)
    assert len(check_data(ROWS, LABELS, weights=changed(NUMBERS / 2, 7, np.nan), where=NUMBERS != 7)) == 4


def test_trees_are_converted_leaf_by_leaf():
    """Arrays in a list or tuple are never stacked; lists of numbers are one array."""
    x, target = check_data((ROWS.astype(">f8"), [[1.0]] * 20, {"a": LABELS.tolist()}), None, integers=True)
    assert [leaf.dtype for leaf in jax.tree.leaves(x)] == [np.float32, np.float32, np.int32]
    assert (x[1].shape, x[2]["a"].shape, target) == ((20, 1), (20,), None)
    assert check_data([ROWS, ROWS], LABELS)[0][1] is ROWS
    assert check_data(([1.0, 2.0], [3.0, 4.0]), None)[0].shape == (2, 2)


def test_token_ids_must_fit_too():
    with pytest.raises(DataError, match=r"x\[0, 1\] is 4294967296, which int32 cannot hold"):
        check_data(np.array([[1, 2**32]]), np.array([0]), integers=True)
