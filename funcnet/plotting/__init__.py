"""Pictures: learning curves, the confusion matrix, gradients through the layers, and what a network makes of images."""

from funcnet.plotting.gradients import gradient_errors, gradient_flow
from funcnet.plotting.images import activation_maps, filters, misclassified, saliency
from funcnet.plotting.training import confusion_matrix, learning_curves

__all__ = [
    "activation_maps", "confusion_matrix", "filters", "gradient_errors", "gradient_flow", "learning_curves",
    "misclassified", "saliency",
]  # fmt: skip
