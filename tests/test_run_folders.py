"""`funcnet train` that is killed, stopped and taken up again; `funcnet checkpoints`."""

import dataclasses
import html
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager

import jax
import numpy as np
import pytest
from test_checkpoints import resealed

import funcnet as fn
from funcnet import checkpoints, training
from funcnet.checkpoints import files
from funcnet.checkpoints import folder as folders_of_checkpoints
from funcnet.checkpoints.folder import read
from funcnet.cli import config_file, ending, folders, main, options
from funcnet.cli import train as trains
from funcnet.errors import ConfigError
from funcnet.training import loop
from funcnet.training.interruption import Stop
from funcnet.types import Report

PREPARED = fn.data.prepare(*fn.data.digits()).to_json()
OPTIONS = ["--model", "mlp", "--hidden", "16", "--epochs", "8", "--batch-size", "128", "--patience", "6"]
FILES = ("metrics.csv", "metrics.jsonl", "weights.safetensors", "config.toml", "curves.png", "confusion.png")


def check_same(folder, whole):
    for name in FILES:
        assert (folder / name).read_bytes() == (whole / name).read_bytes(), name


def funcnet(capsys, *arguments):
    code = main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def wait_for(path, lines=4):
    deadline = time.monotonic() + 60
    while not path.exists() or len(path.read_text().splitlines()) < lines:
        assert time.monotonic() < deadline
        time.sleep(0.01)


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "whole"
    assert main(["train", *OPTIONS, "--output", str(folder)]) == 0
    return folder


def test_a_killed_run_is_taken_up_and_ends_bit_for_bit_as_one_that_was_not(tmp_path, capsys, whole):
    folder = tmp_path / "killed"
    child = subprocess.Popen(
        [sys.executable, "-m", "funcnet.cli", "train", *OPTIONS, "--output", str(folder)],
        stdout=subprocess.DEVNULL,
        env=os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "true"},
    )
    wait_for(folder / "metrics.csv")
    child.send_signal(signal.SIGKILL)
    assert child.wait() == -signal.SIGKILL
    assert not (folder / "weights.safetensors").exists()
    code, _, error = funcnet(capsys, "evaluate", folder)
    assert (code, error) == (
        5,
        f"funcnet: {folder}: the run was stopped; finish it with funcnet train --resume {folder}.\n",
    )
    code, printed, _ = funcnet(capsys, "train", "--resume", folder)
    assert code == 0
    assert printed.startswith("going on from step ")
    check_same(folder, whole)


def test_a_run_that_was_killed_before_its_first_checkpoint_starts_anew(tmp_path, capsys, whole):
    folder = tmp_path / "early"
    folder.mkdir()
    (folder / "config.toml").write_bytes((whole / "config.toml").read_bytes())
    code, _, error = funcnet(capsys, "evaluate", folder)
    said = f"funcnet: {folder}: the run was stopped before its first checkpoint; train again.\n"
    assert (code, error) == (5, said)
    code, printed, _ = funcnet(capsys, "train", "--resume", folder)
    assert code == 0
    assert printed.startswith("no checkpoint yet: starting from the beginning\n")
    assert (folder / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGHUP])
def test_a_signal_leaves_a_checkpoint_and_says_how_to_go_on(tmp_path, capsys, whole, number):
    folder = tmp_path / "stopped"

    def send():
        wait_for(folder / "metrics.csv")
        os.kill(os.getpid(), number)

    sender = threading.Thread(target=send)
    sender.start()
    code, printed, _ = funcnet(capsys, "train", *OPTIONS, "--epochs", 2000, "--patience", 2000, "--output", folder)
    sender.join()
    assert code == 0
    *_, said, command = printed.splitlines()
    assert said.startswith(f"stopped by {number.name} at step {checkpoints.steps(folder / 'checkpoints')[-1]}, epoch ")
    assert command == f"funcnet train --resume {folder}"


@contextmanager
def stopping(monkeypatch, step):
    """A signal that arrives when this many steps are done."""

    class At(Stop):
        def __call__(self, done):
            self.signal = signal.SIGTERM if done >= step else None
            return super().__call__(done)

    @contextmanager
    def stop():
        yield At()

    with monkeypatch.context() as patch:
        patch.setattr(training, "stop_on_signals", stop)
        yield


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """Labels that say nothing: the validation loss rises from the first step on, and the first epoch is the best."""
    rng, path = np.random.default_rng(0), tmp_path_factory.mktemp("data") / "noise.npz"
    np.savez(path, x=rng.standard_normal((120, 32)), target=rng.permutation(120) % 3)
    return path


def test_a_stop_within_an_epoch_is_not_the_best(tmp_path, capsys, monkeypatch, noise):
    """After one step the validation loss is the least of all, and yet the first epoch's checkpoint must stay."""
    made = ["--data", noise, "--model", "mlp", "--hidden", 64, "--dropout", 0, "--epochs", 5, "--batch-size", 16]
    made += ["--patience", 3, "--keep-checkpoints", 1, "--learning-rate", 0.02, "--schedule", "constant"]
    folder, damaged = tmp_path / "run", tmp_path / "damaged"
    with stopping(monkeypatch, 1):
        assert funcnet(capsys, "train", *made, "--output", folder)[0] == 0
    with stopping(monkeypatch, 12):  # the end of the second epoch
        code, printed, _ = funcnet(capsys, "train", "--resume", folder)
    assert (code, "going on from step 1, epoch 1" in printed) == (0, True)
    found = {verdict.step: verdict.manifest for verdict in checkpoints.verify(folder / "checkpoints")}
    assert {step: manifest.partial for step, manifest in found.items()} == {6: False, 12: False}
    first, second = (read(folder / "checkpoints" / name)[1] for name in ("00000006", "00000012"))
    shutil.copytree(folder, damaged)
    code, _, error = funcnet(capsys, "train", "--resume", folder)
    assert (code, error, trained(folder, first)) == (0, "", True)
    # If the best one is damaged, the end finds the best of the others.
    best = damaged / "checkpoints" / "00000006"
    (best / "state.safetensors").write_bytes(b"")
    code, _, error = funcnet(capsys, "train", "--resume", damaged)
    said = f"funcnet: {best}, the best so far, is missing or damaged; the best is chosen from the others.\n"
    assert (code, error, trained(damaged, second)) == (0, said, True)


def trained(folder, tensors):
    """Whether the weights of a run are those of a checkpoint."""
    params, _, _ = checkpoints.load_weights(folder / "weights.safetensors")
    return all(np.array_equal(leaf, tensors[f"optimizer/inner/params/{path}"]) for path, leaf in params.items())


def raising(number, call):
    """The function, with a signal that comes when it is first called."""
    due = [number]

    def called(*arguments):
        if due:
            signal.raise_signal(due.pop())
        return call(*arguments)

    return called


def test_a_signal_before_the_first_step_leaves_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(trains, "_job", raising(signal.SIGINT, trains._job))
    code, printed, error = funcnet(capsys, "train", *OPTIONS, "--output", tmp_path / "run")
    assert (code, printed) == (130, "stopped by SIGINT before the first step\n")
    assert error == "funcnet: SIGINT: stopping after the work under way\n"
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("more", [[], ["--folds", "2"]])
def test_a_run_that_fails_before_its_first_report_leaves_nothing(tmp_path, capsys, monkeypatch, more):
    def too_large(*_):
        raise fn.errors.OutOfMemoryError("expected less memory")

    monkeypatch.setattr(loop, "check_memory", too_large)
    monkeypatch.chdir(tmp_path)
    arguments = ["train", *OPTIONS, "--hidden", "17", *more]  # a program that no other test has compiled
    assert funcnet(capsys, *arguments)[::2] == (2, "funcnet: fit: expected less memory\n")
    assert funcnet(capsys, *arguments, "--output", "new/run")[0] == 2
    assert os.listdir(tmp_path) == []
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes.txt").write_text("mine")
    assert funcnet(capsys, *arguments, "--output", "mine")[0] == 2
    assert os.listdir(tmp_path / "mine") == ["notes.txt"]


def test_a_signal_while_the_first_step_is_compiled_is_not_lost(tmp_path, capsys, monkeypatch, whole):
    folder = tmp_path / "stopped"
    with monkeypatch.context() as patch:
        patch.setattr(trains, "_reports", raising(signal.SIGINT, trains._reports))
        code, printed, _ = funcnet(capsys, "train", *OPTIONS, "--output", folder)
    (step,) = checkpoints.steps(folder / "checkpoints")
    assert step < 10
    assert (code, printed.splitlines()[-2]) == (0, f"stopped by SIGINT at step {step}, epoch 1; go on with")
    assert funcnet(capsys, "train", "--resume", folder)[0] == 0
    # The rows differ: the loss of an epoch within which a run was stopped is that of its steps since.
    weights = [checkpoints.load_weights(run / "weights.safetensors")[:2] for run in (folder, whole)]
    assert jax.tree.all(jax.tree.map(np.array_equal, *weights))


def test_a_checkpoint_that_a_stopped_run_cannot_write_is_named(tmp_path, capsys, monkeypatch):
    """That of its last report, which nobody else asks for."""

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(trains, "_reports", raising(signal.SIGTERM, trains._reports))
    monkeypatch.setattr(folders_of_checkpoints, "write_new", full)
    code, printed, error = funcnet(capsys, "train", *OPTIONS, "--output", tmp_path / "run")
    assert (code, "go on with" in printed) == (5, False)
    assert "cannot be written: [Errno 28] No space left on device" in error


def test_a_terminal_that_is_closed_takes_no_text(tmp_path, capsys, monkeypatch):
    def closed(*_):
        signal.raise_signal(signal.SIGHUP)
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(sys.modules["funcnet.training.progress"], "_line", closed)
    silenced = []
    monkeypatch.setattr(trains, "be_silent", lambda: silenced.append(1))
    assert funcnet(capsys, "train", *OPTIONS, "--output", tmp_path / "run")[0] == 129
    assert silenced == [1]
    assert len(checkpoints.steps(tmp_path / "run" / "checkpoints")) == 1


def test_as_a_program_ctrl_c_raises_nothing_in_jax(capsys, monkeypatch):
    before = signal.getsignal(signal.SIGINT)
    monkeypatch.setattr(sys, "argv", ["funcnet", "--version"])
    try:
        assert main(["--version"]) == 0
        assert signal.getsignal(signal.SIGINT) is before is signal.default_int_handler
        assert main() == 0
        assert signal.getsignal(signal.SIGINT) is signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


# The end of a run


def test_a_signal_while_the_plots_are_drawn_changes_nothing(tmp_path, capsys, monkeypatch, whole):
    folder = shutil.copytree(whole, tmp_path / "copy")
    for name in ("weights.safetensors", "curves.png"):
        (folder / name).unlink()
    monkeypatch.setattr(ending, "saved", raising(signal.SIGINT, ending.saved))
    assert funcnet(capsys, "train", "--resume", folder)[0] == 0
    check_same(folder, whole)


def test_plots_that_a_full_disk_does_not_take_are_made_by_the_next_call(tmp_path, capsys, monkeypatch, whole):
    folder = shutil.copytree(whole, tmp_path / "copy")
    (folder / "confusion.png").unlink()  # as where the process was killed

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(ending, "write_whole", full)
        code, _, error = funcnet(capsys, "train", "--resume", folder)
    fix = f"the weights are saved, and funcnet train --resume {folder} draws it"
    problem = f"{folder}/curves.png: the plot cannot be written: [Errno 28] No space left on device; {fix}.\n"
    assert (code, error) == (5, f"funcnet: {problem}")
    assert not (folder / "curves.png").exists()
    assert funcnet(capsys, "train", "--resume", folder)[0] == 0
    check_same(folder, whole)


def test_weights_of_a_shorter_run_are_not_taken_for_those_of_the_longer(tmp_path, capsys, monkeypatch, whole):
    """One that was killed after its last step and before its weights were written."""
    folder = shutil.copytree(whole, tmp_path / "copy")

    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(trains, "save_results", killed)
        assert funcnet(capsys, "train", "--resume", folder, "--epochs", 9)[0] == 130
    assert (folder / "weights.safetensors").read_bytes() == (whole / "weights.safetensors").read_bytes()
    old, new = (checkpoints.steps(one / "checkpoints")[-1] for one in (whole, folder))
    code, _, error = funcnet(capsys, "evaluate", folder)
    said = f"these are the weights of the run of {old} steps; a longer one is at step {new}"
    assert (code, error) == (0, f"funcnet: {folder}: {said}; finish it with funcnet train --resume {folder}.\n")
    assert funcnet(capsys, "train", "--resume", folder)[0] == 0
    assert funcnet(capsys, "evaluate", folder)[::2] == (0, "")
    *_, facts = checkpoints.load_weights(folder / "weights.safetensors")
    assert facts["steps"] == checkpoints.steps(folder / "checkpoints")[-1]
    code, _, error = funcnet(capsys, "train", "--resume", folder)
    assert (code, "got one that is finished" in error) == (2, True)
    shutil.rmtree(folder / "checkpoints")
    code, _, error = funcnet(capsys, "train", "--resume", folder)
    assert (code, "got one that is finished" in error) == (2, True)


# What the files of a run say is what its checkpoints and its weights say


def text_of(folder):
    """Every file of a run, apart from those in folders."""
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_each_checkpoint_holds_the_rows_so_far(whole):
    lines = (whole / "metrics.csv").read_text().splitlines(keepends=True)
    for verdict in checkpoints.verify(whole / "checkpoints"):
        assert verdict.manifest.metadata["metrics"] == "".join(lines[: verdict.manifest.epoch + 1])
    *_, facts = checkpoints.load_weights(whole / "weights.safetensors")
    assert facts["metrics"] == "".join(lines)


@pytest.mark.parametrize("left", [None, 0, 150])
def test_rows_that_are_lost_come_back(tmp_path, capsys, whole, left):
    """A file that is missing, empty or cut."""
    folder = shutil.copytree(whole, tmp_path / "copy")
    (folder / "weights.safetensors").unlink()
    for name in ("metrics.csv", "metrics.jsonl"):
        (folder / name).unlink() if left is None else os.truncate(folder / name, left)
    assert funcnet(capsys, "train", "--resume", folder)[0] == 0
    check_same(folder, whole)


@pytest.mark.parametrize("name", ["metrics.csv", "metrics.jsonl"])
def test_rows_that_are_damaged_are_named_and_left_alone(tmp_path, capsys, whole, name):
    folder = shutil.copytree(whole, tmp_path / "copy")
    for place in (3, 120, -2):
        data = bytearray((whole / name).read_bytes())
        data[place] ^= 1
        (folder / name).write_bytes(data)
        fix = "delete it, the checkpoints and the weights hold them too"
        said = f"{folder / name}: expected the rows that the run recorded, got others; {fix}."
        before = text_of(folder)
        code, _, error = funcnet(capsys, "train", "--resume", folder, "--epochs", 9)
        assert (code, error) == (4, f"funcnet: {said}\n")
        assert text_of(folder) == before
    assert funcnet(capsys, "report", folder, "--most", 0)[0] == 0
    assert said in html.unescape((folder / "report.html").read_text())


@pytest.mark.parametrize(
    "option, before, after", [("seed", "0", "1"), ("activation", "relu", "tanh"), ("learning_rate", "0.003", "0.01")]
)
def test_an_option_that_was_changed_in_the_file_is_refused(tmp_path, capsys, whole, option, before, after):
    folder, path = shutil.copytree(whole, tmp_path / "copy"), tmp_path / "copy" / "config.toml"
    quote = '"' * before.isalpha()
    line = f"\n{option} = {quote}{{}}{quote}\n"
    assert line.format(before) in path.read_text()
    path.write_text(path.read_text().replace(line.format(before), line.format(after)))
    np.save(tmp_path / "rows.npy", np.ones((2, 64)))
    fix = "write it as it was" + "; --resume takes another on the command line" * (option == "learning_rate")
    said = f"{path}: expected {option} to be that of the run, {before}, got {after}; {fix}."
    for command in (
        ["train", "--resume", folder, "--epochs", 9], ["evaluate", folder], ["report", folder, "--most", 0],
        ["predict", folder, tmp_path / "rows.npy"], ["export", folder],
    ):  # fmt: skip
        files = text_of(folder)
        assert funcnet(capsys, *command) == (2, "", f"funcnet: {said}\n")
        assert text_of(folder) == files


def test_an_option_given_on_the_command_line_is_taken_and_recorded(tmp_path, capsys, noise):
    folder, made = tmp_path / "run", ["--data", noise, "--model", "linear", "--batch-size", 48]
    assert funcnet(capsys, "train", *made, "--epochs", 1, "--output", folder)[0] == 0
    for epochs in (2, 3):
        rate = ["--learning-rate", 0.5] * (epochs == 2)
        assert funcnet(capsys, "train", "--resume", folder, "--epochs", epochs, *rate)[::2] == (0, "")
        *_, facts = checkpoints.load_weights(folder / "weights.safetensors")
        newest = checkpoints.verify(folder / "checkpoints")[-1].manifest.metadata
        for kept in (facts["options"], newest["options"], config_file.read_config(folder / "config.toml")):
            assert (kept["learning_rate"], kept["epochs"]) == (0.5, epochs)
    # A process that is killed before its first checkpoint has already written the file.
    own = options.Train(**config_file.read_config(folder / "config.toml"))
    again = dataclasses.replace(own, learning_rate=0.25)
    config_file.write_config(again, folder / "config.toml")
    assert folders.check_unchanged(folder, facts) == again
    config_file.write_config(dataclasses.replace(own, seed=1), folder / "config.toml")
    with pytest.raises(ConfigError, match="expected seed to be that of the run, 0, got 1; write it as it was"):
        folders.check_unchanged(folder, facts)


def test_the_options_are_written_as_a_whole_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "config.toml"
    config_file.write_config(options.Train(), path)
    before = path.read_bytes()

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        config_file.write_config(options.Train(seed=1), path)
    assert (os.listdir(tmp_path), path.read_bytes()) == (["config.toml"], before)
    assert config_file.is_sealed(path)
    for place in range(len(before)):
        path.write_bytes(before[:place] + bytes([before[place] ^ 1]) + before[place + 1 :])
        assert not config_file.is_sealed(path)


def test_predictions_are_written_as_a_whole_or_not_at_all(tmp_path, capsys, monkeypatch, whole):
    np.save(tmp_path / "rows.npy", np.ones((2, 64)))
    arguments = ["predict", whole, tmp_path / "rows.npy", "--output", tmp_path / "classes.csv"]
    assert funcnet(capsys, *arguments)[0] == 0
    before = (tmp_path / "classes.csv").read_text()
    assert [line.partition(",")[0] for line in before.splitlines()] == ["row", "0", "1"]

    def full(*arguments):
        raise OSError(28, "No space left on device", "classes.csv")

    monkeypatch.setattr(files.os, "fsync", full)
    code, _, error = funcnet(capsys, *arguments)
    assert (code, "No space left on device" in error) == (2, True)
    assert (tmp_path / "classes.csv").read_text() == before
    assert sorted(os.listdir(tmp_path)) == ["classes.csv", "rows.npy"]


def test_a_run_from_before_these_facts_were_kept(tmp_path, capsys, whole):
    folder = shutil.copytree(whole, tmp_path / "copy")

    def older(metadata):
        for name in ("options", "metrics", "data_sha256"):
            del metadata[name]

    for step in checkpoints.steps(folder / "checkpoints"):
        path = folder / "checkpoints" / f"{step:08d}"
        resealed(path, lambda content: (older(content["metadata"]), content.pop("partial")))
    params, state, metadata = checkpoints.load_weights(folder / "weights.safetensors")
    older(metadata)
    checkpoints.save_weights(folder / "weights.safetensors", params, state, metadata)
    _, _, lines = (folder / "config.toml").read_text().partition("\n")
    (folder / "config.toml").write_text(lines)
    assert funcnet(capsys, "evaluate", folder)[0] == 0
    assert funcnet(capsys, "report", folder, "--most", 0)[0] == 0
    (folder / "weights.safetensors").unlink()
    assert funcnet(capsys, "train", "--resume", folder)[::2] == (0, "")
    check_same(folder, whole)


def test_what_may_not_change(tmp_path, capsys, whole):
    code, _, error = funcnet(capsys, "train", "--resume", whole)
    assert (code, error) == (
        2, f"funcnet: {whole}: expected a run that was stopped, got one that is finished; give more --epochs.\n",
    )  # fmt: skip
    code, _, error = funcnet(capsys, "train", "--resume", whole, "--seed", 1)
    assert code == 2
    assert "funcnet train --resume: expected --seed to be that of the run, 0, got 1; start a new run." in error
    code, _, error = funcnet(capsys, "train", "--resume", tmp_path)
    assert (code, error) == (
        5, f"funcnet: {tmp_path}: expected a folder that funcnet train wrote, with config.toml.\n"
    )  # fmt: skip


def test_checkpoints_are_listed_and_damage_is_named(tmp_path, capsys, whole):
    """A run whose newest checkpoint is damaged falls back to the one before, and says so."""
    folder = shutil.copytree(whole, tmp_path / "copy")
    code, printed, _ = funcnet(capsys, "checkpoints", "verify", folder)
    *_, older, newest = checkpoints.steps(folder / "checkpoints")
    assert code == 0
    assert printed.count("whole") == len(checkpoints.steps(folder / "checkpoints")) + 4  # with the other files
    (folder / "weights.safetensors").unlink()
    (folder / "checkpoints" / f"{newest:08d}" / "state.safetensors").write_bytes(b"")
    code, printed, error = funcnet(capsys, "checkpoints", "verify", folder)
    assert code == 5
    assert "damaged" in printed
    assert funcnet(capsys, "checkpoints", "list", folder)[0] == 0  # which looks at manifests alone
    assert error.startswith(f"{folder}/checkpoints/{newest:08d}: state.safetensors has 0 bytes, expected ")
    code, printed, error = funcnet(capsys, "train", "--resume", folder)
    assert code == 0
    assert f"{newest:08d}: state.safetensors has 0 bytes" in error
    assert f"going on from step {older}" in printed
    check_same(folder, whole)
    code, _, error = funcnet(capsys, "checkpoints", "list", tmp_path)
    assert (code, error) == (5, f"funcnet: {tmp_path}: expected checkpoints, or a run with checkpoints, got neither.\n")


def test_the_other_files_of_a_run_are_verified_and_what_is_wrong_is_named(tmp_path, capsys, whole):
    folder = shutil.copytree(whole, tmp_path / "copy")
    names = ["config.toml", "metrics.csv", "sessions.jsonl", "weights.safetensors"]

    def wrong():
        code, printed, error = funcnet(capsys, "checkpoints", "verify", folder)
        assert code == (5 if error else 0)
        assert printed.count("damaged") == len(error.splitlines())
        return error

    assert wrong() == ""
    entries = json.loads(funcnet(capsys, "checkpoints", "verify", folder, "--json")[1])
    assert [os.path.basename(entry["path"]) for entry in entries if entry["step"] is None] == names
    for name in names:
        content = (folder / name).read_bytes()
        for place in range(len(content) // 7, len(content), len(content) // 3):
            (folder / name).write_bytes(content[:place] + bytes([content[place] ^ 1]) + content[place + 1 :])
            assert wrong().startswith(f"{folder / name}: "), (name, place)
        (folder / name).unlink()
        needed = name != "weights.safetensors"  # which come at the end of a run
        assert wrong().startswith(f"{folder / name}: cannot be read: [Errno 2]") == needed
        (folder / name).write_bytes(content)
    config, rows = (folder / "config.toml").read_bytes(), (folder / "metrics.csv").read_text()
    (folder / "config.toml").write_bytes(config + b"# mine\n")
    assert "config.toml: expected the lines that train wrote, with their SHA-256 above them, got others." in wrong()
    (folder / "config.toml").write_bytes(config)
    (folder / "metrics.csv").write_text("".join(rows.splitlines(keepends=True)[:-1]))
    assert "metrics.csv: expected all rows of the run, got fewer than the 8 rows that the run recorded" in wrong()
    (folder / "metrics.csv").write_text(rows)
    weights = (folder / "weights.safetensors").read_bytes()
    params, state, facts = checkpoints.load_weights(folder / "weights.safetensors")
    checkpoints.save_weights(folder / "weights.safetensors", params, state, metadata={**facts, "data_sha256": "0"})
    assert "weights.safetensors: expected weights that funcnet train wrote in this run, got others." in wrong()
    (folder / "weights.safetensors").write_bytes(weights)
    shutil.rmtree(folder / "checkpoints")  # which take much room
    assert wrong() == ""


def test_a_run_goes_on_from_before_parameters_that_are_not_finite(tmp_path, capsys, whole):
    folder = shutil.copytree(whole, tmp_path / "copy")
    (folder / "weights.safetensors").unlink()
    *_, older, newest = checkpoints.steps(folder / "checkpoints")
    manifest, tensors = read(folder / "checkpoints" / f"{newest:08d}")
    bias = next(path for path in tensors if path.endswith("bias"))
    tensors[bias] = tensors[bias] * np.float32(np.nan)
    shutil.rmtree(folder / "checkpoints" / f"{newest:08d}")
    bad = Report(manifest.epoch, newest, manifest.metrics, tensors)
    checkpoints.save(folder / "checkpoints", bad, metadata=manifest.metadata)
    code, printed, _ = funcnet(capsys, "checkpoints", "verify", folder)
    assert (code, printed.count("not finite")) == (0, 1)
    code, printed, error = funcnet(capsys, "train", "--resume", folder)
    assert (code, f"going on from step {older}" in printed) == (0, True)
    assert f"{newest:08d}: {bias} is not finite; going back to an older one.\n" in error
    check_same(folder, whole)


@pytest.mark.parametrize(
    "metadata",
    [None, [], 3, {}, {"classes": 10, "shape": [64]}, {"preparation": 3}, {"preparation": "{}"},
     {"preparation": PREPARED.replace("64", "-64")}, {"preparation": PREPARED.replace("[", "")},
     {"preparation": PREPARED, "options": []}, {"preparation": PREPARED, "metrics": 3}],
)  # fmt: skip
def test_a_run_whose_facts_were_made_up(tmp_path, capsys, whole, metadata):
    folder = shutil.copytree(whole, tmp_path / "copy")
    params, state, _ = checkpoints.load_weights(folder / "weights.safetensors")
    checkpoints.save_weights(folder / "weights.safetensors", params, state, metadata)
    code, _, error = funcnet(capsys, "evaluate", folder)
    said = f"funcnet: {folder}/weights.safetensors: expected weights that funcnet train wrote; train again.\n"
    assert (code, error) == (5, said)
    (folder / "weights.safetensors").unlink()
    path = folder / "checkpoints" / f"{checkpoints.steps(folder / 'checkpoints')[-1]:08d}"
    resealed(path, lambda content: content.update(metadata=metadata))
    code, _, error = funcnet(capsys, "train", "--resume", folder)
    said = f"funcnet: {folder}: expected checkpoints that funcnet train wrote; start a new run.\n"
    assert (code, error) == (5, said)


def test_other_data_are_refused(tmp_path, capsys):
    rng, file = np.random.default_rng(0), tmp_path / "data.npz"
    np.savez(file, x=rng.random((60, 4)), target=np.arange(60) % 3)
    made = ["--data", file, "--model", "linear", "--batch-size", 16]
    assert funcnet(capsys, "train", *made, "--epochs", 1, "--output", tmp_path / "run")[0] == 0
    page = ["report", tmp_path / "run", "--most", 0]
    with np.load(file) as arrays:
        x, target = arrays["x"], arrays["target"]
    said = (
        f"{tmp_path / 'run'}: expected the training data that the run began with, got other data; other rows would be "
        "held out; put the old data back, or start a new run."
    )
    for order in (np.arange(60)[::-1], [*range(60), 0]):  # the rows in another order, and one row more
        np.savez(file, x=x[order], target=target[order])
        for command in (["train", "--resume", tmp_path / "run", "--epochs", 2], ["evaluate", tmp_path / "run"]):
            code, printed, error = funcnet(capsys, *command)
            assert (code, printed, error) == (4, "", f"funcnet: {said}\n")
        assert funcnet(capsys, *page)[0] == 0
        text = html.unescape((tmp_path / "run" / "report.html").read_text())
        assert text.count(said) == 2  # in place of the confusion matrix and the mistakes
        assert "held-out rows" not in text
    np.savez(file, x=x, target=target)
    assert funcnet(capsys, "evaluate", tmp_path / "run")[0] == 0
    # Rows of another file: those that were trained on are counted.
    trained_on, _ = fn.data.split(x.astype(np.float32), target, stratified=True)
    few, other = trained_on[0][:5], ["evaluate", tmp_path / "run", "--data", tmp_path / "other.npz"]
    np.savez(tmp_path / "other.npz", x=np.concatenate([few, rng.random((2, 4), np.float32)]), target=np.full(7, 2))
    code, printed, _ = funcnet(capsys, *other)
    assert (code, f"{tmp_path / 'other.npz'}: 5 of 7 rows were trained on\n" in printed) == (0, True)
    found = json.loads(funcnet(capsys, *other, "--json")[1])
    assert (found["rows"], found["trained_on"], np.sum(found["confusion"], 1).tolist()) == (7, 5, [0, 0, 7])
    np.savez(file, x=x[::-1], target=target)
    code, printed, _ = funcnet(capsys, *other)
    assert (code, "trained on are not counted: the data of the run are not there any more" in printed) == (0, True)
    narrow = "expected rows of shape (4,), got an array of shape (5, 3)"
    for rows, labels, said in (
        (few[:, :3], 0, narrow),
        (
            few,
            3,
            "other.npz: Preparation: expected a class that training rows have, 0, 1, 2, got '3' at row 0; leave it",
        ),
    ):
        np.savez(tmp_path / "other.npz", x=rows, target=np.full(5, labels))
        code, _, error = funcnet(capsys, *other)
        assert (code, said in error) == (4, True)
    np.savez(file, x=x, target=target)
    moved = file.rename(tmp_path / "moved.npz")
    code, _, error = funcnet(capsys, "train", "--resume", tmp_path / "run", "--epochs", 2, "--data", moved)
    assert (code, error) == (0, "")
