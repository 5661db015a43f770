"""Configuration of the documentation site; neither building nor reading it needs a network."""

import re
from typing import Any

from docutils import nodes
from docutils.utils.math import MathError
from docutils.utils.math.latex2mathml import tex2mathml
from sphinx.application import Sphinx
from sphinx.util import logging

import geonorm

project = "geonorm"
author = "the geonorm authors"
copyright = "the geonorm authors, MIT licence"
version = release = geonorm.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["figures", "static"]
html_theme = "furo"
html_title = f"geonorm {release}"
html_math_renderer = "mathml"
html_copy_source = False
html_static_path = ["static"]
html_css_files = ["site.css"]
pygments_style = "friendly"

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3  # so that a page may point at a heading of another

autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
python_use_unqualified_type_names = True
napoleon_google_docstring = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_custom_sections = ["Shape"]

# Docstrings put names in single backticks: ours become links, the rest stays code.
default_role = "py:obj"
# A name of ours that leads nowhere is an error; those of Python and torch are not ours to resolve.
nitpicky = True
nitpick_ignore_regex = [(r"py:.*", r"(?!geonorm[\w.]*$).*")]

FORMULA = re.compile(r"^ {4,}\S")


def keep_formulas(
    app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]
) -> None:
    """Show formulas as they stand, which docstrings have as indented lines below the summary.

    To reStructuredText these are quotations, and |z| a name to be substituted.
    """
    written: list[str] = []
    inside = False
    for number, line in enumerate(lines):
        above = lines[number - 1] if number else ""
        if FORMULA.match(line) and not above.strip() and not in_section(written):
            written += [".. code-block:: text", ""]
            inside = True
        inside = inside and bool(line.strip())
        written.append(line)
    lines[:] = written


def in_section(lines: list[str]) -> bool:
    """Return whether what follows these lines belongs to a list item or a section such as Args."""
    last = next((line for line in reversed(lines) if line.strip()), "")
    return last.startswith(("    ", "-", "*")) or last.endswith(":")


def mathml(node: nodes.Element, display: bool) -> str:
    """Return a formula in MathML, which browsers show by themselves."""
    try:
        return tex2mathml(node.astext(), as_block=display)
    except (MathError, SyntaxError) as error:
        logging.getLogger(__name__).warning("formula: %s: %s", error, node.astext(), location=node)
        return ""


def visit_math(self: Any, node: nodes.math) -> None:
    """Write a formula within a line."""
    self.body.append(mathml(node, display=False))
    raise nodes.SkipNode


def visit_displaymath(self: Any, node: nodes.math_block) -> None:
    """Write a formula on lines of its own."""
    self.body.append(f'<div class="math">{mathml(node, display=True)}</div>')
    raise nodes.SkipNode


def setup(app: Sphinx) -> dict[str, bool]:
    """Tell Sphinx of the formulas in docstrings and on pages."""
    # Before napoleon, which turns the sections into indented lines of its own.
    app.connect("autodoc-process-docstring", keep_formulas, priority=100)
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    return {"parallel_read_safe": True, "parallel_write_safe": True}
