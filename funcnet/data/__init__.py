"""Data: a bundled set, splits, the order of batches, and checks. All of it on the host, in NumPy."""

from funcnet.data.batching import Batches, batch_rows, epoch_order, steps_per_epoch
from funcnet.data.checks import check_data
from funcnet.data.digits import digits
from funcnet.data.splits import split

__all__ = ["Batches", "batch_rows", "check_data", "digits", "epoch_order", "split", "steps_per_epoch"]
