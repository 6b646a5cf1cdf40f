"""Augmentation: values, randomness example by example, laws that all functions obey, and what is refused."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from numerics import usual_jit

from funcnet import data, errors, losses
from funcnet.data import channel_statistics, cutout, mixup, random_crop, random_flip, random_shift, standardize

KEY = jax.random.key(0)
PIXELS = np.arange(1, 1 + 40 * 5 * 4 * 2, dtype=np.float32).reshape(40, 5, 4, 2)  # all different, and none 0
ONE_HOT = np.eye(40, dtype=np.float32)

# name -> (key, images) -> images
RANDOM = {
    "random_crop": partial(random_crop, padding=2),
    "random_flip": random_flip,
    "random_shift": partial(random_shift, most=1.5),
    "cutout": partial(cutout, size=3),
    "mixup": lambda key, images: mixup(key, images, ONE_HOT)[0],
}
PER_IMAGE = {name: augment for name, augment in RANDOM.items() if name != "mixup"}
CASES = RANDOM | {"standardize": lambda key, images: standardize(images, 0.5, [2.0, 3.0])}


def moved(image, rows, columns):
    """y[i, j] = x[i + rows, j + columns], zeros beyond the border; by loops."""
    result = np.zeros_like(image)
    height, width = image.shape[:2]
    for i in range(height):
        for j in range(width):
            if 0 <= i + rows < height and 0 <= j + columns < width:
                result[i, j] = image[i + rows, j + columns]
    return result


# Laws.


def test_every_augmentation_has_a_case():
    public = {name for name in data.augmentation.__all__ if name != "channel_statistics"}
    assert public == set(CASES)


@pytest.mark.parametrize("name", CASES)
def test_jit_changes_nothing_and_the_dtype_stays(name, monkeypatch):
    compiled = usual_jit(CASES[name])
    got = compiled(KEY, PIXELS)
    with monkeypatch.context() as patch:
        # jax.random compiles its draws by itself, as users do here; what conftest.py chooses rounds them otherwise.
        patch.setattr(jax.random, "uniform", usual_jit(jax.random.uniform, static_argnames=("shape", "dtype")))
        np.testing.assert_allclose(got, CASES[name](KEY, PIXELS), rtol=1e-6)
    for dtype in (jnp.float32, jnp.bfloat16):
        augmented = jax.eval_shape(compiled, KEY, jnp.asarray(PIXELS, dtype))
        assert (augmented.shape, augmented.dtype) == (PIXELS.shape, dtype)


@pytest.mark.parametrize("name", RANDOM)
def test_one_key_one_result(name):
    first, again, other = (np.asarray(RANDOM[name](jax.random.key(seed), PIXELS)) for seed in (1, 1, 2))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@pytest.mark.parametrize("name", RANDOM)
def test_a_key_means_the_same_with_64_bit_numbers(name):
    narrow = RANDOM[name](KEY, PIXELS)
    with jax.enable_x64(True):
        wide = RANDOM[name](KEY, np.float64(PIXELS))
        assert wide.dtype == jnp.float64
    np.testing.assert_allclose(wide, narrow, rtol=1e-6, atol=1e-4)


@pytest.mark.parametrize("name", PER_IMAGE)
def test_each_image_has_its_own_draw(name):
    equal = np.asarray(PER_IMAGE[name](KEY, np.repeat(PIXELS[:1], 40, axis=0)))
    assert len(np.unique(equal, axis=0)) >= 2
    np.testing.assert_array_equal(PER_IMAGE[name](KEY, PIXELS)[0], equal[0])  # whatever the others are


@pytest.mark.parametrize("name", ["random_crop", "random_flip", "cutout"])
def test_images_of_bytes(name):
    """What moves pixels and does not calculate takes integers too."""
    images = np.uint8(PIXELS % 251 + 1)
    augmented = PER_IMAGE[name](KEY, images)
    assert augmented.dtype == jnp.uint8
    np.testing.assert_array_equal(augmented, PER_IMAGE[name](KEY, np.float32(images)))


def test_within_a_training_step():
    """Under jit, with the key of the step, in the middle of a loss."""

    @jax.jit
    def loss(key, images, labels):
        crop_key, mix_key = jax.random.split(key)
        images, targets = mixup(mix_key, random_crop(crop_key, images), jax.nn.one_hot(labels, 8))
        return losses.softmax_cross_entropy(images.reshape(40, 5, 8)[:, 0], targets)

    values = [float(loss(jax.random.key(seed), PIXELS / 1600, np.arange(40) % 8)) for seed in (0, 0, 1)]
    assert np.isfinite(values).all()
    assert values[0] == values[1] != values[2]


# Values.


def test_crop_moves_by_whole_pixels():
    cropped = np.asarray(random_crop(KEY, PIXELS, padding=1))
    moves = [(rows, columns) for rows in (-1, 0, 1) for columns in (-1, 0, 1)]
    found = [
        [move for move in moves if np.array_equal(moved(x, *move), y)] for x, y in zip(PIXELS, cropped, strict=True)
    ]
    assert all(len(fitting) == 1 for fitting in found)
    assert {fitting[0] for fitting in found} == set(moves)  # all of them, over forty images


def test_crop_without_padding_changes_nothing():
    np.testing.assert_array_equal(random_crop(KEY, PIXELS, padding=0), PIXELS)


def test_crop_reaches_its_padding():
    rows = np.asarray(random_crop(KEY, np.ones((400, 9, 1, 1), np.float32), padding=4)).sum((1, 2, 3))
    assert set(rows) <= {0, 5, 6, 7, 8, 9}  # 0 where the one column has moved out
    assert min(rows[rows > 0]) == 5


def test_flip_exchanges_left_and_right():
    flipped = np.asarray(random_flip(KEY, PIXELS))
    changed = np.array([not np.array_equal(x, y) for x, y in zip(PIXELS, flipped, strict=True)])
    np.testing.assert_array_equal(flipped[changed], PIXELS[changed][:, :, ::-1])
    assert 12 <= changed.sum() <= 28  # of 40; beyond with a chance of 1 in 100


def test_shift_by_whole_pixels_is_a_crop_and_by_parts_lies_between(monkeypatch):
    shifts = np.array([[1, -1], [0.25, 0], [0, -0.5], [-1.25, 0.75]], np.float32)
    monkeypatch.setattr(jax.random, "uniform", lambda *arguments: jnp.asarray(shifts))
    shifted = random_shift(KEY, PIXELS[:4], most=2)
    expected = [
        moved(PIXELS[0], 1, -1),
        0.75 * PIXELS[1] + 0.25 * moved(PIXELS[1], 1, 0),
        0.5 * PIXELS[2] + 0.5 * moved(PIXELS[2], 0, -1),
        sum(
            weight * moved(PIXELS[3], *move)
            for weight, move in [
                (0.25 * 0.25, (-2, 0)), (0.75 * 0.25, (-1, 0)), (0.25 * 0.75, (-2, 1)), (0.75 * 0.75, (-1, 1)),
            ]  # -1.25 is a quarter of the way from -1 to -2
        ),
    ]  # fmt: skip
    np.testing.assert_allclose(shifted, np.stack(expected), rtol=1e-6)


@pytest.mark.parametrize("most", [2, -2])
def test_shift_at_its_limits(monkeypatch, most):
    monkeypatch.setattr(jax.random, "uniform", lambda *arguments: jnp.full((1, 2), most, jnp.float32))
    np.testing.assert_array_equal(random_shift(KEY, PIXELS[:1], most=2)[0], moved(PIXELS[0], most, most))


def test_shift_stays_within_its_limit_and_keeps_the_range():
    ones = np.ones((200, 9, 9, 1), np.float32)
    shifted = np.asarray(random_shift(KEY, ones, most=1.5))
    assert shifted.min() == 0
    assert shifted.max() <= 1 + 1e-6
    np.testing.assert_allclose(shifted[:, 2:-2, 2:-2], 1, rtol=1e-6)
    np.testing.assert_array_equal(random_shift(KEY, PIXELS, most=0), PIXELS)


@pytest.mark.parametrize("size", [1, 2, 3])
def test_cutout_is_a_square_within_the_image(size):
    cut = np.asarray(cutout(KEY, np.ones((300, 4, 5, 2), np.float32), size=size))
    assert set(np.unique(cut)) == {0, 1}
    np.testing.assert_array_equal(cut[..., 0], cut[..., 1])  # all channels alike
    places = set()
    for image in cut[..., 0]:
        rows, columns = np.flatnonzero((image == 0).any(1)), np.flatnonzero((image == 0).any(0))
        assert (image[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] == 0).all()
        assert (image == 0).sum() == len(rows) * len(columns)
        assert max(len(rows), len(columns)) <= size
        places.add((rows[0], rows[-1], columns[0], columns[-1]))
    # Centres are all 20 pixels. A side of 2 ends at its centre; one of 3 has the centre in its middle.
    assert len(places) == 20
    if size == 3:
        assert {(0, 1, 0, 1), (2, 3, 3, 4), (0, 2, 0, 2)} <= places


def test_cutout_leaves_the_rest():
    cut = np.asarray(cutout(KEY, PIXELS, size=2))
    assert ((cut == PIXELS) | (cut == 0)).all()
    assert (cut == 0).sum((1, 2, 3)).max() == 2 * 2 * 2


@pytest.mark.parametrize("alpha", [0.2, 1.0, 50.0])
def test_mixup_mixes_images_and_targets_alike(alpha):
    images, targets = map(np.asarray, mixup(KEY, PIXELS, ONE_HOT, alpha))
    np.testing.assert_allclose(images, np.einsum("ij,jhwc->ihwc", targets, PIXELS), rtol=1e-5)
    np.testing.assert_allclose(targets.sum(1), 1, rtol=1e-6)
    assert ((targets >= 0).all(), (targets > 0).sum(1).max()) == (True, 2)
    assert (np.count_nonzero(targets, axis=0) <= 2).all()  # each is the partner of one
    # λ ~ Beta(α, α): mean ½, variance 1 / (4 (2 α + 1)). Where one is its own partner, the diagonal is 1.
    shares = np.diag(targets)[np.diag(targets) < 1]
    assert abs(shares.mean() - 0.5) < 0.2
    assert abs(shares.var() - 1 / (4 * (2 * alpha + 1))) < 0.05


def test_mixup_of_rows_and_values():
    """Not only images, and targets that are no classes."""
    x = np.arange(80, dtype=np.float32).reshape(40, 2)
    mixed, values = mixup(KEY, x, x[:, 0] * 10)
    np.testing.assert_allclose(values, mixed[:, 0] * 10, rtol=1e-6)


# Standardization.


def test_channel_statistics_against_numpy():
    images = np.random.default_rng(0).normal(3, [1, 4, 0.01], (2500, 3, 2, 3))
    mean, std = channel_statistics(images)
    np.testing.assert_allclose(mean, images.mean((0, 1, 2)), rtol=1e-13)
    np.testing.assert_allclose(std, images.std((0, 1, 2)), rtol=1e-13)


def test_channel_statistics_are_accurate_in_float32():
    """At a mean of 10⁴ and a spread of 1, E x² − (E x)² has no digit left."""
    images = np.float32(np.random.default_rng(1).normal(1e4, 1, (1200, 4, 4, 1)))
    mean, std = channel_statistics(images)
    assert (mean.dtype, std.dtype) == (np.float32, np.float32)
    np.testing.assert_allclose(std, np.std(np.float64(images)), rtol=1e-6)
    np.testing.assert_allclose(mean, np.mean(np.float64(images)), rtol=1e-7)


def test_standardized_images_have_mean_0_and_spread_1():
    standardized = standardize(PIXELS, *channel_statistics(PIXELS))
    mean, std = channel_statistics(standardized)
    np.testing.assert_allclose(mean, 0, atol=1e-6)
    np.testing.assert_allclose(std, 1, rtol=1e-6)
    with jax.enable_x64(True):
        wide = standardize(np.float64(PIXELS), *channel_statistics(np.float64(PIXELS)))
        np.testing.assert_allclose(wide, (PIXELS - PIXELS.mean((0, 1, 2), float)) / PIXELS.std((0, 1, 2), float))
    np.testing.assert_array_equal(standardize(PIXELS, 1, 2), (PIXELS - 1) / 2)


# Errors.

X = np.zeros((2, 4, 3, 1), np.float32)
BYTES = np.zeros((2, 4, 3, 1), np.uint8)
LABELS = np.array([0, 1], np.int32)
WITH_NAN = np.where(np.arange(2) == 1, np.nan, PIXELS)
CONFIG, DATA, DTYPE, SHAPE = errors.ConfigError, errors.DataError, errors.DtypeError, errors.ShapeError


@pytest.mark.parametrize("name", [name for name in CASES if name != "mixup"])  # which takes any rows
def test_no_batch_of_images(name):
    with pytest.raises(SHAPE, match=rf"^{name}: expected images of shape \(batch, .*\), got \(28, 28\); reshape"):
        CASES[name](KEY, np.zeros((28, 28), np.float32))
    with pytest.raises(DTYPE, match=f"^{name}: expected images to be an array, got None"):
        CASES[name](KEY, None)


@pytest.mark.parametrize("name", RANDOM)
def test_no_key(name):
    for key in (None, 3):
        with pytest.raises(DTYPE, match=f"^{name}: expected key to be a PRNG key, got {key}"):
            RANDOM[name](key, PIXELS)


@pytest.mark.parametrize(
    "error, message, function, arguments",
    [
        (CONFIG, "expected padding to be an integer >= 0, got -1", random_crop, (KEY, X, -1)),
        (CONFIG, "expected padding to be an integer >= 0, got 1.5", random_crop, (KEY, X, 1.5)),
        (CONFIG, "expected most to be a finite number >= 0, got -0.5", random_shift, (KEY, X, -0.5)),
        (
            DTYPE,
            "expected images of a floating dtype, got an array of dtype uint8 .*; .*scale",
            random_shift,
            (KEY, BYTES),
        ),
        (CONFIG, "expected size to be a positive integer, got 0", cutout, (KEY, X, 0)),
        (CONFIG, "expected size of at most 3, the images' shorter side, got 4", cutout, (KEY, X, 4)),
        (CONFIG, "expected alpha to be a finite number > 0, got 0", mixup, (KEY, X, X, 0)),
        (DTYPE, "expected images of a floating dtype, got an array of dtype uint8", mixup, (KEY, BYTES, X)),
        (
            DTYPE,
            "expected targets of a floating dtype, got an array of dtype int32 .*; .*one_hot",
            mixup,
            (KEY, X, LABELS),
        ),
        (SHAPE, r"expected as many .* got shapes \(3,\) and \(2, 4, 3, 1\)", mixup, (KEY, X, np.ones(3))),
        (DTYPE, "expected images of a floating dtype, got an array of dtype uint8", standardize, (BYTES, 0, 1)),
        (SHAPE, r"expected mean of shape \(1,\), got \(3,\); give one", standardize, (X, np.zeros(3), 1)),
        (SHAPE, r"expected std of shape \(1,\), got \(1, 1\); give one", standardize, (X, 0, np.ones((1, 1)))),
        (CONFIG, r"expected std to be positive, got \[0.0\]", standardize, (X, 0, np.zeros(1))),
        (SHAPE, r"expected images of shape .* got \(0, 4, 3, 1\)", channel_statistics, (X[:0],)),
        (DTYPE, "expected images of a floating dtype, got an array of dtype uint8", channel_statistics, (BYTES,)),
        (DATA, "expected channels that vary .* got mean 0.0 .* 0.0 in channel 0", channel_statistics, (X,)),
        (DATA, "expected channels that .* finite, got mean nan .* in channel 1", channel_statistics, (WITH_NAN,)),
    ],
)
def test_errors(error, message, function, arguments):
    with pytest.raises(error, match=f"^{function.__name__}: {message}"):
        function(*arguments)
