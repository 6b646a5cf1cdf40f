"""Pictures: what becomes of each kind of file, folders and tables of them, and what is refused."""

import json
import sys

import jax
import numpy as np
import pytest
from malformed import COLOUR, FOLDERS, GREY, save, two_classes
from pages import block
from PIL import Image

from funcnet.data import Preparation, image_folder, prepare, read_table, split
from funcnet.data.pictures import read_pictures
from funcnet.errors import ConfigError, DataError, MissingExtraError

# One picture


@pytest.mark.parametrize(
    "orientation, turned",
    [
        (1, lambda x: x),
        (2, lambda x: x[:, ::-1]),
        (3, lambda x: x[::-1, ::-1]),
        (4, lambda x: x[::-1]),
        (5, lambda x: x.swapaxes(0, 1)),
        (6, lambda x: np.rot90(x, -1)),
        (7, lambda x: x[::-1, ::-1].swapaxes(0, 1)),
        (8, lambda x: np.rot90(x)),
    ],
)
def test_a_picture_is_turned_as_its_exif_data_say(tmp_path, orientation, turned):
    exif = Image.Exif()
    exif[0x0112] = orientation
    for name, pixels in {"grey.png": GREY[:, :, None], "colour.webp": COLOUR}.items():
        path = save(tmp_path / name, pixels.squeeze(), exif=exif, lossless=True)
        np.testing.assert_array_equal(read_pictures([path]), turned(pixels)[None], strict=True)


def test_a_turned_photograph(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was upright: the left of the file is the top of the picture
    pixels = np.zeros((16, 32, 3), np.uint8)
    pixels[:, :16] = 255
    (picture,) = read_pictures([save(tmp_path / "photograph.jpg", pixels, exif=exif, quality=95)])
    assert picture.shape == (32, 16, 3)
    assert picture[:14].min() > 240
    assert picture[18:].max() < 15


def test_what_is_transparent_becomes_white(tmp_path):
    alpha = np.array([[0, 128, 255]], np.uint8)
    black = np.zeros_like(alpha)
    half = 127  # 255 · (1 − 128/255)
    path = save(tmp_path / "grey.png", np.stack([black, alpha], 2), "LA")
    np.testing.assert_array_equal(read_pictures([path])[0, 0, :, 0], [255, half, 0])
    path = save(tmp_path / "red.png", np.stack([black + 255, black, black, alpha], 2))
    np.testing.assert_array_equal(read_pictures([path])[0, 0], [[255] * 3, [255, half, half], [255, 0, 0]])
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([9, 9, 9, 255, 0, 0])
    path = save(tmp_path / "palette.png", palette, transparency=0)
    np.testing.assert_array_equal(read_pictures([path])[0, 0], [[255] * 3, [255, 0, 0]])


def test_modes(tmp_path):
    sixteen = save(tmp_path / "16.png", Image.fromarray(np.array([[0, 257 * 100, 65535]], np.uint16)))
    np.testing.assert_array_equal(read_pictures([sixteen])[0, :, :, 0], [[0, 100, 255]])
    one = save(tmp_path / "1.png", Image.fromarray(np.array([[True, False, True]])))
    np.testing.assert_array_equal(read_pictures([one])[0, :, :, 0], [[255, 0, 255]])
    inks = save(tmp_path / "inks.jpg", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=100)
    red = read_pictures([inks])[0].reshape(-1, 3).astype(int)
    assert np.abs(red - [255, 0, 0]).max() <= 3


def turned(orientation):
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif


RANDOM = np.random.default_rng(0)
RGBA = RANDOM.integers(0, 256, (9, 14, 4), np.uint8)
PALETTE = Image.fromarray(RGBA[:, :, :3]).quantize(8)
PICTURES = {
    "RGB": (RGBA[:, :, :3], {}),
    "RGB with a transparent colour": (RGBA[:, :, :3] // 128 * 255, {"transparency": (255, 0, 0)}),
    "RGBA": (RGBA, {}),
    "RGBA of WebP": (RGBA, {"format": "WEBP", "lossless": True}),
    "L": (RGBA[:, :, 0], {}),
    "L with a transparent grey": (RGBA[:, :, 0] // 64, {"transparency": 2}),
    "LA": (Image.fromarray(RGBA).convert("LA"), {}),
    "P": (PALETTE, {}),
    "P with a transparent colour": (PALETTE, {"transparency": 3}),
    "P with an alpha for each colour": (PALETTE, {"transparency": bytes(range(0, 256, 32))}),
    "1": (Image.fromarray(RGBA[:, :, 0] > 99), {}),
    "1 with a transparent colour": (Image.fromarray(RGBA[:, :, 0] > 99), {"transparency": 0}),
    "CMYK": (Image.fromarray(RGBA, "CMYK"), {"format": "JPEG"}),
    "I;16": (RANDOM.integers(0, 1 << 16, (9, 14), np.uint16), {}),
    **{f"JPEG turned {i}": (RGBA[:, :, 0], {"format": "JPEG", "exif": turned(i)}) for i in range(1, 9)},
    **{f"RGBA turned {i}": (RGBA, {"exif": turned(i)}) for i in range(1, 9)},
    **{f"I;16 turned {i}": (RGBA.view(np.uint16)[:, :, 0], {"exif": turned(i)}) for i in (3, 6)},
}


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("mode", PICTURES)
def test_the_lines_of_the_page_make_the_pixels_of_a_picture(tmp_path, mode, channels):
    pixels, options = PICTURES[mode]
    image = pixels if isinstance(pixels, Image.Image) else Image.fromarray(pixels)
    image.save(tmp_path / "file.png", **{"format": "PNG", **options})
    with Image.open(tmp_path / "file.png") as saved:
        assert mode.startswith((saved.mode, "JPEG"))
    preparation = prepare(RANDOM.integers(0, 256, (4, 5, 8, channels), np.uint8), np.array(["a", "b"] * 2))
    one, _ = preparation.read(tmp_path / "file.png")
    names = {"path": tmp_path / "file.png", "preparation": preparation, "one": one, "np": np, "json": json}
    exec("from PIL import Image\n" + block("data.md", "exif_transpose"), names)  # its last line compares them
    np.testing.assert_array_equal(names["pixels"], preparation.inputs(one), strict=True)
    assert names["pixels"].shape == (1, 5, 8, channels)


def test_grey_and_colour_together_have_three_channels(tmp_path):
    files = [save(tmp_path / "a.png", GREY), save(tmp_path / "b.png", COLOUR)]
    found = read_pictures(files)
    np.testing.assert_array_equal(found, np.stack([np.repeat(GREY[:, :, None], 3, 2), COLOUR]), strict=True)
    assert read_pictures(files[:1]).shape == (1, 2, 3, 1)
    assert read_pictures(files[:1], channels=3).shape == (1, 2, 3, 3)
    grey = read_pictures(files, channels=1)
    np.testing.assert_array_equal(grey[0, :, :, 0], GREY)
    weighted = COLOUR @ [0.299, 0.587, 0.114]  # the luma of ITU-R BT.601
    assert np.abs(grey[1, :, :, 0] - weighted).max() <= 1


def test_a_folder_that_may_not_be_read_is_named(tmp_path, monkeypatch):
    def closed(folder):
        raise PermissionError(13, "Permission denied", str(folder))

    two_classes(tmp_path)
    monkeypatch.setattr("pathlib.Path.iterdir", closed)
    with pytest.raises(
        DataError, match=r"the folder cannot be read: .*Permission denied.*; its owner can allow it, chmo"
    ):
        image_folder(tmp_path)


def test_the_middle_is_cut_out_in_the_proportions_of_the_size(tmp_path):
    pixels = np.zeros((4, 8), np.uint8)
    pixels[:2, 2:6], pixels[2:, 2:6] = 100, 200
    wide, high = save(tmp_path / "wide.png", pixels), save(tmp_path / "high.png", pixels.T)
    # 4 × 4 in the middle of 8, made half as large. Along a row a pixel weighs its four nearest by 1/8, 3/8, 3/8, 1/8,
    # one of which lies beyond the cut and is 0: 88 and 175. Down a column it has three, by 1/7, 3/7, 3/7.
    wanted = np.round([(6 * 88 + 175) / 7, (88 + 6 * 175) / 7])[:, None, None] * np.ones((2, 2, 1))
    found = read_pictures([wide, high], 2)
    np.testing.assert_array_equal(found[0], wanted)
    np.testing.assert_array_equal(found[1], wanted.swapaxes(0, 1))
    assert read_pictures([wide, high], (3, 5)).shape == (2, 3, 5, 1)


# Folders


def test_a_folder_for_each_class(tmp_path):
    two_classes(tmp_path)
    save(tmp_path / ".thumbnails" / "x.png", GREY)
    for hidden in (".DS_Store", "dark/.DS_Store", "dark/Thumbs.db", "light/desktop.ini", "notes.txt"):
        (tmp_path / hidden).write_text("no picture")
    x, target = image_folder(tmp_path)
    assert (x.shape, x.dtype, x[:, 0, 0, 0].tolist()) == ((4, 2, 3, 1), np.uint8, [0, 51, 204, 255])
    assert {name: column.tolist() for name, column in target.items()} == {"class": ["dark"] * 2 + ["light"] * 2}
    for part_x, part_target in split(x, target, fractions=(0.5, 0.5), stratified=True):
        assert (part_x.shape, sorted(part_target["class"])) == ((2, 2, 3, 1), ["dark", "light"])


@pytest.mark.parametrize("inner", ["", "images"])
def test_a_table_of_file_names(tmp_path, inner):
    save(tmp_path / inner / "b.png", GREY)
    save(tmp_path / inner / "a.PNG", 255 - GREY)
    (tmp_path / "targets.csv").write_text("size;picture;kind\n1,5;a.PNG;x\n2,5;b.png;y\n")
    x, target = image_folder(tmp_path)
    np.testing.assert_array_equal(x[:, :, :, 0], np.stack([255 - GREY, GREY]))
    assert {name: column.tolist() for name, column in target.items()} == {"size": [1.5, 2.5], "kind": ["x", "y"]}
    assert list(image_folder(tmp_path, target="size")[1]) == ["size"]


def test_statistics_of_the_channels_by_hand(tmp_path):
    preparation = prepare(*image_folder(two_classes(tmp_path)))
    (grey,) = preparation.columns
    assert (grey.name, grey.mean, grey.low, grey.high) == ("grey", pytest.approx(0.5), 0, 1)
    assert grey.scale == pytest.approx(0.17**0.5)  # (0.5² + 0.3² + 0.3² + 0.5²) / 4
    assert preparation.shape == (2, 3, 1)


def test_new_pictures_are_made_the_same(tmp_path):
    preparation = prepare(*image_folder(two_classes(tmp_path / "train"), image_size=(2, 3)))
    assert (preparation.task, preparation.outputs, preparation.image_size) == ("classes", 2, (2, 3))
    assert str(preparation).splitlines() == [
        "task      classes: class, 2 classes (dark 50%, light 50%)", "pictures  2 × 3, grey"
    ]  # fmt: skip
    new = save(tmp_path / "new" / "1.webp", np.full((4, 6, 3), 255, np.uint8), lossless=True)
    x, target = preparation.read(new)
    features, _ = preparation.rows(x)
    np.testing.assert_allclose(features, np.full((1, 2, 3, 1), 0.5 / 0.17**0.5), rtol=1e-6)
    np.testing.assert_array_equal(jax.jit(preparation.features)(preparation.inputs(x)), features)
    assert (target, preparation.unusual(x)) == (None, {})
    for several in ([new, str(new)], tmp_path / "new"):
        assert preparation.read(several)[0].shape[1:] == (2, 3, 1)
    x, target = preparation.read(tmp_path / "train", target=True)
    assert preparation.rows(x, target)[1].tolist() == [0, 0, 1, 1]
    assert Preparation.from_json(preparation.to_json()) == preparation
    narrow = prepare(x[1:3], {"class": target["class"][1:3]})
    assert narrow.unusual(x) == {"grey": {"below": 1, "above": 1}}


def test_targets_of_a_table_may_be_numbers(tmp_path):
    for i in range(4):
        save(tmp_path / f"{i}.png", np.full((2, 2), 10 * i, np.uint8))
    (tmp_path / "t.tsv").write_text("file\ty\n" + "".join(f"{i}.png\t{i / 2}\n" for i in range(4)))
    preparation = prepare(*image_folder(tmp_path))
    assert preparation.task == "regression"
    assert preparation.read(tmp_path, target=True)[1]["y"].tolist() == [0, 0.5, 1, 1.5]


def test_a_picture_may_be_named_twice_and_beside_long_texts(tmp_path):
    for name in ("a.png", "b.png"):
        save(tmp_path / name, GREY)
    (tmp_path / "t.csv").write_text(f"file,caption\na.png,{'long ' * 90}\nb.png,short\n{tmp_path}/b.png,short\n")
    x, target = image_folder(tmp_path)
    assert (len(x), target["caption"][1:].tolist()) == (3, ["short", "short"])


def test_a_picture_outside_the_folder_is_not_read(tmp_path):
    save(tmp_path / "private.png", GREY)
    save(tmp_path / "f" / "images" / "a.png", GREY)
    for name in ("../private.png", f"{tmp_path}/private.png"):
        (tmp_path / "f" / "t.csv").write_text(f"file,y\n{name},1\n")
        with pytest.raises(DataError, match=f"'file', 'y'; {name!r} lies outside the folder"):
            image_folder(tmp_path / "f")


# What is refused


@pytest.mark.parametrize(
    "change, message",
    FOLDERS,
)
def test_malformed_folders(tmp_path, change, message):
    change(two_classes(tmp_path))
    with pytest.raises(DataError, match=message):
        image_folder(tmp_path)


def test_folders_that_are_none(tmp_path):
    with pytest.raises(DataError, match="expected a folder, got none"):
        image_folder(tmp_path / "none")
    with pytest.raises(DataError, match="expected a folder, got a file"):
        image_folder(save(tmp_path / "a" / "1.png", GREY))
    with pytest.raises(DataError, match="expected at least two folders, one for each class, got a; make them"):
        image_folder(tmp_path)


@pytest.mark.parametrize(
    "options, message",
    [
        ({"image_size": 0}, "expected image_size to be a positive integer, got 0"),
        ({"image_size": (2, "3")}, "expected image_size to be a positive integer, got '3'"),
        ({"image_size": (2, 3, 4)}, r"image_size to be a number, or height and width, got a tuple \(2, 3, 4\)"),
        ({"image_size": 20_000}, "expected image_size to be at most 16384, got 20000"),
        ({"channels": 2}, "expected channels to be"),
        ({"target": "y"}, "expected no target, got y; without a table the folders are the classes"),
    ],
)
def test_refused_options(tmp_path, options, message):
    with pytest.raises(ConfigError, match=message):
        image_folder(two_classes(tmp_path), **options)


def test_pictures_need_an_extra(tmp_path, monkeypatch):
    two_classes(tmp_path)
    monkeypatch.setitem(sys.modules, "PIL", None)
    with pytest.raises(MissingExtraError, match=r"the package Pillow, .*pip install 'funcnet\[image\]'"):
        image_folder(tmp_path)


def test_one_picture_that_is_none(tmp_path):
    preparation = prepare(*image_folder(two_classes(tmp_path)))
    with pytest.raises(DataError, match=r"Preparation.read\('.*none.png'\): .*No such file"):
        preparation.read(tmp_path / "none.png")


def test_a_table_read_by_itself_does_not_open_pictures(tmp_path):
    (tmp_path / "t.csv").write_text("file,y\nnone.png,1\n")
    assert read_table(tmp_path / "t.csv", target="y")[0]["file"].tolist() == ["none.png"]
