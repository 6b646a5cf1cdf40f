"""Test configuration: strict promotion everywhere, code blocks of Markdown files executed, a fixture for float64."""

import jax
import pytest
from hypothesis import HealthCheck, settings
from sybil import Sybil
from sybil.evaluators.doctest import NUMBER
from sybil.parsers.markdown import PythonCodeBlockParser
from sybil.parsers.myst import SkipParser

# Mixed dtypes in funcnet's own code are mistakes that JAX's default promotion would hide.
jax.config.update("jax_numpy_dtype_promotion", "strict")

settings.register_profile(
    "funcnet", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("funcnet")

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=NUMBER), SkipParser()],
    patterns=["README.md", "docs/**/*.md", "CONTRIBUTING.md"],
).pytest()


@pytest.fixture
def x64():
    """64-bit numbers within the test."""
    with jax.enable_x64(True):
        yield
