"""The documents: what they name exists, the tests they point to exist, the examples run.

Their code blocks are executed by sybil; see conftest.py.
"""

import ast
import functools
import importlib
import inspect
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

import funcnet as fn

ROOT = Path(__file__).parent.parent
README, SEEDS, CONVENTIONS = ROOT / "README.md", ROOT / "docs/seeds.md", ROOT / "docs/conventions.md"
FAULTS = ROOT / "docs/faults.md"
MODULES = {name: getattr(fn, name) for name in fn.__all__ if inspect.ismodule(getattr(fn, name))}


def rows(document):
    """The cells of each row of the document's tables, without the heads."""
    lines = document.read_text(encoding="utf-8").splitlines()
    for before, line in zip(["", *lines], lines, strict=False):
        if line.startswith("|") and before.startswith("|") and not line.startswith("|---"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def quoted(text):
    """What stands in `backticks`."""
    return re.findall(r"`([^`]+)`", text)


@functools.cache
def defined_tests(path):
    """The names of the functions in a file."""
    return {node.name for node in ast.parse((ROOT / path).read_text()).body if isinstance(node, ast.FunctionDef)}


def missing_tests(cell):
    """The references `tests/file.py::test_name` of a cell that lead nowhere; a cell without any is one too."""
    references = [reference.partition("::") for reference in quoted(cell)] or [("", "", "")]
    return [
        f"{path}::{name}"
        for path, _, name in references
        if not (path.startswith("tests/") and (ROOT / path).is_file() and name in defined_tests(path))
    ]


def resolves(name):
    """Whether `layers.dense` is an attribute of the package."""
    try:
        functools.reduce(getattr, name.split("."), fn)
    except AttributeError:
        return False
    return True


# Tables


@pytest.mark.parametrize("document", [SEEDS, CONVENTIONS, FAULTS], ids=lambda path: path.name)
def test_the_tests_that_tables_name_exist(document):
    table = list(rows(document))
    assert len(table) > 40
    assert {cells[0]: missing for cells in table if (missing := missing_tests(cells[-1]))} == {}


@pytest.mark.parametrize(
    "cell", ["", "later", "`tests/test_docs.py::test_none`", "`tests/test_none.py::test_a`", "`test_docs.py`"]
)
def test_a_missing_test_is_seen(cell):
    assert len(missing_tests(cell)) == 1


def test_the_items_of_the_seeds_are_python_that_evaluates():
    for item, code, _ in rows(SEEDS):
        assert quoted(code), item
        for expression in quoted(code):
            value = eval(expression, dict(MODULES))
            assert callable(value) or isinstance(value, fn.Layer | fn.Optimizer), item


def test_the_names_in_the_conventions_exist():
    names = [name for cells in rows(CONVENTIONS) for cell in (cells[0], cells[2]) for name in quoted(cell)]
    dotted = [name for name in names if re.fullmatch(r"[a-z_]+\.\w+", name)]
    assert len(dotted) > 40
    assert [name for name in dotted if not resolves(name)] == []


# README

# Public, but for those who write losses and layers.
MACHINERY = {"as_schedule", "hand_derived", "prepare"}


def inventory():
    """module -> names, of the README's table."""
    named = {}
    for kind, names in rows(README):
        for module in quoted(kind):
            named.setdefault(module, set()).update(quoted(names))
    return named


def test_the_readme_names_what_exists():
    for module, names in inventory().items():
        assert [name for name in sorted(names) if not hasattr(MODULES[module], name)] == []
    tools = next(names for kind, names in rows(README) if kind == "tools")
    assert {*inventory(), *quoted(tools), "types"} == set(MODULES)


@pytest.mark.parametrize("module", inventory())
def test_the_readme_names_everything(module):
    public = {name for name in importlib.import_module(f"funcnet.{module}").__all__ if name.islower()}
    public -= {name for name in public if name.startswith("check_")} | MACHINERY
    assert sorted(public - inventory()[module]) == []


def test_every_public_function_has_an_example():
    """Which the tests of docstrings run."""
    for module in (importlib.import_module(f"funcnet.{name}") for name in MODULES):
        functions = {name: getattr(module, name) for name in module.__all__ if name.islower()}
        without = [name for name, function in functions.items() if ">>>" not in (inspect.getdoc(function) or "")]
        assert without == [], module.__name__


@pytest.mark.parametrize("name, last", [("train", "funcnet train"), ("test", "pytest")])
def test_the_readme_gives_the_commands(name, last):
    """As .ci/run reads them: a bash block right below the comment that makes its own environment."""
    found = re.findall(rf"^<!-- command: {name} -->\n```bash\n(.*?)\n```$", README.read_text("utf-8"), re.M | re.S)
    assert len(found) == 1
    assert found[0].startswith("python3 -m venv .venv\n")
    assert last in found[0].splitlines()[-1]


@pytest.mark.parametrize("document", [*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")], ids=lambda path: path.name)
def test_links_lead_somewhere(document):
    links = re.findall(r"\]\(([^)#]+)[^)]*\)", document.read_text(encoding="utf-8"))
    assert [link for link in links if "://" not in link and not (document.parent / link).exists()] == []


@pytest.mark.parametrize("name", MODULES["plotting"].__all__)
def test_the_gallery_has_every_picture_with_its_call(name):
    """In a block of code, and between this block and the next one the picture."""
    text = (ROOT / "docs/pictures.md").read_text("utf-8")
    blocks = re.findall(r"^```python\n(.*?)^```$(.*?)(?=^```|\Z)", text, re.M | re.S)
    assert [after for code, after in blocks if f"fn.plotting.{name}(" in code and re.search(r"^!\[", after, re.M)]


def test_pictures_are_small():
    for path in ROOT.glob("docs/images/*"):
        assert path.stat().st_size < 60_000, path


# Examples

# file -> what the last line of its output says, and the least that the number in it may be
EXAMPLES = {
    "digits.py": (r"held-out accuracy (\S+)%", 97),
    "write_your_own_layer.py": (r"serial\(gated\(64\), dense\(10\)\): held-out accuracy (\S+)%", 95),
    "vanishing_gradients.py": (r"sigmoid, Xavier: .*, a factor of (\S+)", 1e6),
    "regression.py": (r"R² (\S+), at best 0.980", 0.95),
    "spoken_digits.py": (r"(?:speak|dial): (\S+)% of (?:50|150) digits in unheard voices", 90),
    "spoken_numbers.py": (r"(?:speak|dial): (\S+)% of the digits of 100 numbers, in unheard voices", 90),
    "sequences.py": (r"digits of 3 to 7 columns, held out: accuracy (\S+)%", 97),
    "word_vectors.py": (r"the nearest neighbour is of the same topic for (\S+)% of the words", 95),
    "jobs.py": (r"linear regression .* R² (\S+)", 0.25),
    "optimizer_paths.py": (r"ravine  Adam +\d+ steps to within 0.01 of the minimum, (\S+) above it at the end", 0),
    "decision_boundary.py": (r"epoch 80 .*accuracy (\S+)%", 97),
    "initialisation.py": (r"tanh\(\)  He +mean size after 20 layers (\S+)", 0.4),
    "perceptron.py": (r"XOR: mistakes in its best epoch (\S+)", 1),
    "universal_approximation.py": (r"from width 2 to 64 the error falls by a factor of (\S+)", 30),
    "pretraining.py": (r"three hidden layers, 30 labels: pre-training gains (\S+) points", 3),
    "variational_autoencoder.py": (r"log-likelihood of a held-out image: at least (\S+) nats", -25),
    "gan.py": (r"\S+% of the points are near a centre; centres with 2% of them or more: (\S+)", 8),
    "siamese.py": (r"(\S+)% of shifted digits are named right by what was learned", 85),
    "double_dqn.py": (r"3000 updates: the poles stand (\S+) steps", 80),
    "physics_informed.py": (r"u is right to (\S+) decimals everywhere", 2.5),
    "maml.py": (r"it is (\S+) times smaller", 3),
    "distillation.py": (r"student taught (\S+)%", 95),
    "two_tasks.py": (r"held-out digits, 480 labels: accuracy (\S+)%", 94),
    "transfer.py": (r"holes, with the trunk of the digits: accuracy (\S+)%", 89),
    "graph_network.py": (r"edges between nodes of one colour, in graphs held out: R² (\S+)", 0.95),
    "segmentation.py": (r"held-out images: mean intersection over union (\S+)", 0.7),
    "detection.py": (r"held-out boxes: mean intersection over union (\S+)", 0.65),
    "regularisation.py": (r"all five .*, lower in [45] of 5  accuracy (\S+)% ± \S+", 94),
}


def test_every_example_is_run():
    assert {path.name for path in ROOT.glob("examples/*.py")} == set(EXAMPLES)


def test_examples_are_short():
    assert {name for name in EXAMPLES if len((ROOT / "examples" / name).read_text("utf-8").splitlines()) > 80} == set()


@pytest.mark.parametrize("name", EXAMPLES)
def test_examples(name, tmp_path):
    command = [sys.executable, "-W", "error", ROOT / "examples" / name]
    quickly = os.environ | {"JAX_DISABLE_MOST_OPTIMIZATIONS": "1"}  # compiling takes most of their time
    done = subprocess.run(command, capture_output=True, text=True, encoding="utf-8", cwd=tmp_path, env=quickly)
    assert (done.returncode, done.stderr) == (0, "")
    pattern, least = EXAMPLES[name]
    found = re.fullmatch(pattern, done.stdout.splitlines()[-1])
    assert found, done.stdout
    assert float(found[1]) >= least
    assert list(tmp_path.iterdir()) == []


def test_examples_need_only_the_run_time_dependencies():
    for name in EXAMPLES:
        imported = re.findall(r"^\s*(?:import|from) (\w+)", (ROOT / "examples" / name).read_text("utf-8"), re.M)
        assert set(imported) - sys.stdlib_module_names <= {"funcnet", "jax", "numpy"}


def test_the_digits_take_twenty_lines():
    tree = ast.parse((ROOT / "examples/digits.py").read_text(encoding="utf-8"))
    lines = {line for node in tree.body[1:] for line in range(node.lineno, node.end_lineno + 1)}
    assert ast.get_docstring(tree)
    assert len(lines) <= 20
