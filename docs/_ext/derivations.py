"""The book of derivations: a block `{derivations}` with names becomes a section for each of them.

A section has the derivation and the code from the source, and a picture of the check: the hand-derived gradient against
autodiff and against finite differences, for every form of the layer or loss in `funcnet.catalogue`.
"""

import ast
import hashlib
import importlib
import inspect
import re
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from plain_docstrings import as_rst, blocks_of

__all__ = ["FENCE", "check", "code_of", "helpers_of", "section", "setup", "variants"]

FIGURES = Path(__file__).parent.parent / "_figures"
CURVES = {
    "binary_step", "elementwise", "elu", "gelu", "leaky_relu", "log_sigmoid", "relu", "sigmoid", "silu", "softplus",
    "tanh",
}  # fmt: skip
#: The files that check arguments, and that make layers and losses of what their mathematics is.
MAKERS = {"checks", "container", "layer", "loss", "reduction"}
FENCE = re.compile(r"^```\{derivations\} (layers|losses)\n(.*?)^```$", re.M | re.S)
MARKDOWN = """\
({name}-derivation)=
## {name}

```{{eval-rst}}
{text}
```

{{py:func}}`{full}` in `{path}`:

```python
{code}
```

{folded}
{errors}

![the gradient of {name} by hand beside autodiff and finite differences](/_figures/{name}.svg)
"""
FOLDED = """\
<details><summary>The functions that it uses</summary>

```python
{code}
```

</details>
"""


def expand(app, docname, source):
    """Sphinx's `source-read`: the blocks in a page's text become sections."""
    source[0] = FENCE.sub(lambda block: "\n".join(_sections(app, block[1], block[2].split())), source[0])


def _sections(app, module: str, names: list[str]) -> Iterator[str]:
    for name in names:
        function = getattr(importlib.import_module(f"funcnet.{module}"), name)
        app.env.note_dependency(inspect.getsourcefile(inspect.unwrap(function)))
        yield section(function, module, check(name))


def section(function: Callable[..., Any], module: str, errors: str = "") -> str:
    """The Markdown of one section, with a line on the errors of its gradient."""
    name, full = function.__name__, f"funcnet.{module}.{function.__name__}"
    blocks = [one for one in blocks_of(inspect.getdoc(function) or "") if one.kind in ("text", "list", "References")]
    helpers = helpers_of(function)
    shown = [*_definitions(function), *filter(_has_backward, helpers)]
    folded = "\n\n\n".join(code_of(helper) for helper in helpers if helper not in shown)
    return MARKDOWN.format(
        name=name,
        full=full,
        path="/".join(function.__module__.split(".")) + ".py",
        text="\n".join(as_rst(blocks, f"funcnet.{module}")),
        code="\n\n\n".join(map(code_of, shown)),
        folded=FOLDED.format(code=folded) if folded else "",
        errors=errors,
    )


# Code


def _definitions(function):
    """The functions as they are written: a layer's constructor; a loss or penalty and its gradient."""
    parts = [function, function.gradient] if hasattr(function, "gradient") else [function]
    return list(map(inspect.unwrap, parts))


def code_of(function: Callable[..., Any]) -> str:
    """The source of a function without its docstring."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(function)))
    (tree,) = ast.parse(source).body
    lines = source.splitlines()
    if ast.get_docstring(tree) is not None and isinstance(tree, ast.FunctionDef):
        docstring = tree.body[0]
        end = docstring.end_lineno
        del lines[docstring.lineno - 1 : end + (not lines[end].strip())]
    return "\n".join(lines)


def helpers_of(function: Callable[..., Any]) -> list[Callable[..., Any]]:
    """The private functions of the mathematics that a constructor calls, and that these call, in the order of use."""
    found: dict[Callable[..., Any], None] = {}
    waiting = _definitions(function)
    while waiting:
        for helper in _called(waiting.pop(0)):
            if helper not in found:
                found[helper] = None
                waiting.append(helper)
    return list(found)


def _called(function):
    scope = function.__globals__
    for node in ast.walk(ast.parse(textwrap.dedent(inspect.getsource(function)))):
        if isinstance(node, ast.Name):
            value = scope.get(node.id)
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            value = getattr(scope.get(node.value.id), node.attr, None)
        else:
            continue
        if inspect.isfunction(value) and _is_mathematics(value):
            yield inspect.unwrap(value)


def _is_mathematics(function):
    """Of the layers or losses, but neither public nor of the files that check arguments and make layers and losses."""
    parts = function.__module__.split(".")
    if parts[1:2] not in (["layers"], ["losses"]) or parts[-1] in MAKERS:
        return False
    return function.__name__ not in importlib.import_module(f"funcnet.{parts[1]}").__all__


def _has_backward(function):
    tree = ast.parse(textwrap.dedent(inspect.getsource(function)))
    return any(isinstance(node, ast.FunctionDef) and node.name == "backward" for node in ast.walk(tree))


# The check


def variants(name: str) -> list[str]:
    """The entries of the catalogue that are forms of it: of `conv` also `conv_strided`, but no `conv_transpose`."""
    from funcnet import layers, losses, models
    from funcnet.catalogue import CATALOGUE

    public = [*layers.__all__, *losses.__all__, *models.__all__]

    def owner(entry):
        return max((other for other in public if f"{entry}_".startswith(f"{other}_")), key=len, default="")

    return [entry for entry in CATALOGUE if owner(entry) == name]


def check(name: str) -> str:
    """Check the gradient, draw the picture and return a line, unless that was done and nothing has changed since."""
    picture, line = FIGURES / f"{name}.svg", FIGURES / f"{name}.txt"
    now = _digest()
    if picture.exists() and line.exists():
        before, _, text = line.read_text("utf-8").partition("\n")
        if before == now:
            return text
    from funcnet import checking
    from funcnet.catalogue import CATALOGUE

    forms = variants(name)
    reports = {form: checking.check_gradients(*CATALOGUE[form][:3], engines=CATALOGUE[form].engines) for form in forms}
    for report in reports.values():
        report.raise_if_failed()
    FIGURES.mkdir(exist_ok=True)
    _draw(name, reports, picture)
    text = _summary([row for report in reports.values() for row in report.rows])
    line.write_text(f"{now}\n{text}", "utf-8")
    return text


def _summary(rows) -> str:
    distances = []
    for engine, words in {"autodiff": "autodiff", "numeric": "finite differences"}.items():
        errors = [row.error for row in rows if row.engines == ("backprop", engine)]
        if errors:
            distances.append(f"{max(errors):.1e} of {words}" if max(errors) else f"0 of {words}")
    return f"The check in float64: each leaf of the gradient is within {' and '.join(distances)}, relative to its norm."


def _draw(name, reports, path):
    import matplotlib

    from funcnet import checking, plotting
    from funcnet.catalogue import CATALOGUE

    with matplotlib.rc_context({"svg.hashsalt": name}):
        if name in CURVES:
            _draw_curve(CATALOGUE[name].target, path)
            return
        rows = []
        for form, report in reports.items():
            band = f"{form.removeprefix(name).strip('_')}/".removeprefix("/")
            for row in sorted(report.rows, key=lambda row: row.leaf.startswith("params")):
                rows.append(row._replace(leaf=band + row.leaf.removeprefix("params/")))
        plotting.gradient_errors(checking.GradientReport(tuple(rows), (), ""), path)


def _draw_curve(layer, path):
    """An elementwise layer and its derivative by hand, with difference quotients as dots."""
    import jax
    import numpy as np

    from funcnet.plotting.figures import BLUE, GREY, PALE_GREY, VERMILION, new_figure, saved

    def value(x):
        return layer.apply((), (), x)[0]

    with jax.enable_x64(True):
        x, dots, h = np.linspace(-4, 4, 801), np.linspace(-3.9, 3.9, 40), 1e-5
        y, _, residuals = layer.forward((), (), x)
        _, slope = layer.backward((), residuals, np.ones_like(x))
        quotients = (value(dots + h) - value(dots - h)) / (2 * h)
    figure = new_figure("derivations", 7.6, 2.6)
    axes = figure.subplots()
    axes.plot(x, y, color=GREY, linestyle="--", label="y")
    axes.plot(x, slope, color=BLUE, label="dy/dx by hand")
    axes.plot(dots, quotients, "o", color=VERMILION, markersize=3, label="(y(x + h) − y(x − h)) / 2h")
    axes.set_xlabel("x")
    axes.grid(color=PALE_GREY, linewidth=0.8)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside right upper", frameon=False)
    saved(figure, path)


def _digest() -> str:
    """Of all that the pictures depend on."""
    import funcnet

    package = Path(funcnet.__file__).parent
    parts = ("layers", "losses", "catalogue", "checking", "plotting")
    files = [file for part in parts for file in sorted((package / part).rglob("*.py"))] + [Path(__file__)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def setup(app):
    import jax

    jax.config.update("jax_disable_most_optimizations", True)  # compiling takes most of the checks' time
    app.connect("source-read", expand)
    return {"parallel_read_safe": False}
