"""How Sphinx builds the site: `python -m sphinx -W --keep-going docs build/docs`."""

import os
import sys
from pathlib import Path

os.environ.setdefault("JAX_PLATFORMS", "cpu")
sys.path.insert(0, str(Path(__file__).parent / "_ext"))

from funcnet import losses

project = "funcnet"
author = "the authors of funcnet"
copyright = "the authors of funcnet, Apache License 2.0"
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
    "plain_docstrings",  # these four are in docs/_ext
    "formulas",
    "derivations",
    "outside_files",
]
exclude_patterns = ["_*", "images"]
myst_heading_anchors = 4

# Types of other packages have no page here, and `bytes` is the name of two fields as well as of a type.
nitpick_ignore_regex = [("py:class", ".*")]
suppress_warnings = ["ref.python"]

default_role = "code"
add_module_names = False
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
python_maximum_signature_line_length = 90

templates_path = ["_templates"]
# Losses and penalties are values, which autodoc's `:members:` leaves out.
autosummary_context = {
    "hand_derived": {
        "funcnet.losses": [name for name in losses.__all__ if isinstance(getattr(losses, name), losses.HandDerived)]
    }
}
html_theme = "furo"
html_title = "funcnet"
html_static_path = ["_static"]
html_css_files = ["funcnet.css"]
html_copy_source = False
html_theme_options = {"sidebar_hide_name": False}
