"""The loss of unaligned sequences against torch's own, in float64.

Runs where torch is installed (the extra `bench`): `pytest -m peers tests/test_torch_losses.py`.
"""

from itertools import product

import numpy as np
import pytest
from numerics import quick_jit

from funcnet import Padded, losses

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.peers

#: (batch, time, classes, length), the blank (the first class, one within or the last), all lengths or several
ROWS = [
    (*sizes, blank, full)
    for sizes, blank, full in product(
        [(1, 1, 2, 1), (2, 6, 3, 2), (4, 12, 5, 5), (3, 20, 4, 9), (2, 40, 12, 12), (5, 9, 3, 4), (3, 7, 30, 0)],
        ["first", "middle", "last"],
        [True, False],
    )
] + [(8, 16, 6, length, "first", full) for length in range(1, 8) for full in (True, False)]


def case(batch, time, classes, length, blank, full):
    random = np.random.default_rng([batch, time, classes, length, full])
    blank = {"first": 0, "middle": classes // 2, "last": classes - 1}[blank]
    z = 2 * random.normal(size=(batch, time, classes))
    labels = random.integers(0, classes - 1, (batch, length))
    labels += labels >= blank
    times, lengths = np.full(batch, time), np.full(batch, length)
    if not full:
        times = random.integers((time + 1) // 2, time + 1, batch)
        lengths = random.integers(0, length + 1, batch)
    return z, labels, times, lengths, blank


def test_the_table_is_long():
    assert len(ROWS) >= 50


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_ctc_is_that_of_torch(x64, row):
    z, labels, times, lengths, blank = case(*row)
    prediction = Padded(z, np.arange(z.shape[1]) < times[:, None])
    target = Padded(labels, np.arange(labels.shape[1]) < lengths[:, None])
    theirs = torch.tensor(z, requires_grad=True)
    log_y = theirs.log_softmax(-1).transpose(0, 1)
    counts = torch.tensor(times), torch.tensor(lengths)
    for zero_infinity in (False, True):
        loss = torch.nn.CTCLoss(blank=blank, reduction="none", zero_infinity=zero_infinity)
        values = loss(log_y, torch.tensor(labels), *counts)
        (slopes,) = torch.autograd.grad(values.sum(), theirs, retain_graph=True)
        options = {"blank": blank, "zero_infinity": zero_infinity, "reduction": "none"}
        both = quick_jit(lambda p, t, o=options: (losses.ctc(p, t, **o), losses.ctc.gradient(p, t, **o)))
        close(both(prediction, target), (values, slopes))


def close(ours, theirs):
    for got, want in zip(ours, theirs, strict=True):
        want = want.detach().numpy()
        finite = np.isfinite(want)
        np.testing.assert_array_equal(np.isfinite(got), finite)
        assert np.linalg.norm(np.asarray(got)[finite] - want[finite]) <= 1e-10 * max(np.linalg.norm(want[finite]), 1e-3)
