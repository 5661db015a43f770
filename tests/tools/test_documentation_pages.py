"""Tutorials and the pages of the norms: their Python runs, and prints what stands below it.

GEONORM_WRITE_DOCS=1 writes what they print into them.
"""

import os
import re
from pathlib import Path

import pytest
import torch

from documentation.pages import run_page

DOCS = Path(__file__).resolve().parents[2] / "docs"
PAGES = [DOCS / "index.md", DOCS / "shift_scans.md", *sorted(DOCS.glob("norms/*.md")),
         *sorted(DOCS.glob("tutorials/*.md"))]  # fmt: skip


@pytest.fixture(autouse=True)
def outspoken():
    """Let torch say at every page what it says once in a process, as a reader would see it."""
    before = torch.is_warn_always_enabled()
    torch.set_warn_always(True)
    yield
    torch.set_warn_always(before)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_the_python_of_a_page_prints_what_stands_there(page):
    text = page.read_text(encoding="utf-8")
    assert "```python\n" in text
    found = run_page(text, str(page.relative_to(DOCS)))
    if os.environ.get("GEONORM_WRITE_DOCS"):
        page.write_text(found, encoding="utf-8")
    assert found == text


WRONG = "Two:\n\n```python\nx = 1\nprint(x + 1)\n```\n\n```text\n3\n```\n\nend\n"
RIGHT = WRONG.replace("3", "2")


def test_a_page_that_claims_what_is_not_so_is_found():
    assert run_page(RIGHT, "page") == RIGHT
    assert run_page(WRONG, "page") == RIGHT
    assert run_page("```python\nprint(2)\n```\n", "page") != "```python\nprint(2)\n```\n"
    assert run_page("```python\n2\n```\n\n```text\n2\n```\n", "page") == "```python\n2\n```\n"


def test_pieces_of_a_page_share_names_and_pages_do_not():
    text = "```python\nonly_here = 1\n```\n\n```python\nassert only_here\n```\n"
    assert run_page(text, "page") == text
    with pytest.raises(NameError, match="only_here"):
        run_page("```python\nonly_here\n```\n", "other")


def test_an_error_names_the_page_and_the_line():
    with pytest.raises(ZeroDivisionError) as caught:
        run_page("# Title\n\n```python\n\n1 / 0\n```\n", "page.md")
    last = caught.traceback[-1]
    assert (str(last.path), last.lineno + 1) == ("page.md", 5)


@pytest.mark.parametrize("name", ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"])
def test_links_outside_the_site_lead_to_files(name):
    """Check the pages that Sphinx does not read."""
    text = (DOCS.parent / name).read_text(encoding="utf-8")
    links = [link for link in re.findall(r"\]\(([^)#]+)", text) if "://" not in link]
    assert [link for link in links if not (DOCS.parent / link).exists()] == []
    named = re.findall(r"`((?:geonorm|datasets|models|tests|tools|docs)/[\w/.]+)`", text)
    history = name == "CHANGELOG.md"  # which names files that are no more
    assert history or [path for path in named if not (DOCS.parent / path).exists()] == []
    assert links or named


def test_the_readme_fits_in_120_lines():
    assert len((DOCS.parent / "README.md").read_text(encoding="utf-8").splitlines()) <= 120
