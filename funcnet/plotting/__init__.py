"""Pictures: learning curves, the confusion matrix, and gradients through the layers."""

from funcnet.plotting.gradients import gradient_errors, gradient_flow
from funcnet.plotting.training import confusion_matrix, learning_curves

__all__ = ["confusion_matrix", "gradient_errors", "gradient_flow", "learning_curves"]
