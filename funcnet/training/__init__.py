"""Training: the step, `fit`, a search for a rate, evaluation, early stopping, going back, stopping by signals."""

from funcnet.training.early_stopping import early_stopping
from funcnet.training.evaluation import evaluate
from funcnet.training.fit import fit
from funcnet.training.interruption import stop_on_signals
from funcnet.training.progress import progress
from funcnet.training.rates import find_learning_rate
from funcnet.training.retrying import retrying
from funcnet.training.step import create_state, train_step

__all__ = [
    "create_state", "early_stopping", "evaluate", "find_learning_rate", "fit", "progress", "retrying",
    "stop_on_signals", "train_step",
]  # fmt: skip
