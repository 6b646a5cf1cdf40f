"""Training: the step, `fit`, evaluation, early stopping, going back after a divergence, stopping by signals."""

from funcnet.training.early_stopping import early_stopping
from funcnet.training.evaluation import evaluate
from funcnet.training.fit import fit
from funcnet.training.interruption import stop_on_signals
from funcnet.training.retrying import retrying
from funcnet.training.step import create_state, train_step

__all__ = ["create_state", "early_stopping", "evaluate", "fit", "retrying", "stop_on_signals", "train_step"]
