"""Test configuration: strict promotion everywhere, code blocks of Markdown files executed, a fixture for float64."""

import gc
import itertools
import os
from pathlib import Path

# Nearly all the time of the tests goes into compiling. Compiled programs are kept for the next run, and shared by the
# workers and by the processes that tests start; to write a very small one takes as long as to compile it. Programs do
# not note the lines of Python that they come from. jax reads this when it is imported.
os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(Path(__file__).parent / ".cache" / "jax"))
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
os.environ.setdefault("JAX_TRACEBACK_IN_LOCATIONS_LIMIT", "0")

# The list of fonts that Matplotlib keeps may be that of an installation that is gone, and a user's matplotlibrc would
# change pictures. Processes that tests start inherit this.
os.environ.setdefault("MPLCONFIGDIR", str(Path(__file__).parent / ".cache" / "matplotlib"))

import jax
import pytest
from hypothesis import HealthCheck, settings
from sybil import Sybil
from sybil.evaluators.doctest import NUMBER
from sybil.parsers.markdown import PythonCodeBlockParser
from sybil.parsers.myst import SkipParser
from xdist.scheduler import LoadScopeScheduling

# For a file collected alone, such as funcnet/layers/dropout.py, pytest's importlib mode imports the package, which runs
# the file, then runs it again and sets the module in its package, where the function of that name stood. What is
# imported before is not run again.
import funcnet.data
import funcnet.gradients
import funcnet.layers
import funcnet.losses
import funcnet.metrics
import funcnet.models
import funcnet.optimizers
import funcnet.parallel
import funcnet.pretraining
import funcnet.training  # noqa: F401

# Mixed dtypes in funcnet's own code are mistakes that JAX's default promotion would hide.
jax.config.update("jax_numpy_dtype_promotion", "strict")

# Most programs here take longer to compile than to run, and are too small to be compiled in parts. The older of XLA's
# two code generators takes half the time; jax 0.11 has the newer alone, and ends the process at an option that it does
# not know.
quick = ["--xla_cpu_parallel_codegen_split_count=1"]
if jax.__version_info__ < (0, 11):
    quick.append("--xla_cpu_use_fusion_emitters=false")
os.environ["XLA_FLAGS"] = " ".join([os.environ.get("XLA_FLAGS", ""), *quick])
jax.config.update("jax_disable_most_optimizations", True)

# A worker keeps a million objects alive, most of them parts of traced programs. Searching them for garbage takes time.
gc.freeze()
gc.set_threshold(100_000, 50, 100)

settings.register_profile(
    "funcnet", deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow], print_blob=True
)
settings.load_profile("funcnet")

pytest_collect_file = Sybil(
    parsers=[PythonCodeBlockParser(doctest_optionflags=NUMBER), SkipParser()],
    patterns=["README.md", "CONTRIBUTING.md", "docs/*.md", "docs/*/*.md"],
    excludes=["docs/start.zh.md"],  # its code is that of start.md, which a test holds
).pytest()

collect_ignore = ["docs/conf.py", "docs/_ext"]  # they need Sphinx


# Files of many tests, of which those of one row of a table share what is compiled, or no two share anything.
BY_ROW = {f"tests/test_{name}.py" for name in ("docs", "false_alarms", "layer_laws", "losses", "models", "modes")}


class Scheduling(LoadScopeScheduling):
    """For `pytest -n`: one worker gets what shares variables, fixtures or compiled programs, a file or all of a row."""

    def _split_scope(self, nodeid):
        path, _, test = nodeid.partition("::")
        if path not in BY_ROW:
            return path
        name, _, row = test.rstrip("]").partition("[")
        return f"{path}::{row.split('-')[0] or name}"


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config, log):
    return Scheduling(config, log)


def pytest_addoption(parser):
    parser.addoption("--seeds", type=int, default=1, help="how many seeds the tests of false alarms draw")


# Each compiled program has memory maps, and Linux gives a process 65,530 of them. XLA ends it when there are no more.
MOST_MAPS, MAPS = 40_000, Path("/proc/self/maps")
finished = itertools.count(1)


def pytest_runtest_teardown():
    """After every fifty tests: if this process has very many compiled programs, drop them."""
    if next(finished) % 50 == 0 and MAPS.exists() and len(MAPS.read_bytes().splitlines()) > MOST_MAPS:
        jax.clear_caches()
        gc.collect()


@pytest.fixture
def x64():
    """64-bit numbers within the test."""
    with jax.enable_x64(True):
        yield


@pytest.fixture
def compiled_as_usual():
    """XLA with its optimizations, for tests of the numbers that users will see."""
    jax.config.update("jax_disable_most_optimizations", False)
    yield
    jax.config.update("jax_disable_most_optimizations", True)
