"""The clock itself: its networks, its arithmetic, its check that mathematics are equal, and its tables."""

import subprocess
from functools import partial

import jax
import numpy as np
import pytest

import funcnet as fn
from benchmarks import against, compare, report, roofline
from benchmarks.command import SUITE, Options, possible, workloads
from benchmarks.compare import Times
from benchmarks.libraries import with_funcnet
from benchmarks.machine import Machine
from benchmarks.network import Conv, Dense, Flatten, MaxPool, Relu, Residual, output_shape, parameters, uses
from benchmarks.report import Result
from benchmarks.worker import Worker
from benchmarks.workload import Inference, Training, Update, batches, leaves
from benchmarks.workloads import mlp_64, mlp_64_many, resnet_20

TINY = Training("tiny", (Dense(4), Relu(), Dense(3)), (5,), batch=2, optimizer="adam", steps=2)


def test_a_network_says_its_shapes_and_the_order_of_its_parameters():
    network = (Conv(4, 3, 2), Residual((Conv(4, 3, bias=False),), (Conv(4, 1),)), MaxPool(2), Flatten(), Dense(3))
    assert [use.after for use in uses(network, (9, 9, 1))] == [
        (5, 5, 4), (5, 5, 4), (5, 5, 4), (5, 5, 4), (2, 2, 4), (16,), (3,),
    ]  # fmt: skip
    assert output_shape(network, (9, 9, 1)) == (3,)
    shapes = [{name: a.shape for name, a in own.items()} for own in parameters(network, (9, 9, 1), "float32")]
    assert shapes == [
        {"bias": (4,), "kernel": (3, 3, 1, 4)}, {"kernel": (3, 3, 4, 4)}, {"bias": (4,), "kernel": (1, 1, 4, 4)},
        {"bias": (3,), "kernel": (16, 3)},
    ]  # fmt: skip


def test_the_residual_network_is_that_of_the_models():
    workload = resnet_20.WORKLOAD
    images = jax.ShapeDtypeStruct((1, *workload.shape), np.float32)
    ours, _ = jax.eval_shape(fn.models.resnet().init, jax.random.key(0), images)
    built, _ = jax.eval_shape(with_funcnet.build(workload.network).init, jax.random.key(0), images)
    assert [leaf.shape for leaf in jax.tree.leaves(built)] == [leaf.shape for leaf in jax.tree.leaves(ours)]


def test_the_limit_is_arithmetic_and_traffic():
    limit = roofline.limit(mlp_64.WORKLOAD, Machine(flops=1e9, bandwidths={4: 1e12}))
    first, last = 2 * 32 * 64 * 64, 2 * 32 * 64 * 10
    assert limit.parameters == 64 * 64 + 64 + 64 * 10 + 10
    assert limit.flops == 2 * first + 3 * last  # the first layer's input has no gradient
    numbers = 2 * (64 * 64 + 32 * 128) + 3 * (64 * 10 + 32 * 74) + 7 * limit.parameters
    assert limit.moved == 4 * numbers
    assert limit.seconds == pytest.approx(limit.flops / 1e9 + 28 * limit.parameters / 1e12)
    # Where memory is slow, it is the limit.
    slow = roofline.limit(mlp_64.WORKLOAD, Machine(flops=1e15, bandwidths={4: 1e9}))
    assert slow.seconds == pytest.approx(limit.moved / 1e9)


def test_the_limit_of_many_models_is_that_of_one_many_times():
    machine = Machine(flops=1e9, bandwidths={64: 1e12})
    assert roofline.limit(mlp_64_many.WORKLOAD, machine) == pytest.approx(
        tuple(64 * number for number in roofline.limit(mlp_64.WORKLOAD, machine))
    )


def test_the_limit_of_a_prediction_is_its_products():
    """2 × 5 by 5 × 4, then 2 × 4 by 4 × 3: 80 and 48 operations, 20 + 10 + 8 and 12 + 8 + 6 numbers."""
    workload = Inference("tiny", TINY.network, TINY.shape, batch=2, calls=1)
    limit = roofline.limit(workload, Machine(flops=1.0, bandwidths={4: 1e12}))
    assert limit == (80 + 48, 4 * (38 + 26), 24 + 15, 128)
    # The second product has more bytes per operation.
    slow = roofline.limit(workload, Machine(flops=2.0, bandwidths={4: 4.0}))
    assert slow.seconds == max(80 / 2, 38) + max(48 / 2, 26)


def test_the_limit_of_an_update_is_its_traffic():
    """Adam reads gradient, parameter and two moments, and writes all but the gradient."""
    limit = roofline.limit(Update("tiny", ((3, 2), (2,)), updates=1), Machine(flops=1.0, bandwidths={4: 8.0}))
    assert limit == (0, 28 * 8, 8, 28)


def test_bandwidth_is_that_of_the_working_set():
    machine = Machine(1.0, {4: 3.0, 64: 2.0})
    assert [machine.bandwidth(size) for size in (1e6, 5e6, 1e9)] == [3.0, 2.0, 2.0]


@pytest.mark.parametrize("name", [name for name in SUITE if name not in {"inference", "update"}])
def test_every_training_has_a_class_for_each_output(name):
    (workload,) = workloads(Options(only=(name,)))
    x, target = batches(workload._replace(batch=2))
    *places, classes = output_shape(workload.network, workload.shape)
    assert x.shape[1:] == workload.shape
    assert target.shape == (len(x), *places)
    assert 0 == target.min() < target.max() < classes
    assert with_funcnet.OPTIMIZERS.keys() >= {workload.optimizer}


def test_a_smoke_is_short():
    short = workloads(Options(size="smoke", only=SUITE))
    trained = [workload for workload in short if isinstance(workload, Training)]
    assert max(workload.batch for workload in trained) == 8
    blocks = [sum(isinstance(layer, Residual) for layer in workload.network) for workload in trained]
    assert blocks == [0, 0, 0, 0, 5, 2, 0, 0, 0]
    assert [workload.models for workload in trained] == [*7 * [1], 2, 1]
    assert all(output_shape(workload.network, workload.shape)[-1] in (10, 96) for workload in trained)
    assert {workload.calls for workload in short if isinstance(workload, Inference)} == {2}
    assert max(sum(p.size for p, _ in leaves(workload)) for workload in short if isinstance(workload, Update)) < 1e6


def test_all_ways_of_funcnet_do_the_same_and_count_their_steps():
    worker = Worker("funcnet")
    checks = worker.prepare(TINY)
    assert list(checks) == ["fit, backprop", "fit, autodiff", "step, backprop", "step, autodiff"]
    for check in checks.values():
        np.testing.assert_allclose(check, checks["fit, backprop"], rtol=1e-9)
    assert checks["fit, backprop"] == sorted(checks["fit, backprop"], reverse=True)  # it learns
    seconds, count = worker.run("fit, backprop")
    assert (count, seconds > 0) == (2, True)
    assert 20 < worker.peak_memory(TINY, "step, autodiff") < 20_000
    with pytest.raises(RuntimeError, match=r"funcnet: Traceback [\s\S]*KeyError: 'no such way'"):
        worker.run("no such way")
    worker.stop()


def test_each_of_many_models_trains_as_if_alone_and_the_place_of_the_batches_changes_nothing():
    worker = Worker("funcnet")
    alone = worker.prepare(TINY)["step, backprop"]
    at_once, fed = worker.prepare(TINY._replace(models=3)), worker.prepare(TINY._replace(fed="host"))
    worker.stop()
    assert list(at_once) == ["step, backprop", "step, autodiff"]
    for check in at_once.values():
        assert len(check) == 3 * len(alone)
        np.testing.assert_allclose(check[::3], alone, rtol=1e-12)
        assert len(set(check[:3])) == 3  # parameters of their own
    assert list(fed) == ["fit, backprop", "fit, autodiff", "step, backprop", "step, autodiff"]
    for check in fed.values():
        np.testing.assert_allclose(check, alone, rtol=1e-12)


class Fake:
    """A library whose numbers are given."""

    def __init__(self, library, losses):
        self.library, self.losses, self.runs = library, losses, 0

    def prepare(self, workload):
        return {"way": self.losses}

    def run(self, column):
        self.runs += 1
        return 4.0 * self.runs, 2


def test_different_mathematics_are_refused():
    with pytest.raises(AssertionError, match=r"tiny: expected the same numbers of theirs \(way\) as of ours \(way\)"):
        compare.compare(TINY, [Fake("ours", [1.0, 0.5]), Fake("theirs", [1.0, 0.501])], rounds=1)


def test_medians_are_of_a_step_and_a_slow_way_has_fewer_rounds(monkeypatch):
    monkeypatch.setattr(compare, "PAUSE", 0)
    fake = Fake("ours", [1.0])
    (times,) = compare.compare(TINY, [fake], rounds=7)
    assert fake.runs == 2  # 4 and 8 seconds: then the budget of 5 is spent
    assert times == Times("ours", "way", 3.0, 2.5, 3.5)


def made_up():
    way = partial(Times, low=1e-6, high=1.0)
    times = [
        way("funcnet", "fit, backprop", 1e-3), way("funcnet", "fit, autodiff", 2e-3), way("stax", "jit", 4e-3),
        way("stax", report.BY_HAND, 0.5e-3), way("flax", "nnx.jit", 8e-3),
    ]  # fmt: skip
    return Result(TINY, times, roofline.Limit(flops=1, moved=1, parameters=1, seconds=0.25e-3))


def test_ratios_leave_out_what_is_scanned_by_hand():
    rows = report.summary([made_up(), made_up()]).splitlines()
    assert rows[2] == "| tiny | stax, jit | 4.00 | 8.00 | 0.50 | 2.00 |"
    assert rows[4] == "| geometric mean |  | **4.00** | **8.00** | **0.50** | **2.00** |"
    alone = made_up()._replace(times=made_up().times[:2])
    rows = report.summary([made_up(), alone]).splitlines()
    assert rows[3] == "| tiny | none installed | nan | nan | nan | 2.00 |"
    assert rows[4] == "| geometric mean |  | **4.00** | **8.00** | **0.50** | **2.00** |"


def test_the_limit_stands_beside_every_time():
    rows = report.times_table(made_up()).splitlines()
    assert rows[0] == "| library | way | median | quartiles | × fit, backprop | limit 250 µs / median |"
    assert rows[2] == "| funcnet | fit, backprop | 1.00 ms | 1.00 µs to 1.00 s | 1.00 | 25% |"
    assert rows[6] == "| flax | nnx.jit | 8.00 ms | 1.00 µs to 1.00 s | 8.00 | 3% |"
    assert possible([made_up()]).splitlines()[2] == ("| tiny | 1 | 1e-09 GFLOP | 1e-06 MB | 250 µs | 25% | 6% (stax) |")


def test_a_figure_is_drawn(tmp_path):
    report.figure([made_up()], tmp_path / "ratios.png")
    assert (tmp_path / "ratios.png").read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize(
    "seconds, words",
    [(2.0, "2.00 s"), (0.01234, "12.3 ms"), (5e-6, "5.00 µs"), (250e-6, "250 µs"), (5e-9, "0.00500 µs")],
)
def test_durations(seconds, words):
    assert report.duration(seconds) == words


# Against another commit


def test_a_change_is_the_mean_of_the_rounds_ratios():
    """A machine that is twice as slow for some rounds changes nothing."""
    before, now = np.array([1.0, 2.0, 1.0, 2.0]), np.array([1.1, 2.2, 1.1, 2.2])
    found = against.change("tiny", "fit", before, now)
    assert (found.before, found.now) == (1.5, pytest.approx(1.65))
    assert (found.ratio, found.low, found.high) == pytest.approx((1.1,) * 3)
    assert found.verdict == "slower"
    assert against.change("tiny", "fit", now, before).verdict == "faster"
    noisy = against.change("tiny", "fit", [1.0, 1.0, 1.0, 1.0], [0.8, 1.3, 0.9, 1.2])
    assert noisy.low < 1 < noisy.high
    assert noisy.verdict == "same"
    assert against.table([found]).splitlines()[-1] == (
        "| tiny | fit | 1.50 s | 1.65 s | 1.100 | 1.100 to 1.100 | slower |"
    )


def test_rounds_are_of_both_in_changing_order(monkeypatch):
    monkeypatch.setattr(compare, "PAUSE", 0)
    order = []

    class Noted(Fake):
        def run(self, column):
            order.append(self.library)
            return super().run(column)

    (found,) = against.measured(TINY, Noted("before", [1.0]), Noted("now", [1.0]), rounds=3)
    assert order == ["now", "before", "before", "now", "now", "before"]
    assert (found.ratio, found.verdict) == (1.0, "same")


def test_another_mathematics_is_refused():
    with pytest.raises(AssertionError, match="tiny"):
        against.measured(TINY, Fake("before", [1.0]), Fake("now", [1.1]), rounds=1)


def test_the_other_commit_is_imported_from_its_own_tree(tmp_path):
    repository, folder = tmp_path / "repository", tmp_path / "folder"
    (repository / "funcnet").mkdir(parents=True)
    (repository / "funcnet" / "__init__.py").touch()
    who = ["-c", "user.name=n", "-c", "user.email=e"]
    for command in (["init", "-q"], ["add", "."], [*who, "commit", "-qm", "first"]):
        subprocess.run(["git", *command], cwd=repository, check=True)
    folder.mkdir()
    against.checked_out("HEAD", repository, folder)
    worker = Worker("funcnet", str(folder))
    assert worker.source() == str(folder / "funcnet" / "__init__.py")
    worker.stop()
    with pytest.raises(SystemExit, match="--against nowhere: expected a commit of this repository: fatal"):
        against.checked_out("nowhere", repository, folder)
