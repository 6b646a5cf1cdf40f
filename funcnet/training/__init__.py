"""Training: the step, `fit`, evaluation, early stopping."""

from funcnet.training.early_stopping import early_stopping
from funcnet.training.evaluation import evaluate
from funcnet.training.fit import fit
from funcnet.training.step import create_state, train_step

__all__ = ["create_state", "early_stopping", "evaluate", "fit", "train_step"]
