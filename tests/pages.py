"""Blocks of code on the pages of `docs`, to be run with other values than those of the page."""

import re
from pathlib import Path

__all__ = ["DOCS", "block"]

DOCS = Path(__file__).parents[1] / "docs"


def block(page, words):
    """The block of Python on a page that holds these words."""
    blocks = re.findall(r"^```python\n(.*?)^```$", (DOCS / page).read_text("utf-8"), re.M | re.S)
    (found,) = (one for one in blocks if words in one)
    return found
