"""Checking gradients by hand against autodiff and finite differences, and looking inside a training step."""

from funcnet.checking.check import check_gradients
from funcnet.checking.mutants import Mutant, Score, mutants, mutation_score
from funcnet.checking.nonfinite import Found, find_nonfinite
from funcnet.checking.report import GradientReport, Row
from funcnet.checking.testing import gradient_test
from funcnet.checking.trace import Statistics, Trace, trace_backward

__all__ = [
    "Found", "GradientReport", "Mutant", "Row", "Score", "Statistics", "Trace", "check_gradients", "find_nonfinite",
    "gradient_test", "mutants", "mutation_score", "trace_backward",
]  # fmt: skip
