"""funcnet's docstrings for Sphinx: plain text, with formulas in Unicode, made into reStructuredText.

A docstring is a list of blocks between empty lines. A block is prose, of which indented lines are formulas or code; a
list of lines that begin with "- "; a session of `>>>`; or "Args:", "Raises:" and the like with an indented entry for
each name. `formulas` sets them. The docstring of a room gets a table of the room's names.
"""

import importlib
import re
from typing import NamedTuple

__all__ = ["Block", "as_rst", "blocks_of", "setup"]

FIELDS = ("Args", "Returns", "Raises", "Warns", "References")
LEADS = r"(Backward\.|Gradient\.|Derivation\.|Kept:|Per example:|Params:|State:)"

#: Of indented lines: names with a full stop between them, or an arrow of types.
CODE = re.compile(r"[a-z]\.[a-z]|->")


class Block(NamedTuple):
    """What stands between two empty lines."""

    kind: str  #: "text", "list", "session", or one of `FIELDS`
    lines: list[str]


def blocks_of(docstring: str) -> list[Block]:
    """The blocks of a docstring, whose common indent is gone already."""
    blocks: list[Block] = []
    for chunk in filter(None, re.split(r"\n\s*\n", docstring.strip("\n"))):
        lines = chunk.splitlines()
        field = re.match(rf"({'|'.join(FIELDS)}):", lines[0])
        if field:
            blocks.append(Block(field[1], [lines[0][field.end() :].strip(), *lines[1:]]))
        elif lines[0].startswith(">>>"):
            blocks.append(Block("session", lines))
        else:
            blocks.append(Block("list" if lines[0].startswith("- ") else "text", lines))
    return blocks


def as_rst(blocks: list[Block], module: str) -> list[str]:
    """Lines of reStructuredText. Public names in `backticks` become links; plain ones are looked up in `module`."""
    rst: list[str] = []
    for kind, lines in blocks:
        if kind == "session":
            rst += [*lines, ""]
        elif kind == "text":
            rst += _text(lines, module)
        elif kind == "list":
            rst += [*(_line(line, module) for line in lines), ""]
        else:
            rst += _field(kind, lines, module)
    return rst


def _text(lines, module):
    """Prose in paragraphs, a new one at a lead such as "Kept:"; indented lines verbatim."""
    rst, prose, formula = [], [], []

    def flush():
        if prose:
            for part in re.split(rf"(?:^| )(?={LEADS}(?:$| ))", " ".join(prose))[::2]:
                if part:
                    rst.extend([re.sub(rf"^{LEADS}", r"**\1**", _inline(part, module)), ""])
        if formula:
            code = any(map(CODE.search, formula))
            start = [".. code-block:: python"] if code else [".. code-block:: text", "   :class: formula"]
            rst.extend([*start, "", *("   " + line for line in formula), ""])
        prose.clear()
        formula.clear()

    for line in lines:
        mine, other = (formula, prose) if line.startswith("    ") else (prose, formula)
        if other:
            flush()
        mine.append(line[4:] if mine is formula else line.strip())
    flush()
    return rst


def _line(line, module):
    """A line of a list, with its mark and indent."""
    mark = re.match(r"(- |\s*)", line)[0]
    return mark + _inline(line[len(mark) :], module)


def _field(kind, lines, module):
    """`:Args:` with a paragraph and a list of `name: text`."""
    lead, entries = [lines[0]] if lines[0] else [], []
    for line in lines[1:]:
        if not line.startswith("    "):
            lead.append(line.strip())
        elif re.match(r"    \S", line):
            entries.append([line.strip()])
        else:
            entries[-1].append(line.strip())
    rst = [f":{'Arguments' if kind == 'Args' else kind}:"]
    if lead:
        rst += ["   " + _inline(" ".join(lead), module), ""]
    return [*rst, *("   - " + _entry(kind, " ".join(entry), module) for entry in entries), ""]


def _entry(kind, entry, module):
    names, _, text = entry.partition(": ")
    if not text:
        return _inline(entry, module)
    if kind in ("Raises", "Warns"):
        return ", ".join(_code(name, module) for name in names.split(", ")) + ": " + _inline(text, module)
    if re.fullmatch(r"[\w*]+(, [\w*]+)*", names):
        return ", ".join(f"``{name}``" for name in names.split(", ")) + f": {_inline(text, module)}"
    return f"**{_escaped(names)}**: {_inline(text, module)}"


def _inline(text, module):
    """Code in `backticks`, **bold** and *emphasised* text, and plain text, in which nothing is markup."""
    parts = re.split(r"(`[^`]+`|\*\*[^*]+\*\*|\*\w+\*)", text)
    for i in range(0, len(parts), 2):
        parts[i] = _escaped(parts[i])
        # Markup ends, and begins, at a space or punctuation; an escaped space is one that is not printed.
        if i > 0 and re.match(r"[^\s'\")\]}>/:.,;!?-]", parts[i]):
            parts[i] = r"\ " + parts[i]
        if i + 1 < len(parts) and re.search(r"[^\s'\"(\[{</:-]$", parts[i]):
            parts[i] += r"\ "
    parts[1::2] = [_code(part[1:-1], module) if part.startswith("`") else part for part in parts[1::2]]
    return "".join(parts).strip()


def _escaped(text):
    return re.sub(r"([\\*`_|])", r"\\\1", text)


def _code(name, module):
    """Literal text, or a link."""
    if name.startswith("funcnet.") and name.removeprefix("funcnet.") in _public("funcnet"):
        return f":py:mod:`{name}`"
    owner, _, last = f"funcnet.{name}".rpartition(".")
    for place in (module, "funcnet.types", "funcnet.errors") if owner == "funcnet" else (owner,):
        if last in _public(place):
            return f":py:obj:`{name} <{place}.{last}>`"
    return f"``{name}``"


def _public(module):
    """The names in the `__all__` of a public module; none of another."""
    if not re.fullmatch(r"funcnet(\.[a-z]+)?", module):
        return ()
    if module != "funcnet" and module.removeprefix("funcnet.") not in _public("funcnet"):
        return ()
    return importlib.import_module(module).__all__


def _process(app, what, name, obj, options, lines):
    """Sphinx's `autodoc-process-docstring`."""
    module = ".".join(name.split(".")[:2])
    if lines[:1] and lines[0].startswith("Alias for field number"):
        lines.clear()  # what Python says of a field without a comment
    blocks = blocks_of("\n".join(lines))
    lines[:] = as_rst(blocks[:1], module) + (names_of(name) if what == "module" else []) + as_rst(blocks[1:], module)


def names_of(module: str) -> list[str]:
    """The directive for a table of a room's names."""
    return [".. autosummary::", "   :nosignatures:", "", *(f"   {name}" for name in _public(module)), ""]


def setup(app):
    app.connect("autodoc-process-docstring", _process)
    return {"parallel_read_safe": True}
