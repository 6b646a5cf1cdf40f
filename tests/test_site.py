"""The documentation's site: every page is in its tree, every derivation in the book, the translation in step.

These tests need no Sphinx; `python -m sphinx -W` builds the site and checks each link in it.
"""

import hashlib
import importlib
import importlib.util
import inspect
import json
import re
import sys
from pathlib import Path

import pytest

import funcnet as fn
from funcnet.catalogue import CATALOGUE

ROOT = Path(__file__).parent.parent
DOCS = ROOT / "docs"
FENCE = re.compile(r"^```\{(\w+)\} ?([^\n]*)\n(.*?)^```$", re.M | re.S)


def fences(path, directive):
    """`(argument, lines)` of each block of this name in a page; options and empty lines are left out."""
    for name, argument, body in FENCE.findall(path.read_text("utf-8")):
        if name == directive:
            yield argument, [line.strip() for line in body.splitlines() if line.strip() and not line.startswith(":")]


def load(name):
    """A module of docs/_ext."""
    sys.path.insert(0, str(DOCS / "_ext"))
    try:
        return importlib.import_module(name)
    finally:
        sys.path.remove(str(DOCS / "_ext"))


# Pages


def test_every_page_is_in_the_tree_once():
    pages = [path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md")]
    listed = [page for _, lines in fences(DOCS / "index.md", "toctree") for page in lines]
    assert sorted(listed) == sorted(set(pages) - {"index"}), "every page stands in one toctree of docs/index.md"


def test_every_module_has_a_page_of_reference():
    listed = re.findall(r"^   funcnet\.(\w+)$", (DOCS / "api.md").read_text("utf-8"), re.M)
    assert sorted(listed) == sorted(name for name in fn.__all__ if inspect.ismodule(getattr(fn, name)))


def test_names_in_the_tables_for_movers_exist():
    text = (DOCS / "guides/migrating.md").read_text("utf-8")
    rows = re.findall(r"^\| `((?:layers|losses|optimizers|schedules|training|checkpoints)\.[^|]*)`", text, re.M)
    names = {name for row in rows for name in re.findall(r"([a-z]+)\.([a-z]\w+)", row)}
    assert len(names) > 25
    assert [name for name in sorted(names) if not hasattr(getattr(fn, name[0]), name[1])] == []


def test_a_notebook_becomes_a_page(tmp_path):
    output = {"data": {"text/html": ["<table>"], "text/plain": ["no"]}}
    picture = {"data": {"image/png": "YWJj\n", "text/plain": ["<Figure>"]}}
    cells = [
        {"cell_type": "markdown", "source": ["# Title\n", "\n", "[a](../docs/guides/own_data.md) [b](digits.ipynb)"]},
        {"cell_type": "code", "source": ["x < 1"], "outputs": [{"text": ["1 < 2\n"]}, output, picture]},
    ]
    path = tmp_path / "a.ipynb"
    path.write_text(json.dumps({"cells": cells}), "utf-8")
    notebooks = load("notebooks")
    assert notebooks.title_of(path) == "Title"
    assert notebooks.as_html(path, lambda code: f"[{code}]").split("\n") == [
        "<h1>Title</h1>",
        '<p><a href="../../guides/own_data.html">a</a> <a href="digits.ipynb.html">b</a></p>',
        "",
        "[x < 1]",
        '<div class="output"><pre>1 &lt; 2',
        "</pre></div>",
        '<div class="output"><table></div>',
        '<div class="output"><img alt="&lt;Figure&gt;" src="data:image/png;base64,YWJj"></div>',
    ]


# The book of derivations

# Make layers and losses of functions that are given, or only read them.
MAKERS = {
    "container", "hand_derived", "layer", "loss", "map_layers", "merged", "parameterless", "partial", "plain_layers",
    "prepare", "share", "within",
}  # fmt: skip
BOOK = [
    (argument, name)
    for path in sorted(DOCS.glob("derivations/*.md"))
    for argument, lines in fences(path, "derivations")
    for name in " ".join(lines).split()
]


def test_the_book_has_every_layer_and_loss_once():
    public = [
        (module, name)
        for module in ("layers", "losses")
        for name in importlib.import_module(f"funcnet.{module}").__all__
        if name.islower() and name not in MAKERS and not name.startswith("check_")
    ]
    assert sorted(BOOK) == sorted(public)


@pytest.mark.parametrize("module, name", BOOK)
def test_each_has_a_derivation_and_a_check(module, name):
    docstring = inspect.getdoc(getattr(importlib.import_module(f"funcnet.{module}"), name))
    lead = {"layers": "Backward.", "losses": "Gradient."}[module]
    (derivation,) = re.findall(rf"^{lead} (.*?)(?:\n\n|\Z)", docstring, re.M | re.S)
    assert re.search("∂|d[a-zWx]+ = |dx is |backward", derivation), derivation
    assert load("derivations").variants(name)


def test_variants_are_forms_of_one_layer():
    variants = load("derivations").variants
    transposed = [name for name in CATALOGUE if name.startswith("conv_transpose")]
    assert variants("conv_transpose") == transposed
    assert set(variants("conv")) == {name for name in CATALOGUE if name.startswith("conv")} - set(transposed)
    assert "softmax_regression" not in variants("softmax")


def test_the_code_beside_a_derivation():
    book = load("derivations")
    code = book.code_of(fn.layers.dense)
    assert code.startswith("@constructor\ndef dense(")
    assert "def backward(params, x, dy):" in code
    assert "Rumelhart" not in code
    helpers = {helper.__name__ for helper in book.helpers_of(fn.layers.gelu)}
    assert helpers >= {"_gelu", "_gelu_derivative", "_normal_cdf"}
    assert not helpers & {"constructor", "elementwise"}
    loss = book.code_of(fn.losses.huber) + book.code_of(fn.losses.huber.gradient)
    assert loss.count("return over.") == 2


def test_docstrings_become_markup():
    plain = load("plain_docstrings")
    docstring = """Sum of |x|, *not* x_p, for (batch, *size), with `max_pool`s.

    Args:
        size, step: numbers,
            of two lines.
        size of x: a number.

    Warns:
        OutputWarning: NaN.

    Backward. Then
        dx_i = g
    with `axis`. Kept: x. Run
        fn.layers.relu()
    """
    assert plain.as_rst(plain.blocks_of(inspect.cleandoc(docstring)), "funcnet.layers") == [
        r"Sum of \|x\|, *not* x\_p, for (batch, \*size), with :py:obj:`max_pool <funcnet.layers.max_pool>`\ s.",
        "",
        ":Arguments:",
        "   - ``size``, ``step``: numbers, of two lines.",
        "   - **size of x**: a number.",
        "",
        ":Warns:",
        "   - :py:obj:`OutputWarning <funcnet.errors.OutputWarning>`: NaN.",
        "",
        "**Backward.** Then",
        "",
        ".. code-block:: text",
        "   :class: formula",
        "",
        "   dx_i = g",
        "",
        "with ``axis``.",
        "",
        "**Kept:** x. Run",
        "",
        ".. code-block:: python",
        "",
        "   fn.layers.relu()",
        "",
    ]


def test_a_room_begins_with_a_table_of_its_names():
    lines = load("plain_docstrings").names_of("funcnet.schedules")
    assert lines[:3] == [".. autosummary::", "   :nosignatures:", ""]
    assert [line.strip() for line in lines[3:-1]] == list(fn.schedules.__all__)


# Formulas


def shown(parts):
    """`dW_jk` -> dW‹jk›, and `xᵀ` -> x«T»"""
    brackets = {"lower": "‹›", "upper": "«»"}
    return "".join(part if isinstance(part, str) else shown(part.inside).join(brackets[part.kind]) for part in parts)


@pytest.mark.parametrize(
    "text, expected",
    [
        ("dW_jk = Σ_n x_nj g_nk, dx = g Wᵀ", "dW‹jk› = Σ‹n› x‹nj› g‹nk›, dx = g W«T»"),
        ("x_{i+1}, Σ_n,o, Σ_batch, x_⌊i/f⌋", "x‹i+1›, Σ‹n,o›, Σ‹batch›, x‹⌊i/f⌋›"),
        ("W₂ᵀ δ₂, x_j², 10⁻³, eˣ, s_yᵢ", "W‹2›«T» δ‹2›, x‹j›«2», 10«−3», e«x», s‹y›‹i›"),
        ("e^(−x_i), u_c^(−β), γ^⌊n/k⌋, γ^k", "e«−x‹i›», u‹c›«−β», γ«⌊n/k⌋», γ«k»"),
        ("r^(i / (n − 1)), Σ_{j≠yᵢ} (v + ε)^(−½)", "r«i / (n − 1)», Σ‹j≠y‹i›› (v + ε)«−½»"),
        ("fan_in, max_i x_i, F1_k", "fan‹in›, max‹i› x‹i›, F1‹k›"),
        ("batch_size / decay_rate^(step / decay_steps)", "batch_size / decay_rate«step / decay_steps»"),
    ],
)
def test_formulas_are_set_with_marks(text, expected):
    notation = load("notation")
    assert shown(notation.marked(text)) == expected
    assert notation.has_marks(text)


@pytest.mark.parametrize("text", ["x_{i", "a _b", "e^(x", "e^", "x_", "_private", "x_{}", "e^((((x))))"])
def test_a_formula_that_cannot_be_read_is_refused(text):
    notation = load("notation")
    assert notation.has_marks(text)
    with pytest.raises(
        ValueError, match=re.escape(f"expected an index such as x_i, x_{{i+1}}, e^x or e^(−x), got {text!r}")
    ):
        notation.marked(text)


@pytest.mark.parametrize(
    "formula, expected",
    [
        ("dx = g", [["dx = g"]]),
        ("a = 1,   b = 2\nc = 3,   d = 4  for e", [["a = 1,", "b = 2"], ["c = 3,", "d = 4", "for e"]]),
        ("∂L/∂z = a + b\n      = c   as d", [["∂L/∂z", "= a + b"], ["", "= c", "as d"]]),
        ("a = b\n\nc = d", [["a = b"], [], ["c = d"]]),
    ],
)
def test_a_formula_has_rows_and_columns(formula, expected):
    assert load("notation").cells(formula) == expected


def test_every_docstring_can_be_read():
    plain, notation = load("plain_docstrings"), load("notation")
    marks = 0
    for room in filter(inspect.ismodule, [getattr(fn, name) for name in fn.__all__]):
        for value in [getattr(room, name) for name in room.__all__]:
            mine = getattr(value, "__module__", "").startswith("funcnet.")
            for block in plain.blocks_of((mine and inspect.getdoc(value)) or ""):
                text = re.sub(r"`[^`]*`", "", "\n".join(block.lines))
                if block.kind != "session" and not plain.CODE.search(text):
                    marks += len(notation.marked(text)) > 1
    assert marks > 100


# The translation

TRANSLATED = [DOCS / "start.md", DOCS / "guides" / "own_data.md"]


def chinese_of(path):
    return path.with_suffix(".zh.md")


def shape_of(path, page):
    """What a translation leaves as it is: levels of headings, code blocks, where links and pictures lead."""
    text = path.read_text("utf-8")
    blocks = re.findall(r"^```.*?^```$", text, re.M | re.S)
    prose = re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S)
    links = [link.replace(".zh", "") for link in re.findall(r"\]\(([^)]+)\)", prose) if not link.startswith(page.stem)]
    return {"headings": re.findall(r"^#+", prose, re.M), "blocks": blocks, "links": links}


@pytest.mark.parametrize("page", TRANSLATED, ids=lambda page: page.stem)
def test_the_translation_has_the_shape_of_the_original(page):
    assert shape_of(chinese_of(page), page) == shape_of(page, page)
    assert len(shape_of(page, page)["blocks"]) >= 4


@pytest.mark.parametrize("page", TRANSLATED, ids=lambda page: page.stem)
def test_the_translation_is_of_this_text(page):
    digest = hashlib.sha256(page.read_bytes()).hexdigest()[:16]
    noted = re.findall(rf"<!-- {page.name}: (\w+) -->", chinese_of(page).read_text("utf-8"))
    assert noted == [digest], (
        f"{page.name} has changed since {chinese_of(page).name} was written. Bring the Chinese text in step with it, "
        f"then write <!-- {page.name}: {digest} --> at its end."
    )


def test_the_chinese_contents_have_every_heading_of_the_book():
    def headings(text, level):
        return re.findall(rf"^{level} (.*)", re.sub(r"^```.*?^```$", "", text, flags=re.M | re.S), re.M)

    chapters = [line for _, lines in fences(DOCS / "index.md", "toctree") for line in lines if line.startswith("deriv")]
    expected = headings((DOCS / "derivations.md").read_text("utf-8"), "##")
    for chapter in chapters[2:]:
        page = DOCS / f"{chapter}.md"
        expected += headings(page.read_text("utf-8"), "#")
        expected += [name for _, lines in fences(page, "derivations") for name in " ".join(lines).split()]
    chinese = (DOCS / "derivations.zh.md").read_text("utf-8")
    assert re.findall(r"^(?:- )?\[([^]]+)\]\([^)]+\)(?:：.+)?$", chinese, re.M) == ["English", *expected]
