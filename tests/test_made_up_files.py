"""Files that nobody wrote with funcnet: whatever they hold, the outcome is a value or a named error."""

import io
import os
import threading
import zipfile

import numpy as np
import pytest
from wav_files import FILES

from funcnet import data, logs
from funcnet.cli.config_file import read_config
from funcnet.cli.history import read_history
from funcnet.cli.sessions import read_sessions
from funcnet.data.arrays import read_npz, read_rows
from funcnet.errors import FuncnetError
from funcnet.types import Report


def saved(save, *arrays, **named):
    file = io.BytesIO()
    save(file, *arrays, **named)
    return file.getvalue()


X, TARGET = np.linspace(0, 1, 12).reshape(6, 2), np.array([0, 1, 2, 0, 1, 2])
METRICS = b"epoch,step,loss,learning_rate\n1,45,1.9,0.1\n2,90,1.5,0.1\n"


def resumed_log(write):
    """What a log does with a file that is there already."""
    return lambda path: list(write([Report(3, 135, {"loss": 1.0, "learning_rate": 0.1}, None)], path))


# name -> (how it is read, a good file, what else may be in one)
KINDS = {
    "npz": (read_npz, saved(np.savez, x=X, target=TARGET), [b"x.npy", b"'descr'", b"PK\5\6"]),
    "npy": (read_rows, saved(np.save, X), [b"(-1,)", b"((((((", b"'|O'", b"(99999999999, 9999999)"]),
    "csv": (read_rows, b"0.5,0.25\n1,2\n", [b"1e999", b"nan", b"\xff", b",,", b"#", b'"']),
    "wav": (data.read_wav, FILES["sox, 24 bits"], [b"fmt ", b"data", b"\xff\xff\xff\xff", b"\xfe\xff"]),
    "toml": (read_config, b'epochs = 3\nhidden = [8, 4]\ndata = "a"\n', [b"[" * 3000, b"inf", b"{x=1}", b"\x7f"]),
    "metrics": (read_history, METRICS, [b"1e999", b"nan", b'"', b"\xff", b"-", b"\0", b"x" * 200_000]),
    "sessions": (read_sessions, b'{"started": "a"}\n{"epoch": 1, "step": 2, "seconds": 0.5}\n', [b"[" * 9000, b"\xff"]),
    "log.csv": (resumed_log(logs.write_csv), METRICS, [b"\xff", b"9" * 5000, b'"', b"\0", b"x" * 200_000, b"\xc2\xb2"]),
    "log.jsonl": (resumed_log(logs.write_jsonl), b'{"step": 1}\n{"step": 2}\n', [b"[" * 9000, b"\xff", b"1e999"]),
}  # fmt: skip
ROUNDS = 150


def made_up(random, good, pieces):
    """A good file with bytes flipped, cut out, doubled, or replaced by something that a reader may stumble over."""
    text = bytearray(good)
    for _ in range(random.integers(1, 4)):
        start = int(random.integers(len(text) + 1))
        end = min(len(text), start + int(random.integers(1, 9)))
        pieces_here = [b"", bytes(random.bytes(end - start)), text[start:] * 2, pieces[random.integers(len(pieces))]]
        text[start:end] = pieces_here[random.integers(len(pieces_here))]
    return bytes(text)


@pytest.mark.parametrize("kind", KINDS)
def test_a_made_up_file_is_read_or_refused_by_name(kind, tmp_path):
    read, good, pieces = KINDS[kind]
    path, random, outcomes = tmp_path / f"file.{kind.rpartition('.')[2]}", np.random.default_rng(20), set()
    path.write_bytes(good)
    read(path)
    for _ in range(ROUNDS):
        path.write_bytes(made_up(random, good, pieces))
        try:
            read(path)
            outcomes.add("a value")
        except FuncnetError as error:
            named = path.name in str(error) or str(error).startswith("write_")
            outcomes.add("an error that names it" if named else str(error))
    # Bad lines of the sessions are left out.
    assert outcomes == {"a value"} | ({"an error that names it"} if kind != "sessions" else set())


@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind != "sessions"])
@pytest.mark.parametrize("place, word", [("/dev/zero", "a device"), ("pipe", "a pipe"), (".", "a folder")])
def test_what_is_not_a_plain_file_is_not_read(kind, place, word, tmp_path):
    path = tmp_path / f"file.{kind.rpartition('.')[2]}"
    if place == "pipe":
        os.mkfifo(path)
    else:
        path.symlink_to(place)
    with pytest.raises(FuncnetError, match=f"expected a plain file, got {word}"):
        KINDS[kind][0](path)


def test_a_file_that_may_not_be_read_says_what_to_do(tmp_path, monkeypatch):
    """As a mode of the file would not stop root, opening is what fails."""

    def closed(path, *_):
        raise PermissionError(13, "Permission denied", path)

    (tmp_path / "a.csv").touch()
    monkeypatch.setattr("builtins.open", closed)
    with pytest.raises(FuncnetError, match=r"no permission to read '.*a.csv'; its owner can give it, chmod a\+r"):
        data.read_table(tmp_path / "a.csv", target="y")


def test_sessions_of_a_pipe_are_none(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    assert read_sessions(tmp_path / "pipe") == ([], [])


@pytest.mark.parametrize("kind", ["mnist", "cifar10"])
def test_image_sets_are_read_from_plain_files(kind, tmp_path):
    names = ["train-images-idx3-ubyte"] if kind == "mnist" else [f"data_batch_{i}.bin" for i in range(1, 6)]
    for name in names:
        os.mkfifo(tmp_path / name)
    with pytest.raises(FuncnetError, match="expected"):  # a pipe is none of the files
        getattr(data, kind)(tmp_path)
    with pytest.raises(FuncnetError, match="File name too long"):
        getattr(data, kind)("n" * 300)


def test_only_the_arrays_that_are_needed_are_read(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    np.savez(path, x=X, target=TARGET)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("unused.npy", b"not an array")
    read = []
    original = zipfile.ZipFile.open
    monkeypatch.setattr(
        zipfile.ZipFile,
        "open",
        lambda self, name, *more, **k: read.append(str(name)) or original(self, name, *more, **k),
    )
    (x, target), _ = read_npz(path)
    assert (x.shape, target.tolist()) == ((6, 2), TARGET.tolist())
    assert not [name for name in read if "unused" in name]


@pytest.mark.parametrize("name", ["x", "target"])
def test_an_entry_of_a_file_that_is_no_array(name, tmp_path):
    path = tmp_path / "a.npz"
    arrays = {"x": X, "target": TARGET}
    np.savez(path, **{one: array for one, array in arrays.items() if one != name})
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr(f"{name}.npy", b"no array")
    with pytest.raises(FuncnetError, match=f"expected a readable .npz file: {name} is not an array"):
        read_npz(path)


@pytest.mark.parametrize("dtype", [">f4", ">f8", np.longdouble, np.float16])
@pytest.mark.parametrize("labels", [">i8", "u8", "u1", ">u2"])
def test_numbers_of_any_machine_become_those_of_this_one(dtype, labels, tmp_path):
    path = tmp_path / "a.npz"
    np.savez(path, x=X.astype(dtype), target=TARGET.astype(labels))
    (x, target), _ = read_npz(path)
    assert (x.dtype, target.dtype.isnative) == (np.float32, True)
    np.testing.assert_array_equal(x, X.astype(np.float16 if dtype is np.float16 else np.float32))
    np.testing.assert_array_equal(target, TARGET)
    np.testing.assert_array_equal(data.check_data(X.astype(np.longdouble), TARGET)[0], X.astype(np.float32))


@pytest.mark.parametrize("name, problem", [("a.CSV", None), ("a.csv.gz", "unpack a .csv.gz"), ("a.txt", "np.save")])
def test_rows_by_the_name_of_their_file(name, problem, tmp_path):
    path = tmp_path / name
    np.savetxt(path, X, delimiter=",")
    if problem is None:
        np.testing.assert_array_equal(read_rows(path), X.astype(np.float32))
        return
    with pytest.raises(FuncnetError, match=problem):
        read_rows(path)


@pytest.mark.parametrize("write", [logs.write_csv, logs.write_jsonl])
def test_a_log_on_a_full_disk_is_whole(write, tmp_path):
    """A limit on the size of files stands for a full disk: what is there stays, and no half row follows."""
    resource, signal = pytest.importorskip("resource"), pytest.importorskip("signal")
    path = tmp_path / "metrics"
    reports = [Report(i, i, {"loss": 1 / 3 * i}, None) for i in range(1, 9)]
    list(write(reports[:2], path))
    before, limits = path.read_bytes(), resource.getrlimit(resource.RLIMIT_FSIZE)
    assert threading.current_thread() is threading.main_thread()
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) + 3, limits[1]))
        with pytest.raises(FuncnetError, match=r"write_(csv|jsonl): .*metrics cannot be written: .*File too large"):
            list(write(reports[2:], path))
        assert path.read_bytes() == before
        resource.setrlimit(resource.RLIMIT_FSIZE, (len(before) - 3, limits[1]))
        with pytest.raises(FuncnetError, match=r"write_(csv|jsonl): .*metrics cannot be written: .*File too large"):
            list(write(reports[2:], path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, ignored)
    assert path.read_bytes() == before
    assert [one.name for one in tmp_path.iterdir()] == ["metrics"]
