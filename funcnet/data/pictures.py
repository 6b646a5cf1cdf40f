"""Pictures: PNG, JPEG and WebP files, in a folder for each class or with a table of file names."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from funcnet.checks import check_choice, check_count, describe, listed
from funcnet.data.files import StrPath
from funcnet.data.tables import Columns, named, open_table
from funcnet.errors import ConfigError, DataError, extra, translated
from funcnet.made import leading, within
from funcnet.reading import plain_file

__all__ = ["image_files", "image_folder", "labelled_files", "read_pictures"]

_ENDINGS = {".png", ".jpg", ".jpeg", ".webp"}
_TABLES = {".csv", ".tsv"}
_OF_SYSTEMS = {"thumbs.db", "desktop.ini"}  # hidden files of Windows; those of others begin with a point


def image_folder(
    path: StrPath,
    *,
    image_size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    target: str | Sequence[str] = (),
) -> tuple[np.ndarray, Columns]:
    """The pictures of a folder as they are, `(x, target)`, for `split` and `prepare`.

    The folder has a folder for each class. Or it has a `.csv` or `.tsv` table, one column of which names the files. A
    picture is turned as its EXIF data say, and what is transparent becomes white. If all are grey they have one
    channel, otherwise three. To fit another size, the middle is cut out in its proportions and resized.

    Args:
        path: the folder. Hidden files in it are ignored.
        image_size: the height and width of all pictures, or one number for both. `None` if all have one size.
        channels: 1 or 3, if it shall not follow from the pictures.
        target: columns of the table, if not all that are left.

    Returns: x (n, height, width, channels) uint8, and an ordered dictionary of targets (n,).

    Raises:
        DataError: a file is not a picture or lies elsewhere, a class has no pictures, the pictures differ in size, or
            one has different targets.
        MissingExtraError: without `pip install 'funcnet[image]'`.

    >>> import pathlib, tempfile, funcnet as fn
    >>> from PIL import Image
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     for name in ("dark", "light"):
    ...         pathlib.Path(folder, name).mkdir()
    ...         Image.new("L", (3, 2), 255 * (name == "light")).save(pathlib.Path(folder, name, "1.png"))
    ...     x, target = fn.data.image_folder(folder)
    >>> x.shape, target["class"]
    ((2, 2, 3, 1), array(['dark', 'light'], dtype=object))
    """
    with leading(f"image_folder({os.fspath(path)!r})"):
        files, targets = labelled_files(Path(path), named("target", target))
        return read_pictures(files, image_size, channels), targets


def labelled_files(folder: Path, target: Sequence[str] = ()) -> tuple[list[Path], Columns]:
    """The pictures of a folder, and what its table or its folders say about them."""
    if not folder.is_dir():
        raise DataError(f"expected a folder, got {'a file' if folder.exists() else 'none'}; it has one for each class.")
    entries = _visible(folder)
    tables = [entry for entry in entries if entry.suffix.lower() in _TABLES]
    if tables:
        return _from_table(folder, tables, target)
    if target:
        raise ConfigError(f"expected no target, got {listed(target)}; without a table the folders are the classes.")
    classes = [entry for entry in entries if entry.is_dir()]
    if len(classes) < 2:
        got = listed([entry.name for entry in classes]) or "none"
        fix = "or a table with the names of its files"
        raise DataError(f"expected at least two folders, one for each class, got {got}; make them, {fix}.")
    beside = [str(entry) for entry in entries if entry.suffix.lower() in _ENDINGS and not entry.is_dir()]
    if beside:
        raise DataError(f"expected pictures in the folders of the classes, got {listed(beside)} beside them; move it.")
    files = [image_files(entry) for entry in classes]
    labels = np.repeat(np.array([entry.name for entry in classes], object), [len(group) for group in files])
    return [file for group in files for file in group], Columns({"class": labels})


def image_files(path: Path, *, nested: bool = False) -> list[Path]:
    """The picture, or the pictures of a folder, sorted by name. There must be nothing else in it.

    With `nested` it may have folders alone, as one for each class, with the pictures in them.
    """
    if not path.is_dir():
        return [path]
    entries = _visible(path)
    if nested and entries and all(entry.is_dir() for entry in entries):
        return [file for entry in entries for file in image_files(entry)]
    others = [str(entry) for entry in entries if entry.is_dir() or entry.suffix.lower() not in _ENDINGS]
    if others:
        fix = "convert or remove them; for a folder of folders, give the one whose folders are the classes"
        raise DataError(f"expected .png, .jpg and .webp files alone in {path}, got {listed(others)}; {fix}.")
    if not entries:
        raise DataError(f"expected pictures in {path}, got none; remove the folder, or fill it.")
    return entries


def _visible(folder):
    with translated(OSError, DataError, "the folder cannot be read", "its owner can allow it, chmod u+rx"):
        entries = [entry for entry in folder.iterdir() if not entry.name.startswith(".")]
    return sorted(entry for entry in entries if entry.name.lower() not in _OF_SYSTEMS)


def _from_table(folder, tables, target):
    """The files that a table names, relative to its folder or to the only folder in it."""
    if len(tables) > 1:
        raise DataError(f"expected one table, got {listed([table.name for table in tables])}; keep one of them.")
    with within(f"{tables[0].name}:"):
        table = open_table(tables[0], target)
        inner = [entry for entry in _visible(folder) if entry.is_dir()]
        roots = [folder, *(inner if len(inner) == 1 else [])]
        columns = {name: table.column(name, "text") for name in table.columns if name not in target}
        found = {name: [_within(folder, roots, cell) for cell in cells] for name, cells in columns.items()}
        best = max(found, key=lambda name: sum(file is not None for file in found[name]), default=None)
        if best is None or not any(found[best]):
            every = [cell for cells in columns.values() for cell in cells if cell]
            astray = next((f"; {cell!r} lies outside the folder" for cell in every if _leaves(folder, cell)), "")
            got = listed([*map(repr, columns)]) + astray
            raise DataError(f"expected a column with the names of files in {folder}, got the columns {got}.")
        missing = [row for row, file in enumerate(found[best]) if file is None]
        if missing:
            cell, place = columns[best][missing[0]], table.place(missing[:1])
            problem = "lies outside the folder" if cell and _leaves(folder, cell) else "is not there"
            got = f"none in {place}" if cell is None else f"{cell!r} in {place}, which {problem}"
            raise DataError(f"expected names of files in column {best!r}, got {got}; correct it, or remove the row.")
        names = target or [name for name in table.columns if name != best]
        table.check_names(names)
        if not names:
            raise DataError(f"expected a column of targets besides {best!r}, got none; add one.")
        targets = table.targets(names, {})
        _check_one_answer(table, found[best], targets)
        return [file for file in found[best] if file is not None], targets


def _within(folder, roots, cell):
    files = [root / cell for root in roots if cell]
    return next((file for file in files if os.path.isfile(file) and not _leaves(folder, file.absolute())), None)


def _leaves(folder, path):
    """Whether a path as it is written leads out of the folder. Links in the folder may lead anywhere."""
    return not Path(os.path.abspath(folder / path)).is_relative_to(os.path.abspath(folder))


def _check_one_answer(table, files, targets):
    """A picture that is named in several rows must have the same targets in all."""
    first: dict[Path, int] = {}
    for row, file in enumerate(files):
        rows = [first.setdefault(file, row), row]
        if any(values[rows[0]] != values[row] for values in targets.values()):
            got = f"different ones in {table.place(rows)}"
            raise DataError(f"expected the same targets wherever {file} is named, got {got}; keep one of these rows.")


def read_pictures(
    files: Sequence[Path], image_size: int | tuple[int, int] | None = None, channels: int | None = None
) -> np.ndarray:
    """Pictures (n, height, width, channels) as uint8, as `image_folder` describes."""
    with extra("image", "Pillow"):
        from PIL import Image, ImageOps
    size = _checked_size(image_size)
    if channels is not None:
        check_choice("channels", str(channels), ("1", "3"))
    pictures, problems = [], []
    for path in files:
        try:
            with plain_file(path, links=True) as file, Image.open(file, formats=("PNG", "JPEG", "WEBP")) as image:
                pixels = np.asarray(_as_it_looks(image, size, channels, Image, ImageOps))
                pictures.append(pixels.reshape(*pixels.shape[:2], -1))
        except Exception as error:  # Pillow raises many kinds of errors for a damaged file
            text = str(error).partition("\n")[0].partition(": <")[0]
            problems.append(str(path) if "cannot identify" in text else f"{path} ({text})")
    if problems:
        fix = "replace or remove them"
        raise DataError(f"expected files that are PNG, JPEG or WebP, got others: {listed(problems)}; {fix}.")
    _check_one_size(files, pictures)
    colour = any(picture.shape[2] == 3 for picture in pictures)
    return np.stack([np.repeat(picture, 3, 2) if picture.shape[2] == 1 and colour else picture for picture in pictures])


def _checked_size(size):
    if size is None:
        return None
    if isinstance(size, tuple | list) and len(size) == 2:
        return tuple(check_count("image_size", side, most=1 << 14) for side in size)
    if isinstance(size, tuple | list):
        raise ConfigError(f"expected image_size to be a number, or height and width, got {describe(size)}.")
    return (check_count("image_size", size, most=1 << 14),) * 2


def _as_it_looks(image, size, channels, pillow: Any, ops: Any):
    """An image of 8 bits, grey or RGB, turned, on white and of the size. This alone decides what a picture becomes."""
    image = ops.exif_transpose(image)
    if image.mode.startswith("I"):  # 16 bits: Pillow would cut them off at 255
        image = pillow.fromarray(np.rint(np.asarray(image) / 257).astype(np.uint8))
    grey = channels == 1 or (channels is None and image.mode in ("1", "L", "LA"))
    if image.has_transparency_data:
        image = image.convert("RGBA")
        image = pillow.alpha_composite(pillow.new("RGBA", image.size, "white"), image)
    image = image.convert("L" if grey else "RGB")
    return image if size is None else ops.fit(image, size[::-1], pillow.Resampling.BILINEAR)


def _check_one_size(files, pictures):
    for path, picture in zip(files, pictures, strict=True):
        if picture.shape[:2] != pictures[0].shape[:2]:
            first, other = (f"{height} × {width}" for height, width in (pictures[0].shape[:2], picture.shape[:2]))
            got = f"{first} in {files[0]} and {other} in {path}"
            raise DataError(f"expected pictures of one height and width, got {got}; write image_size=64, or another.")
