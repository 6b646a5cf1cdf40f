"""What counts as a line of code."""

import ast
import inspect
import io
import textwrap
import tokenize

__all__ = ["code_lines", "code_lines_of", "numbers_of_code_lines"]

_BESIDE = {
    tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER,
}  # fmt: skip


def code_lines(source):
    """How many lines there are without docstrings, comments, imports and blank lines."""
    return len(numbers_of_code_lines(source))


def numbers_of_code_lines(source):
    """Their numbers."""
    lines = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in _BESIDE:
            lines |= {*range(token.start[0], token.end[0] + 1)}
    for node in ast.walk(ast.parse(source)):
        text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)
        if text or isinstance(node, ast.Import | ast.ImportFrom):
            lines -= {*range(node.lineno, node.end_lineno + 1)}
    return lines


def code_lines_of(*things):
    """Those of functions and classes, decorators included."""
    return sum(code_lines(textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))) for thing in things)
