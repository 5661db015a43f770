"""The documentation site: it builds without a warning, and has all that is public."""

import re
import shutil
import subprocess
import sys
import tomllib
from importlib import import_module, metadata
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import geonorm

pytest.importorskip("sphinx", reason="pip install 'geonorm[docs]'")

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
NORMS = sorted(name for name in geonorm.__all__ if name.endswith("Norm"))
FUNCTIONS = ("instance_norm", "axis_instance_norm", "group_norm", "layer_norm",
             "adaptive_instance_norm", "divisive_norm", "retinex_norm")
MODULES = ("geonorm", "geonorm.models", "geonorm.datasets")
of_the_site = pytest.mark.slow  # 20 s to build it


def build(source, target):
    """Build a site as `make docs` does; return the process."""
    command = [sys.executable, "-m", "sphinx", "--fail-on-warning", "--keep-going", "--quiet"]
    return subprocess.run(
        [*command, source, target], capture_output=True, text=True, check=False, timeout=280
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    done = build(DOCS, folder)
    assert done.returncode == 0, done.stderr
    return folder


def public():
    """Return every public name with its package, but for those that are modules."""
    names = [f"{package}.{name}" for package in MODULES for name in import_module(package).__all__]
    names.remove("geonorm.functional")
    return [*names, *(f"geonorm.functional.{name}" for name in FUNCTIONS)]


def undocumented(names, folder):
    """Return the names that no page of the reference describes."""
    pages = "".join(path.read_text(encoding="utf-8") for path in (folder / "api").glob("*.html"))
    described = set(re.findall(r'<dt class="sig[^>]*id="([\w.]+)"', pages))
    return [name for name in names if name not in described]


@of_the_site
def test_every_public_name_is_in_the_reference(site):
    assert len(public()) > 60
    assert undocumented(public(), site) == []
    assert undocumented(["geonorm.Nothing", *public()], site) == ["geonorm.Nothing"]


def test_the_public_functions_are_these():
    functional = import_module("geonorm.functional")
    ours = {name for name, value in vars(functional).items()
            if callable(value) and getattr(value, "__module__", "") == functional.__name__
            and not name.startswith("_")}  # fmt: skip
    # The others are there for the modules: they do not read their input or check axes.
    assert ours == {*FUNCTIONS, "normalize_instances", "normalize_axes", "read_positions",
                    "finish"}  # fmt: skip


@of_the_site
@pytest.mark.parametrize("name", NORMS)
def test_every_norm_has_a_page_with_a_formula_and_a_figure(site, name):
    named = re.compile(rf"`{name}`[^\n]*\]\(\.\./api/norms\.md\)")
    pages = [page for page in sorted((DOCS / "norms").glob("*.md"))
             if named.search(page.read_text(encoding="utf-8"))]  # fmt: skip
    assert len(pages) == 1
    text, stem = pages[0].read_text(encoding="utf-8"), pages[0].stem
    assert re.search(r"\n## When\n.*\n## When not\n.*\n## Cost\n.*\n## Example\n", text, re.DOTALL)
    assert re.search(r"\n\w*\b[Ff]rom [^#]*\b(?:19|20)\d\d\b", text), "cites no paper"
    built = (site / "norms" / f"{stem}.html").read_text(encoding="utf-8")
    assert f'src="../_images/{stem}.svg"' in built
    assert (site / "_images" / f"{stem}.svg").read_text().partition("<svg")[1]
    assert '<math xmlns="http://www.w3.org/1998/Math/MathML" display="block">' in built


@of_the_site
def test_every_page_is_reached_from_the_index_and_loads_nothing_from_elsewhere(site):
    index = (site / "index.html").read_text(encoding="utf-8")
    for page in [*DOCS.glob("*.md"), *DOCS.glob("*/*.md")]:
        place = page.relative_to(DOCS).with_suffix(".html").as_posix()
        assert f'href="{place}"' in index or page.stem == "index", place
        built = (site / place).read_text(encoding="utf-8")
        assert not re.findall(r'<(?:script|link|img)[^>]*(?:src|href)="(?:https?:)?//', built)


@of_the_site
def test_formulas_of_docstrings_stay_as_they_are(site):
    built = (site / "api" / "norms.html").read_text(encoding="utf-8")
    shown = re.sub(r"<[^>]*>", "", built)
    assert "z / (eps + pool(|z|ⁿ))^(1/n) · weight + bias" in shown
    classes = {getattr(geonorm, name) for name in NORMS}  # SparseInstanceNorm is another's alias
    assert len(re.findall(r'highlight-text notranslate', built)) >= len(classes) == len(NORMS) - 1


def test_continuous_integration_builds_it_and_takes_warnings_for_errors():
    script = (ROOT / ".ci" / "run").read_text()
    assert "make docs" in script.splitlines()
    assert '.venv/bin/python -m pytest -n 2 --dist worksteal -m "slow and not cuda"' in script
    assert "--fresh-env --fail-on-warning" in (ROOT / "Makefile").read_text()


def test_every_package_that_it_needs_is_pinned():
    pins = (ROOT / "constraints.txt").read_text().split()
    pinned = {canonicalize_name(pin.partition("==")[0]) for pin in pins}
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    todo, seen = [*extras["optional-dependencies"]["docs"]], set()
    while todo:
        needed = Requirement(todo.pop())
        name = canonicalize_name(needed.name)
        if name not in seen and (needed.marker is None or needed.marker.evaluate({"extra": ""})):
            seen.add(name)
            todo += metadata.requires(name) or []
    assert {"sphinx", "docutils", "furo"} <= seen
    assert seen <= pinned


BROKEN = {
    "[a page](nowhere.md)": "nowhere.md",
    "![a figure](figures/nothing.svg)": "nothing.svg",
    "$$\n\\nosuchcommand{x}\n$$": "nosuchcommand",
    "```{eval-rst}\n.. autofunction:: geonorm.nothing\n\n:py:class:`geonorm.Nothing`\n```":
        "failed to import 'nothing'",
    "{py:class}`geonorm.Nothing`": "geonorm.Nothing",
    "```{eval-rst}\n.. autoclass:: geonorm.InstanceNorm\n\n|z|\n```": "Undefined substitution",
}  # fmt: skip


@pytest.mark.slow
def test_whatever_leads_nowhere_fails_the_build(tmp_path):
    shutil.copy(DOCS / "conf.py", tmp_path / "conf.py")
    shutil.copytree(DOCS / "static", tmp_path / "static")
    page = "# Title\n\n" + "\n\n".join(BROKEN) + "\n"
    (tmp_path / "index.md").write_text(page, encoding="utf-8")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode != 0
    for named in BROKEN.values():
        assert named in done.stderr
    (tmp_path / "index.md").write_text("# Title\n\nNothing is wrong here.\n", encoding="utf-8")
    done = build(tmp_path, tmp_path / "site")
    assert done.returncode == 0, done.stderr
