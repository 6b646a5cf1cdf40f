"""Checkpoints of arrays that no process has the whole of: each process writes its parts, any number reads them."""

import json
import os
import re
import socket
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import funcnet as fn
from funcnet.checkpoints import manifest as manifests
from funcnet.checkpoints import restore, save, shards, verify
from funcnet.checkpoints.folder import problem_of
from funcnet.cli import main
from funcnet.errors import CheckpointError, CheckpointWarning, MissingExtraError

pytest.importorskip("orbax.checkpoint", reason="writes through orbax")


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """What two processes wrote, each of which also checked what it reads: `two_processes.py`."""
    folder = tmp_path_factory.mktemp("two")
    with socket.create_server(("127.0.0.1", 0)) as server:
        coordinator = f"127.0.0.1:{server.getsockname()[1]}"
    script = Path(__file__).parent / "two_processes.py"
    calls = [[sys.executable, "-W", "error", script, folder, coordinator, str(number)] for number in range(2)]
    options = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "env": os.environ | {"JAX_PLATFORMS": "cpu"}}
    started = [subprocess.Popen(call, text=True, **options) for call in calls]
    said = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0], "\n".join(said)
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """A copy to damage."""
    for path in written.rglob("*"):
        target = tmp_path / path.relative_to(written)
        target.mkdir(parents=True) if path.is_dir() else target.write_bytes(path.read_bytes())
    return tmp_path


def like():
    model = fn.models.mlp((16, 8), activation=fn.layers.tanh)
    return fn.training.create_state(model, fn.optimizers.adam(1e-2), jax.random.key(0), jnp.zeros((4, 6)))


def test_one_process_reads_what_two_wrote(written):
    report, metadata = restore(written, like())
    assert (report.step, report.epoch, report.metrics, metadata) == (30, 1, {"loss": 0.5}, "mine")
    assert all(leaf.is_fully_addressable for leaf in jax.tree.leaves(report.state))
    with np.load(written / "whole.npz") as whole:
        for number, leaf in enumerate(jax.tree.leaves(report.state)):
            leaf = jax.random.key_data(leaf) if jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key) else leaf
            assert np.asarray(leaf).tobytes() == whole[f"arr_{number}"].tobytes()


def test_the_list_and_the_sizes(written, capsys):
    assert [(verdict.step, verdict.problem) for verdict in verify(written)] == [(20, None), (30, None)]
    assert main(["checkpoints", "verify", str(written)]) == 0
    assert capsys.readouterr().out.count("whole") == 2


def test_any_bit_of_any_file_is_seen_and_its_tensor_named(folder):
    random = np.random.default_rng(0)
    path = folder / "00000030"
    files = sorted(file for file in path.rglob("*") if file.is_file())
    assert len(files) > 20
    for file in files:
        whole = file.read_bytes()
        place, bit = random.integers(len(whole)), 1 << random.integers(8)
        file.write_bytes(whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :])
        flipped = problem_of(path)
        file.write_bytes(whole[:place])
        cut = problem_of(path)
        file.unlink()
        lost = problem_of(path)
        file.write_bytes(whole)
        assert problem_of(path) is None
        for problem in (flipped, cut, lost):
            assert problem is not None
            assert str(file.relative_to(path)) in problem or file.name == "manifest.json"
    kernel = path / "shards" / "0" / "0.0"
    kernel.write_bytes(b"")
    assert "shards/0/0.0, a part of tensor optimizer/params/0/kernel, has 0 bytes" in str(problem_of(path))


def test_what_was_put_beside_the_parts_is_seen(folder):
    (folder / "00000030" / "shards" / "0" / "7.7").write_bytes(b"x")
    assert problem_of(folder / "00000030") == (
        "shards/0/7.7, a part of tensor optimizer/params/0/kernel, is not in the manifest"
    )


def test_a_damaged_part_sends_back_to_an_older_checkpoint(folder):
    part = folder / "00000030" / "shards" / "1" / "0.0"
    part.write_bytes(part.read_bytes()[:-1])
    with pytest.warns(CheckpointWarning, match=r"00000030: shards/1/0\.0, a part of tensor .*; going back"):
        report, _ = restore(folder, like())
    assert report.step == 20


@pytest.mark.parametrize(
    "change",
    [
        {"shape": [10**7, 10**7]}, {"shape": [6, 10**12]}, {"shape": "6"}, {"shape": None}, {"chunks": [10**9, 10**9]},
        {"chunks": [0, 0]}, {"chunks": [6]}, {"dtype": "<f8"}, {"dtype": "no such"}, {"dtype": {}},
    ],
)  # fmt: skip
def test_a_description_that_was_made_up_is_refused_before_room_is_made_for_it(folder, change):
    path = folder / "00000030"
    description = path / "shards" / "0" / ".zarray"
    description.write_text(json.dumps(json.loads(description.read_text()) | change))
    content = json.loads((path / "manifest.json").read_text())
    del content["sha256"]
    size, digest = description.stat().st_size, manifests.sha256(description.read_bytes())
    content["files"]["shards/0/.zarray"] = {"bytes": size, "header_bytes": size, "header_sha256": digest}
    (path / "manifest.json").write_bytes(manifests._seal(content))
    with pytest.warns(
        CheckpointWarning, match=r"00000030: shards/0/\.zarray does not describe tensor optimizer/params"
    ):
        assert restore(folder, like())[0].step == 20


@pytest.mark.parametrize("name", ["shards", "shards/0", "shards/0/0.0"])
def test_parts_behind_a_link_are_not_read(folder, tmp_path_factory, name):
    path, elsewhere = folder / "00000030" / name, tmp_path_factory.mktemp("elsewhere") / "it"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)
    assert re.search(
        "is not in the manifest|is missing|expected a plain file, got a link", problem_of(folder / "00000030")
    )


def test_what_is_not_finite_is_told_of_all_parts():
    mesh = jax.sharding.Mesh(jax.devices()[:1], ("data",))
    there = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec("data"))
    numbers = {"a": [1.0, 2.0], "b/c": [jnp.nan, 2.0], "d": [3.0, -jnp.inf]}
    arrays = {path: jax.device_put(jnp.array(two), there) for path, two in numbers.items()}
    assert shards.not_finite(arrays) == ["b/c", "d"]


def test_a_state_of_another_model(written):
    model = fn.models.mlp((12, 8), activation=fn.layers.tanh)
    other = fn.training.create_state(model, fn.optimizers.adam(1e-2), jax.random.key(0), jnp.zeros((4, 6)))
    with pytest.raises(CheckpointError, match=r"optimizer/params/0/kernel has shape \(6, 16\), expected \(6, 12\)"):
        restore(written, other)


def test_without_orbax(written, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    with pytest.raises(MissingExtraError, match=r"orbax-checkpoint.*pip install 'funcnet\[checkpoint\]'"):
        restore(written, like())


def test_what_one_process_has_needs_no_orbax(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "orbax.checkpoint", None)
    path = save(tmp_path, fn.Report(1, 10, {}, {"kernel": jnp.ones(3)}))
    assert not (path / shards.SHARDS).exists()


def test_a_failure_of_the_leading_process_is_its_own_error():
    def fails():
        raise CheckpointError("save: no room.")

    with pytest.raises(CheckpointError, match=r"^save: no room\.$"):
        shards.on_first("save", fails)
