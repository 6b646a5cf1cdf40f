"""Weights and complete runs on disk: written completely or not at all, hashed, and restored by path."""

from funcnet.checkpoints.folder import Verdict, steps, verify
from funcnet.checkpoints.run import restore, save
from funcnet.checkpoints.saving import saving
from funcnet.checkpoints.weights import load_weights, save_weights, weights_table

__all__ = ["Verdict", "load_weights", "restore", "save", "save_weights", "saving", "steps", "verify", "weights_table"]
