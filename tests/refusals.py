"""How much of the code refuses: the lines of checks and of their messages, over all lines of code.

These are the lines of

- every `raise`, with the `if` or `except` whose body begins with it;
- every function whose name, without leading underscores, is `check` or `checked` or begins with it and `_`;
- every call of such a function that hands it prose, a string with a space in it: what was expected, or the fix;
- other prose of a message: it holds the word "expected", or is bound to a name that a `raise` or a check reads.

`check_gradients` is not counted, as it checks no argument.

`python tests/refusals.py [folder]` prints the share with and without the lines of `if` and `except`, and the files with
the most lines.
"""

import ast
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from source import numbers_of_code_lines

__all__ = ["refusing_lines", "share"]

PACKAGE = Path(__file__).parents[1] / "funcnet"

CHECK = re.compile(r"_*check(ed)?(_(?!gradients$)|$)")


def refusing_lines(source, *, conditions=True):
    """The numbers of the lines that check an argument or say what is wrong with it."""
    tree = ast.parse(source)
    lines = set()
    for node in ast.walk(tree):
        if _refuses(node):
            lines |= _span(node)
        if isinstance(node, ast.If | ast.ExceptHandler) and isinstance(node.body[0], ast.Raise) and conditions:
            lines |= {*range(node.lineno, node.body[0].lineno)}
        if isinstance(node, ast.FunctionDef):
            lines |= _bound_prose(node)
    return lines & numbers_of_code_lines(source)


def share(package=PACKAGE, **options):
    """`{path: (refusing, all)}` of each file."""
    sources = {path: path.read_text("utf-8") for path in sorted(package.rglob("*.py"))}
    return {
        path: (len(refusing_lines(source, **options)), len(numbers_of_code_lines(source)))
        for path, source in sources.items()
    }


def _refuses(node):
    """Whether a part of the program does nothing but check or say what is wrong."""
    if isinstance(node, ast.FunctionDef):
        return _is_check(node.name)
    if isinstance(node, ast.Call):
        return _is_check(_called(node)) and _prose(node)
    return isinstance(node, ast.Raise) or (_is_prose(node) and re.search(r"\bexpected\b", _text(node)))


def _bound_prose(function):
    """Lines of prose that is assigned to a name which a `raise` or a check of the function reads."""
    read = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Raise) or (isinstance(node, ast.Call) and _is_check(_called(node))):
            read |= {name.id for name in ast.walk(node) if isinstance(name, ast.Name)}
    lines = set()
    for node in ast.walk(function):
        if isinstance(node, ast.Assign):
            bound = {name.id for target in node.targets for name in ast.walk(target) if isinstance(name, ast.Name)}
            lines |= _prose(node.value) if bound & read else set()
    return lines


def _is_check(name):
    return CHECK.match(name) is not None


def _called(call):
    return getattr(call.func, "attr", getattr(call.func, "id", ""))


def _prose(node):
    return {line for part in ast.walk(node) if _is_prose(part) for line in _span(part)}


def _is_prose(node):
    return isinstance(node, ast.Constant | ast.JoinedStr) and " " in _text(node).strip()


def _text(node):
    if isinstance(node, ast.JoinedStr):
        return "".join(part.value if isinstance(part, ast.Constant) else "…" for part in node.values)
    return node.value if isinstance(node.value, str) else ""


def _span(node):
    return {*range(node.lineno, node.end_lineno + 1)}


if __name__ == "__main__":
    package = Path(*sys.argv[1:]) if sys.argv[1:] else PACKAGE
    for conditions in (False, True):
        found = share(package, conditions=conditions)
        refusing, total = map(sum, zip(*found.values(), strict=True))
        besides = ", with the conditions that lead to it" if conditions else ""
        print(f"{refusing} of {total} lines refuse{besides}: {refusing / total:.1%}")
    for path, (some, of) in sorted(found.items(), key=lambda item: -item[1][0]):
        print(f"{some:5} of {of:4}  {path.relative_to(package)}")
