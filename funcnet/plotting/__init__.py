"""Pictures of training, gradients, networks, images, decision boundaries, the paths of optimizers, and functions."""

from funcnet.plotting.boundaries import decision_boundary, decision_boundary_gif
from funcnet.plotting.distributions import histograms
from funcnet.plotting.functions import activations, initializer_spread, schedules
from funcnet.plotting.gradients import gradient_errors, gradient_flow
from funcnet.plotting.images import activation_maps, filters, misclassified, saliency
from funcnet.plotting.networks import graph
from funcnet.plotting.rates import rate_search
from funcnet.plotting.scores import class_scores
from funcnet.plotting.surfaces import loss_surface
from funcnet.plotting.training import confusion_matrix, learning_curves
from funcnet.plotting.values import predicted_values

__all__ = [
    "activation_maps", "activations", "class_scores", "confusion_matrix", "decision_boundary", "decision_boundary_gif",
    "filters", "gradient_errors", "gradient_flow", "graph", "histograms", "initializer_spread", "learning_curves",
    "loss_surface", "misclassified", "predicted_values", "rate_search", "saliency", "schedules",
]  # fmt: skip
