"""Sets the formulas of docstrings and pages: marks lower and higher, and an indented block as rows with columns.

A formula that `notation` cannot read is a warning with its place, and so fails the build.
"""

from docutils import nodes
from notation import Mark, cells, has_marks, marked
from sphinx import addnodes
from sphinx.ext.autosummary import autosummary_table
from sphinx.transforms import SphinxTransform
from sphinx.util import logging

ELEMENTS = {"lower": nodes.subscript, "upper": nodes.superscript}
#: Code, comments (docutils counts them as such), and titles, which are names of functions.
LEFT_ALONE = (nodes.literal, nodes.FixedTextElement, nodes.raw, nodes.title, addnodes.desc_signature)

logger = logging.getLogger(__name__)


class Formulas(SphinxTransform):
    """Reads every page."""

    default_priority = 880  # all that docutils and Sphinx make of text is there

    def apply(self, **_):
        for block in list(self.document.findall(is_formula)):
            replace(block, block, lambda text: [formula(text)])
        for text in list(self.document.findall(is_prose)):
            replace(text, text.parent, lambda text: elements(marked(text)))


def replace(node, place, make):
    try:
        node.parent.replace(node, make(node.astext()))
    except ValueError as error:
        logger.warning(str(error), location=place)


def is_formula(node) -> bool:
    """A formula of a docstring, or an indented block of a page, which has no language."""
    return isinstance(node, nodes.literal_block) and ("formula" in node["classes"] or node.get("language") == "none")


def is_prose(node) -> bool:
    """Text with marks, outside code."""
    if not isinstance(node, nodes.Text) or not has_marks(node.astext()):
        return False
    while node.parent is not None:
        node = node.parent
        if isinstance(node, autosummary_table):  # pretends to be a comment
            return True
        if isinstance(node, LEFT_ALONE) or "formula" in node["classes"]:
            return False
    return True


def elements(parts: list[str | Mark]) -> list[nodes.Node]:
    """What `marked` gives, as docutils has it."""
    return [
        ELEMENTS[part.kind]("", "", *elements(part.inside)) if isinstance(part, Mark) else nodes.Text(part)
        for part in parts
    ]


def formula(text: str) -> nodes.container:
    """A row for each line. A space stands between columns, for those who copy or search."""
    rows = []
    for row in cells(text):
        columns = [nodes.inline("", "", *elements(marked(cell)), classes=["cell"]) for cell in row]
        rows.append(
            nodes.container("", *(part for cell in columns for part in (cell, nodes.Text(" "))), classes=["row"])
        )
    return nodes.container("", *rows, classes=["formula"])


def setup(app):
    app.add_transform(Formulas)
    return {"parallel_read_safe": True}
