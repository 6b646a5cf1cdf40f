"""Pre-training without labels: the restricted Boltzmann machine, contrastive divergence, and greedy stacking into a
deep belief network. Its parameters fit a network of sigmoid layers."""

from funcnet.pretraining.contrastive import (
    contrastive_divergence, gibbs, pseudo_log_likelihood, reconstruction_error,
)  # fmt: skip
from funcnet.pretraining.rbm import RBM, rbm
from funcnet.pretraining.stacking import dream, greedy, stack, train

__all__ = [
    "RBM", "contrastive_divergence", "dream", "gibbs", "greedy", "pseudo_log_likelihood", "rbm",
    "reconstruction_error", "stack", "train",
]  # fmt: skip
