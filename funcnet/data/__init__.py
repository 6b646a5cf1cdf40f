"""Data: a bundled set, tables, image and sound files, splits, the order of batches, checks and augmentation.

Augmentation runs in JAX, under `jit`. All else runs on the host, in NumPy.
"""

from funcnet.data.augmentation import (
    channel_statistics, cutout, mixup, random_crop, random_flip, random_shift, standardize,
)  # fmt: skip
from funcnet.data.batching import Batches, batch_rows, epoch_order, steps_per_epoch
from funcnet.data.checks import check_data
from funcnet.data.cifar import cifar10, cifar100
from funcnet.data.digits import digits
from funcnet.data.idx import fashion_mnist, mnist, read_idx
from funcnet.data.pictures import image_folder
from funcnet.data.prefetch import prefetch
from funcnet.data.preparation import Preparation
from funcnet.data.preparing import prepare
from funcnet.data.sequences import padded
from funcnet.data.sound import log_mel
from funcnet.data.splits import split
from funcnet.data.tables import read_table
from funcnet.data.wav import read_wav

__all__ = [
    "Batches", "Preparation", "batch_rows", "channel_statistics", "check_data", "cifar10", "cifar100", "cutout",
    "digits", "epoch_order", "fashion_mnist", "image_folder", "log_mel", "mixup", "mnist", "padded", "prefetch",
    "prepare", "random_crop", "random_flip", "random_shift", "read_idx", "read_table", "read_wav", "split",
    "standardize", "steps_per_epoch",
]  # fmt: skip
