"""Logs of reports: lines as they come, what a kill leaves, what is taken up again, TensorBoard."""

import json
import math
import sys

import jax.numpy as jnp
import numpy as np
import pytest

from funcnet import logs, schedules
from funcnet.cli import main
from funcnet.errors import DataError, MissingExtraError
from funcnet.types import Report

REPORTS = [
    Report(1, 10, {"loss": jnp.array(0.5), "validation_loss": np.float32(0.75), "table": jnp.ones((2, 2))}, None),
    Report(2, 20, {"loss": jnp.array(0.25), "validation_loss": 1.0, "table": jnp.ones((2, 2))}, None),
    Report(3, 30, {"loss": float("nan"), "validation_loss": float("inf"), "table": jnp.ones((2, 2))}, None),
]  # type: ignore[list-item]
CSV = ["epoch,step,loss,validation_loss", "1,10,0.5,0.75", "2,20,0.25,1.0", "3,30,nan,inf"]
JSONL = [
    '{"epoch": 1, "step": 10, "loss": 0.5, "validation_loss": 0.75}',
    '{"epoch": 2, "step": 20, "loss": 0.25, "validation_loss": 1.0}',
    '{"epoch": 3, "step": 30, "loss": null, "validation_loss": null}',
]
WRITERS = [(logs.write_csv, CSV), (logs.write_jsonl, JSONL)]


@pytest.mark.parametrize("write, lines", WRITERS)
def test_reports_pass_and_are_in_the_file_when_they_come_out(tmp_path, write, lines):
    path, head = tmp_path / "log", len(lines) - 3
    reports = write(iter(REPORTS), path)
    assert not path.exists()  # nothing before the first
    for i, report in enumerate(reports):
        assert report is REPORTS[i]
        assert path.read_text().splitlines() == lines[: head + i + 1]
    assert [file.name for file in tmp_path.iterdir()] == ["log"]


@pytest.mark.parametrize("write, lines", WRITERS)
@pytest.mark.parametrize("rest", ["", '{"epoch": 3, "st', "3,3"])
def test_a_log_is_taken_up_at_the_step_of_the_first_report(tmp_path, write, lines, rest):
    """What a killed process wrote of later steps, or half a line, is gone."""
    path = tmp_path / "log"
    list(write(REPORTS, path))
    path.write_text("\n".join(lines) + "\n" + rest)
    list(write(REPORTS[1:2], path))
    assert path.read_text().splitlines() == lines[:-1]
    list(write(REPORTS[2:], path))
    assert path.read_text().splitlines() == lines
    list(write(REPORTS[:1], path))  # another run
    assert path.read_text().splitlines() == lines[:-2]


def test_the_rate_of_a_schedule_is_written_too(tmp_path):
    path = tmp_path / "log"
    list(logs.write_csv(REPORTS[:2], path, schedule=schedules.step_decay(0.5, 20)))
    assert [line.split(",")[-1] for line in path.read_text().splitlines()] == [
        "learning_rate",
        "0.5",
        "0.05000000074505806",
    ]
    assert logs.scalars(REPORTS[0]) == {"epoch": 1, "step": 10, "loss": 0.5, "validation_loss": 0.75}


def test_names_with_commas_and_scalars_that_change(tmp_path):
    path = tmp_path / "log"
    first, other = Report(1, 1, {"a,b": 1.0}, None), Report(2, 2, {"c": 1.0}, None)  # type: ignore[arg-type]
    list(logs.write_csv([first], path))
    assert path.read_text() == 'epoch,step,"a,b"\n1,1,1.0\n'
    with pytest.raises(DataError, match=r"write_csv: expected the scalars epoch, step, a,b, got epoch, step, c; take"):
        list(logs.write_csv([other], path))
    assert path.read_text() == 'epoch,step,"a,b"\n1,1,1.0\n'
    list(logs.write_jsonl([first, other], path.with_name("lines")))  # each line has its own names
    assert len(path.with_name("lines").read_text().splitlines()) == 2


@pytest.mark.parametrize("write", [logs.write_csv, logs.write_jsonl])
@pytest.mark.parametrize("content", ["Dear diary\nno news\n", '["step"]\n1\n', '{"step": "ten"}\n1,2\n'])
def test_another_file_is_not_overwritten(tmp_path, write, content):
    path = tmp_path / "diary"
    path.write_text(content)
    with pytest.raises(DataError, match=rf"{write.__name__}: expected .*diary to be a log with a step in each row"):
        list(write(REPORTS, path))
    assert path.read_text() == content
    with pytest.raises(DataError, match=rf"{write.__name__}: expected .* to be a readable file"):
        list(write(REPORTS, tmp_path))


def test_tensorboard_shows_training_and_validation_in_one_panel(tmp_path, monkeypatch):
    """Read back from the calls of a writer that stands for tensorboardX's."""
    calls = []

    class Writer:
        def __init__(self, folder, purge_step):
            calls.append((folder, purge_step))

        def add_scalar(self, tag, value, step):
            calls.append((tag, value, step))

        def flush(self):
            calls.append("flushed")

        def close(self):
            calls.append("closed")

    monkeypatch.setitem(sys.modules, "tensorboardX", type(sys)("tensorboardX"))
    monkeypatch.setattr(sys.modules["tensorboardX"], "SummaryWriter", Writer, raising=False)
    reports = logs.write_tensorboard(REPORTS[1:2], tmp_path / "board", schedule=schedules.constant(0.5))
    assert calls == []
    assert list(reports) == REPORTS[1:2]
    assert calls == [
        (str(tmp_path / "board"), 20), ("epoch", 2, 20), ("loss/training", 0.25, 20), ("loss/validation", 1.0, 20),
        ("learning_rate", 0.5, 20), "flushed", "closed",
    ]  # fmt: skip
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    with pytest.raises(MissingExtraError, match="write_tensorboard: expected the package tensorboardX.*pip install"):
        logs.write_tensorboard(REPORTS, tmp_path)


def test_tensorboard_files(tmp_path):
    pytest.importorskip("tensorboardX")
    from tensorboardX.proto.event_pb2 import Event

    list(logs.write_tensorboard(REPORTS[:2], tmp_path))
    (file,) = tmp_path.iterdir()
    data, found = file.read_bytes(), []
    while data:  # length (8 bytes), its check sum (4), the event, its check sum (4)
        size = int.from_bytes(data[:8], "little")
        event, data = Event.FromString(data[12 : 12 + size]), data[16 + size :]
        found += [(value.tag, value.simple_value, event.step) for value in event.summary.value]
    assert [entry for entry in found if entry[0] == "loss/training"] == [
        ("loss/training", 0.5, 10), ("loss/training", 0.25, 20),
    ]  # fmt: skip


def test_train_asks_for_the_package_before_it_trains(monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "tensorboardX", None)
    assert main(["train", "--tensorboard"]) == 2
    said = capsys.readouterr().err
    assert said == "funcnet: --tensorboard needs the package tensorboardX; pip install 'funcnet[tensorboard]'.\n"


def test_json_has_no_nan():
    row = json.loads(logs.as_json({"step": 1, "loss": math.nan, "best": -math.inf, "accuracy": 0.5}))
    assert row == {"step": 1, "loss": None, "best": None, "accuracy": 0.5}
