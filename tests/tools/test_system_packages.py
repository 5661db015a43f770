"""Every shared library that Open3D and MinkowskiEngine load is in the set-up's list of packages."""

import importlib.util
import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest
import torch

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "system_packages.sh"
# Parts of Open3D for other frameworks, which are never loaded.
UNUSED = ("open3d_torch_ops.so", "open3d_tf_ops.so")
pytestmark = pytest.mark.skipif(shutil.which("dpkg-query") is None, reason="no Debian or Ubuntu")


def said_by(*command):
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout


def extensions():
    """Return the compiled parts of both libraries."""
    found = []
    for name in ("open3d", "MinkowskiEngineBackend"):
        for folder in importlib.util.find_spec(name).submodule_search_locations:
            found += [path for path in Path(folder).rglob("*.so*") if path.name not in UNUSED]
    return found


def loaded_from_the_system(monkeypatch):
    """Return the path of each library outside the Python packages, as the linker finds it."""
    monkeypatch.setenv("LD_LIBRARY_PATH", str(Path(torch.__file__).parent / "lib"))
    paths = set()
    for file in extensions():
        text = said_by("ldd", str(file))
        assert "not found" not in text, f"{file}:\n{text}"
        paths |= set(re.findall(r"=> (/\S+)", text))
    return {path for path in paths if "site-packages" not in path}


def package_of(path):
    """Return the package that a file belongs to; /lib and /usr/lib are one folder."""
    bare = os.path.realpath(path).removeprefix("/usr")
    for spelling in (f"/usr{bare}", bare, path, f"/usr{path}"):
        if owner := said_by("dpkg-query", "--search", spelling):
            return owner.partition(":")[0]
    return f"no package, {path}"


def with_dependencies(packages):
    """Return packages and all that they depend on, as this machine has them installed."""
    form = "${Package}\t${Provides}\t${Pre-Depends}, ${Depends}\n"
    depends, providers = {}, {}
    for line in said_by("dpkg-query", "--show", f"--showformat={form}").splitlines():
        package, provides, needs = line.split("\t")
        depends[package] = re.findall(r"(?:^|[,|]) *([a-z0-9][a-z0-9+.-]+)", needs)
        for name in re.findall(r"(?:^|,) *([a-z0-9][a-z0-9+.-]+)", provides):
            providers.setdefault(name, []).append(package)
    known, waiting = set(), list(packages)
    while waiting:
        name = waiting.pop()
        if name not in known:
            known.add(name)
            waiting += depends.get(name, []) + providers.get(name, [])
    return known


def listed():
    """Return the packages that the set-up installs."""
    lines = re.search(r"packages=\((.*?)\)\n", SCRIPT.read_text(), re.DOTALL)[1].splitlines()
    return [name for line in lines for name in line.partition("#")[0].split()]


def uncovered(packages, monkeypatch):
    """Return the packages that are needed and come neither with these nor with every Debian."""
    essential = said_by("dpkg-query", "--show", "--showformat=${Essential}\t${Package}\n")
    always = [line[4:] for line in essential.splitlines() if line.startswith("yes\t")]
    covered = with_dependencies([*packages, *always])
    return {package_of(path) for path in loaded_from_the_system(monkeypatch)} - covered


def test_every_library_comes_with_a_listed_package(monkeypatch):
    assert uncovered(listed(), monkeypatch) == set()


def test_a_list_without_one_of_them_would_be_found_out(monkeypatch):
    lacking = [name for name in listed() if name not in ("libusb-1.0-0", "libopenblas-dev")]
    found = uncovered(lacking, monkeypatch)
    assert "libusb-1.0-0" in found
    assert any("openblas" in name for name in found)
