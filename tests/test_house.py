"""The rules of the house, read from the source: who imports whom, what hand-derived code may not call, `__all__`."""

import ast
import importlib
import re
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from refusals import refusing_lines, share

import funcnet
from funcnet.layers import dense, recompute, serial, tanh

PACKAGE = Path(funcnet.__file__).parent
TESTS = Path(__file__).parent


def module_of(path):
    """`funcnet/layers/dense.py` -> `funcnet.layers.dense`"""
    return ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__")


FILES = [path for path in sorted(PACKAGE.rglob("*.py")) if path.name != "__main__.py"]
SOURCES = {module_of(path): ast.parse(path.read_text()) for path in FILES}


def area_of(module):
    """`funcnet.layers.dense` -> `layers`"""
    return [*module.split("."), ""][1]


def imports(tree):
    """Everything that a file imports, at its head or in a function: `from funcnet.types import Layer` is
    `funcnet.types.Layer`."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from ("." * node.level + f"{node.module}.{alias.name}" for alias in node.names)


# Import direction: what each part of the package may import besides itself. A part only ever names parts above it here.

BASE = {"errors", "made", "types", "dtypes", "numerics", "trees", "checks", "reading", "rendering"}
HOUSE = {
    "errors": set(),
    "made": {"errors"},
    "types": {"made"},
    "dtypes": set(),
    "numerics": {"types"},
    "checks": {"errors", "dtypes"},
    "trees": {"errors", "types", "dtypes", "numerics", "checks"},
    "reading": set(),
    "rendering": set(),
    "compiler": set(),
    "initializers": BASE,
    "layers": BASE | {"initializers"},
    "models": BASE | {"initializers", "layers"},
    "losses": BASE,
    "metrics": BASE,
    "schedules": BASE,
    "data": BASE,
    "optimizers": BASE | {"schedules"},
    "gradients": BASE | {"layers", "losses"},
    "catalogue": BASE | {"initializers", "layers", "models", "losses", "gradients"},
    "checking": BASE | {"compiler", "layers", "gradients"},
    "training": BASE | {"compiler", "schedules", "metrics", "data", "optimizers", "gradients"},
    "pretraining": BASE | {"initializers", "layers", "data", "gradients", "training"},
    "checkpoints": BASE,
    "deployment": BASE,
    "generation": BASE,
    "logs": BASE,
    "parallel": BASE | {"compiler", "gradients", "training"},
    "plotting": BASE | {"layers"},
    "summaries": BASE | {"layers"},
    "cli": None,  # anything
}


def strangers(module, tree, house):
    """The imports by which a module breaks the direction."""
    area = area_of(module)
    allowed = house[area]
    for name in imports(tree):
        if name.startswith("."):
            yield name  # one spelling: imports are absolute
        elif name.split(".")[0] == "funcnet" and allowed is not None and area_of(name) not in {area, *allowed}:
            yield name


def test_the_house_plan_runs_one_way():
    areas = list(HOUSE)
    for i, (area, allowed) in enumerate(HOUSE.items()):
        assert allowed is None or allowed <= set(areas[:i]), area
    # Every part has a place, and every place is taken.
    assert {area_of(module) for module in SOURCES} == {"", *HOUSE}


@pytest.mark.parametrize("module", [module for module in SOURCES if area_of(module)])
def test_imports_run_one_way(module):
    assert list(strangers(module, SOURCES[module], HOUSE)) == []


@pytest.mark.parametrize(
    "area, line",
    [
        ("layers", "from funcnet.losses import mean_squared_error"),
        ("layers", "from funcnet import gradients"),
        ("layers", "import funcnet as fn"),
        ("losses", "from funcnet.layers.checks import check_axis"),
        ("losses", "def late():\n    import funcnet.layers"),
        ("optimizers", "from funcnet.losses import l2_penalty"),
        ("training", "from funcnet.checkpoints import save_weights"),
        ("types", "from .layers import dense"),
    ],
)
def test_a_wrong_import_is_seen(area, line):
    assert len(list(strangers(f"funcnet.{area}.planted", ast.parse(line), HOUSE))) == 1


# Third parties

RUN_TIME = {"jax", "jaxlib", "numpy", "chex"}
EXTRAS = {
    "PIL", "filelock", "flatbuffers", "matplotlib", "orbax", "pandas", "pyarrow", "rich", "safetensors", "sklearn",
    "tensorboardX", "tyro",
}  # fmt: skip
PICKLES = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve"}


@pytest.mark.parametrize("module", SOURCES)
def test_third_parties_are_dependencies_and_nothing_is_pickled(module):
    roots = {name.split(".")[0] for name in imports(SOURCES[module])}
    assert roots <= {"funcnet"} | RUN_TIME | EXTRAS | sys.stdlib_module_names
    assert not roots & PICKLES
    keywords = {ast.unparse(node) for node in ast.walk(SOURCES[module]) if isinstance(node, ast.keyword)}
    assert "allow_pickle=True" not in keywords


def test_importing_funcnet_loads_nothing_and_its_modules_only_run_time_dependencies():
    """The extras are imported where they are used."""
    core = [module for module in SOURCES if area_of(module) != "cli"]
    program = f"""if True:
        import importlib, sys
        roots = lambda: {{name.split(".")[0] for name in sys.modules}}
        import funcnet
        assert not roots() & {RUN_TIME}, "import funcnet is lazy"
        import chex, jax, jax.numpy, jax.scipy.special, numpy
        before = roots()
        for module in {core}:
            importlib.import_module(module)
        print(*sorted(roots() - before - sys.stdlib_module_names))
    """
    done = subprocess.run([sys.executable, "-W", "error", "-c", program], capture_output=True, text=True)
    assert (done.stdout.split(), done.stderr) == ([], "")


# Hand-derived means hand-derived

DIFFERENTIATION = {
    "ad", "custom_gradient", "custom_jvp", "custom_vjp", "fwd_and_bwd", "grad", "hessian", "jacfwd", "jacobian",
    "jacrev", "jet", "jvp", "linear_transpose", "linearize", "value_and_grad", "vjp", "vjp3",
}  # fmt: skip
CHECKPOINTS = {"ad_checkpoint", "checkpoint", "checkpoint_policies", "remat"}


def differentiation(tree):
    """The places where a file reaches for jax's differentiation, as `(line, name)`.

    `jax.checkpoint` differentiates nothing, but changes what autodiff keeps: it may stand in an `apply` or in the value
    of a loss, nowhere else.
    """
    bound = set()  # names through which the file sees jax
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom) and next(imports(node)).split(".")[0] == "jax":
            bound |= {(alias.asname or alias.name).split(".")[0] for alias in node.names}
    yield from _reaches(tree, bound, in_apply=False)


def _reaches(node, bound, in_apply):
    if isinstance(node, ast.FunctionDef):
        in_apply = in_apply or node.name == "apply" or any(map(_makes_loss, node.decorator_list))
    forbidden = DIFFERENTIATION if in_apply else DIFFERENTIATION | CHECKPOINTS
    for name in _words_of_jax(node, bound):
        if name in forbidden:
            yield node.lineno, name
    for child in ast.iter_child_nodes(node):
        yield from _reaches(child, bound, in_apply)


def _makes_loss(decorator):
    return isinstance(decorator, ast.Call) and isinstance(decorator.func, ast.Name) and decorator.func.id == "loss"


def _words_of_jax(node, bound):
    """The parts of an import from jax, the attribute of something of jax's, or a `getattr` on it."""
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {part for name in imports(node) if name.split(".")[0] == "jax" for part in name.split(".")}
    if isinstance(node, ast.Attribute) and _root(node) in bound:
        return {node.attr}
    if isinstance(node, ast.Call) and _root(node.func) == "getattr" and _root(node.args[0]) in bound:
        return DIFFERENTIATION
    return set()


def _root(node):
    """`jax.lax.exp` -> `jax`"""
    while isinstance(node, ast.Attribute):
        node = node.value
    return node.id if isinstance(node, ast.Name) else None


HAND_DERIVED = [module for module in SOURCES if area_of(module) in ("layers", "losses", "pretraining")]


@pytest.mark.parametrize("module", HAND_DERIVED)
def test_hand_derived_code_calls_no_differentiation(module):
    assert list(differentiation(SOURCES[module])) == []


def test_the_scan_reads_layers_and_losses():
    assert {"funcnet.layers.dense", "funcnet.layers.containers.loops"} < set(HAND_DERIVED)
    assert {area_of(module) for module in HAND_DERIVED} == {"layers", "losses", "pretraining"}


@pytest.mark.parametrize(
    "source, name",
    [
        *[(f"import jax\ndef backward(p, r, dy):\n    return jax.{name}(f)(dy)", name) for name in (
            "grad", "value_and_grad", "vjp", "jvp", "linearize", "linear_transpose", "jacfwd", "jacrev", "hessian",
            "custom_vjp", "custom_jvp", "checkpoint", "remat",
        )],
        ("import jax.numpy as jnp, jax as j\ny = j.vjp(f, x)", "vjp"),
        ("from jax import vjp as pull", "vjp"),
        ("from jax import lax\nlax.linear_transpose(f, x)", "linear_transpose"),
        ("def backward(p, r, dy):\n    from jax import grad", "grad"),
        ("import jax\n@jax.custom_vjp\ndef forward(x): ...", "custom_vjp"),
        ("from functools import partial\nimport jax\npartial(jax.value_and_grad, has_aux=True)", "value_and_grad"),
        ("from jax.interpreters import ad", "ad"),
        ("from jax.experimental.jet import jet", "jet"),
        ("from jax.ad_checkpoint import checkpoint", "checkpoint"),
        ("import jax\n@own.hand_gradient\ndef _(p, t):\n    return jax.checkpoint(f)(p)", "checkpoint"),
        ("import jax\n@loss(axes=1)\ndef own(p, t):\n    return jax.grad(f)(p)", "grad"),
        ("import jax\ndef apply(x):\n    return jax.grad(f)(x)", "grad"),
        ("import jax\ngetattr(jax, name)(f)", "grad"),
    ],
)  # fmt: skip
def test_planted_differentiation_is_seen(source, name):
    assert name in {found for _, found in differentiation(ast.parse(source))}


@pytest.mark.parametrize(
    "source",
    [
        "import jax\ndef apply(x):\n    return jax.checkpoint(f)(x)",
        "import jax\n@loss(axes=1)\ndef own(p, t):\n    return jax.checkpoint(f)(p)",
        "import jax\njax.lax.stop_gradient(x)",
        "for grad in grads:\n    total += grad.sum()",
        "dprediction = loss.gradient(prediction, target)",
        "import jax\nlayer.grad\nlayer.checkpoint(getattr(layer, 'grad'))",
    ],
)
def test_other_names_are_left_alone(source):
    assert list(differentiation(ast.parse(source))) == []


def test_recompute_checkpoints_its_apply_and_not_its_backward():
    layer = recompute(serial(dense(3), tanh()))
    x = jnp.ones((2, 3))
    params, state = layer.init(jax.random.key(0), x)
    y, _, residuals = layer.forward(params, state, x)
    marks = re.compile(r"\b(checkpoint|remat2?)\b")
    assert marks.search(str(jax.make_jaxpr(layer.apply)(params, state, x)))
    assert not marks.search(str(jax.make_jaxpr(layer.backward)(params, residuals, y)))


# __all__


def exported(tree):
    for node in tree.body:
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["__all__"]:
            return ast.literal_eval(node.value)
    return None


def defined(tree):
    """The public functions and classes that a file makes itself."""
    names = [node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)]
    return {name for name in names if not name.startswith("_")}


def isort_key(name):
    """Ruff's order (RUF022): CONSTANTS, Classes, the rest; numbers in names by value."""
    kind = 0 if len(name) > 1 and name.isupper() else 1 if name[0].isupper() else 2
    return kind, [(0, int(part), "") if part.isdigit() else (1, 0, part) for part in re.split(r"(\d+)", name) if part]


@pytest.mark.parametrize("module", SOURCES)
def test_all_is_there_sorted_and_true(module):
    names = exported(SOURCES[module])
    assert names is not None, "every module has an __all__"
    assert names == sorted(set(names), key=isort_key)
    loaded = importlib.import_module(module)
    assert [name for name in names if not hasattr(loaded, name)] == []
    assert sorted(defined(SOURCES[module]) - set(names)) == [], "public names that __all__ leaves out"


# Checks and messages are a small part of the code


def test_checks_and_messages_are_at_most_an_eighth_of_the_code():
    """With the conditions that lead to a `raise`; `python tests/refusals.py` says where they are."""
    refusing, total = map(sum, zip(*share().values(), strict=True))
    assert refusing <= total / 8


@pytest.mark.parametrize(
    "source, lines",
    [
        ("if x:\n    raise ValueError(\n        'no'\n    )", {1, 2, 3, 4}),
        ("try:\n    f()\nexcept OSError as error:\n    raise E from error", {3, 4}),
        ("def _check_rows(x):\n    return x", {1, 2}),
        ("def checked(x):\n    return x", {1, 2}),
        ("def check_gradients(x):\n    return x", set()),
        ("def checkpoint(x):\n    return x", set()),
        ("x = 1\ncheck_shape('x', x, '(a, b)')\ncheck_count('x', x)", {2}),
        ("def f(x):\n    fix = 'take more'\n    name = 'a b'\n    raise E(fix)", {2, 4}),
        ("def f(x):\n    return f'expected {x}'", {2}),
        ('def f(x):\n    """What is expected."""\n    return x  # as expected', set()),
    ],
)
def test_what_refuses(source, lines):
    assert refusing_lines(source) == lines


# The tests themselves


def raises_without_match(tree):
    """Lines where `pytest.raises` or `pytest.warns` would accept any message."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("pytest.raises", "pytest.warns"):
            if "match" not in {keyword.arg for keyword in node.keywords}:
                yield node.lineno
        elif isinstance(node, ast.ImportFrom) and node.module == "pytest":
            yield node.lineno  # one spelling, so that this scan sees it


@pytest.mark.parametrize("path", sorted(TESTS.rglob("*.py")), ids=lambda path: path.name)
def test_every_expected_error_has_its_message_checked(path):
    assert list(raises_without_match(ast.parse(path.read_text()))) == []


def test_a_raises_without_match_is_seen():
    source = "import pytest\nwith pytest.raises(ValueError):\n    f()\nfrom pytest import raises"
    assert sorted(raises_without_match(ast.parse(source))) == [2, 4]


# What is made knows its call: nothing is hung on functions, and nothing reads the text of a call


TEXT_OF_A_CALL = re.compile(
    r"""\.(partition|split|rpartition|startswith|removesuffix|index|find)\(\s*["'][^"']*\(["']"""
)


def attributes_of_functions(tree):
    """Lines where an attribute of a function of the file is assigned, or its `vars` read."""
    functions = {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
    for node in ast.walk(tree):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        for target in targets:
            if isinstance(target, ast.Attribute) and _root(target) in functions:
                yield node.lineno
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ("vars", "setattr", "functools.update_wrapper"):
            yield node.lineno


#: The module of `Made`; a loss, which is not a function, takes the docstring of its own.
KEEPERS = {"funcnet.made", "funcnet.losses.loss"}


@pytest.mark.parametrize("module", [module for module in SOURCES if module not in KEEPERS])
def test_nothing_is_hung_on_functions_and_no_call_is_read_as_text(module):
    assert list(attributes_of_functions(SOURCES[module])) == []
    assert TEXT_OF_A_CALL.search(next(path for path in FILES if module_of(path) == module).read_text()) is None


@pytest.mark.parametrize(
    "source",
    [
        "def f(): ...\nf.gradient = 3",
        "def f():\n    def g(): ...\n    g.__name__ = g.__qualname__ = 'f()'",
        "vars(f).update(takes=1)",
        "setattr(f, 'gradient', g)",
    ],
)
def test_a_planted_attribute_is_seen(source):
    assert len(list(attributes_of_functions(ast.parse(source)))) >= 1


@pytest.mark.parametrize("source", ["name.partition('(')[0]", 'str(layer).split("(")', 'name.startswith("serial(")'])
def test_a_planted_reading_of_a_call_is_seen(source):
    assert TEXT_OF_A_CALL.search(source)


def test_layer_has_no_name():
    layer = dense(3)
    assert not {"name", "sublayers", "rebuild", "per_example"} & set(dir(layer))
    assert layer._fields == ("init", "apply", "forward", "backward", "made", "inside", "rules")
