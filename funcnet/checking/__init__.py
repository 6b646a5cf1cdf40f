"""Cross-checking gradients: by hand against autodiff against finite differences."""

from funcnet.checking.check import check_gradients
from funcnet.checking.report import GradientReport, Row

__all__ = ["GradientReport", "Row", "check_gradients"]
