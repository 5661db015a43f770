"""What is installed is what is imported, outside the checkout too."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
WHERE = """
import geonorm, geonorm.models, geonorm.datasets, geonorm.norms, torch
from geonorm.models import r3d_18
from geonorm.datasets.scan import Scan
print(geonorm.__file__, geonorm.models.__file__, geonorm.datasets.__file__, sep="\\n")
print(geonorm.backends()["cpp"])
print(geonorm.SparseInstanceNorm(4)((torch.randn(9, 4), torch.zeros(9, dtype=torch.long)))[0].shape)
"""


def run(*command: object, **options: object) -> str:
    words = [*map(str, command)]
    done = subprocess.run(words, capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the wheel from a clean clone, so that nothing built in the checkout slips in."""
    folder = tmp_path_factory.mktemp("wheel")
    run("git", "clone", "--quiet", ROOT, folder / "clone")
    run(sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-cache-dir",
        "--wheel-dir", folder, folder / "clone")  # fmt: skip
    return next(folder.glob("geonorm-*.whl"))


@pytest.mark.slow
def test_the_wheel_holds_every_package_the_marker_and_the_extension(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.rpartition("/")[0] for name in names if name.endswith(".py")}
    for folder in ("geonorm", "models", "datasets"):
        for file in (ROOT / folder).rglob("*.py"):
            inside = file.relative_to(ROOT).as_posix()
            assert (inside if folder == "geonorm" else f"geonorm/{inside}") in names
    assert "geonorm/py.typed" in names
    assert any(name.startswith("geonorm/_C.") for name in names)
    assert all(package.startswith("geonorm") for package in packages)  # no models/ at the top


@pytest.mark.slow
def test_the_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target",
        tmp_path / "site", wheel)  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    lines = run(sys.executable, "-c", WHERE, cwd=tmp_path, env=environment).splitlines()
    assert all(line.startswith(str(tmp_path / "site")) for line in lines[:3])
    assert lines[3:] == ["available", "torch.Size([9, 4])"]


@pytest.mark.slow
def test_without_a_compiler_the_install_succeeds_and_says_what_is_missing(tmp_path: Path) -> None:
    run("git", "clone", "--quiet", ROOT, tmp_path / "clone")
    environment = os.environ | {"CXX": "/nonexistent/c++", "CC": "/nonexistent/cc"}
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-build-isolation",
        "--no-cache-dir", "--target", tmp_path / "site", tmp_path / "clone",
        env=environment)  # fmt: skip
    # -S: otherwise the finder of an editable install supplies the checkout's own geonorm._C.
    paths = [str(tmp_path / "site"), sysconfig.get_path("purelib")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    lines = run(sys.executable, "-S", "-c", WHERE, cwd=tmp_path, env=environment).splitlines()
    assert "no C++ compiler: '/nonexistent/c++' was not found" in lines[3]
    assert lines[4] == "torch.Size([9, 4])"


def test_the_editable_install_maps_both_packages(tmp_path: Path) -> None:
    lines = run(sys.executable, "-c", WHERE, cwd=tmp_path).splitlines()
    assert lines[1:3] == [str(ROOT / "models" / "__init__.py"),
                          str(ROOT / "datasets" / "__init__.py")]  # fmt: skip
