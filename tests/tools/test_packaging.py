"""The installed package is the one that is imported, outside the checkout too."""

import os
import subprocess
import sys
import sysconfig
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

from helpers.action_runs import FILMS, QUICK
from helpers.scan_writers import rows, write
from helpers.video_files import encode, numbered_film

ROOT = Path(__file__).resolve().parents[2]
WHERE = """
import geonorm, geonorm.models, geonorm.datasets, geonorm.norms, torch
from geonorm.models import r3d_18
from geonorm.datasets.scan import Scan
print(geonorm.__file__, geonorm.models.__file__, geonorm.datasets.__file__, sep="\\n")
print(geonorm.backends()["cpp"])
print(geonorm.SparseInstanceNorm(4)(torch.randn(9, 4), torch.zeros(9, dtype=torch.long)).shape)
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


@pytest.mark.long
def test_the_wheel_holds_every_package_the_marker_and_the_extension(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    packages = {name.rpartition("/")[0] for name in names if name.endswith(".py")}
    for folder in ("geonorm", "models", "datasets"):
        for file in (ROOT / folder).rglob("*.py"):
            inside = file.relative_to(ROOT).as_posix()
            assert (inside if folder == "geonorm" else f"geonorm/{inside}") in names
    for pattern in ("geonorm/training/configs/*.yaml", "datasets/label_maps/*.toml",
                    "geonorm/looking/*.js", "geonorm/looking/*.css"):
        files = {f"geonorm/{file.relative_to(ROOT)}".replace("geonorm/geonorm", "geonorm")
                 for file in ROOT.glob(pattern)}  # fmt: skip
        assert files, pattern
        assert files <= {*names}
    assert "geonorm/py.typed" in names
    assert any(name.startswith("geonorm/_C.") for name in names)
    assert all(package.startswith("geonorm") for package in packages)  # no models/ at the top


@pytest.mark.long
def test_the_wheel_works_outside_the_checkout(wheel: Path, tmp_path: Path) -> None:
    run(sys.executable, "-m", "pip", "install", "--no-deps", "--no-index", "--target",
        tmp_path / "site", wheel)  # fmt: skip
    environment = os.environ | {"PYTHONPATH": str(tmp_path / "site")}
    lines = run(sys.executable, "-c", WHERE, cwd=tmp_path, env=environment).splitlines()
    assert all(line.startswith(str(tmp_path / "site")) for line in lines[:3])
    assert lines[3:] == ["available", "torch.Size([9, 4])"]


def environment(folder: Path) -> Path:
    """Make a fresh environment that has what this one has but geonorm; return its Python."""
    # Its own pip and setuptools would come before those that pyproject.toml asks for.
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    site = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip()
    # A path in a .pth file is looked in, but the .pth files there, with the finder of this
    # checkout's own editable install, are not.
    Path(site, "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    assert run(python, "-c", "import torch, importlib.util as u; print(u.find_spec('geonorm'))",
               cwd=folder) == "None\n"  # fmt: skip
    return python


TYPED = """
import geonorm
from geonorm.datasets import read_scan
norm: int = geonorm.SparseInstanceNorm(4)
scan: int = read_scan("a.bin")
"""


@pytest.mark.long
def test_the_wheel_in_a_fresh_environment_is_typed(wheel: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "fresh")
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel)
    lines = run(python, "-c", WHERE, cwd=tmp_path).splitlines()
    assert all(line.startswith(str(tmp_path / "fresh")) for line in lines[:3])
    assert lines[3] == "available"
    (tmp_path / "user.py").write_text(TYPED)
    done = subprocess.run(
        [sys.executable, "-m", "mypy", "--python-executable", python, "user.py"], cwd=tmp_path,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    for found in ("InstanceNorm", "Scan"):  # of which SparseInstanceNorm is another name
        assert f'expression has type "{found}", variable has type "int"' in done.stdout


QUICK_SCANS = [
    "--data.train.init_args.num_scans=2", "--data.val.init_args.num_scans=1",
    "--data.voxel_size=0.8", "--data.batch_size=1", "--data.num_workers=0",
    "--trainer.max_epochs=1", "--trainer.accelerator=cpu",
]  # fmt: skip


@pytest.mark.long
@pytest.mark.timeout(900)
def test_the_commands_of_the_wheel_work_in_an_empty_folder(wheel: Path, tmp_path: Path) -> None:
    python = environment(tmp_path / "fresh")
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", wheel)
    geonorm = python.with_name("geonorm")
    empty = tmp_path / "empty"
    empty.mkdir()
    variables = os.environ | {"GEONORM_CACHE": str(tmp_path / "cache")}
    said = run(geonorm, "doctor", cwd=empty, env=variables)
    assert f"in {tmp_path / 'fresh'}" in said
    assert f"built for torch {metadata.version('torch')}" in said
    assert "self-test passed" in run(geonorm, "install-minkowski", cwd=empty, env=variables)
    run(geonorm, "train-seg", *QUICK_SCANS, cwd=empty, env=variables)
    run(geonorm, "train-action", *FILMS, *QUICK, cwd=empty, env=variables)
    write(empty / "a.bin", rows())
    encode(empty / "film.mp4", numbered_film(20))
    for tool, file, result in (
        ("train_seg", "a.bin", "a.label"), ("train_action", "film.mp4", "film.png"),
    ):  # fmt: skip
        checkpoint = f"runs/{tool}/001/checkpoints/last.ckpt"
        run(geonorm, "predict", checkpoint, file, "--out", tool, cwd=empty, env=variables)
        assert (empty / tool / result).is_file()


@pytest.mark.long
def test_an_editable_install_in_a_fresh_environment(tmp_path: Path) -> None:
    run("git", "clone", "--quiet", ROOT, tmp_path / "clone")
    python = environment(tmp_path / "fresh")
    run(python, "-m", "pip", "install", "--no-deps", "--no-index", "--no-build-isolation",
        "--editable", tmp_path / "clone")  # fmt: skip
    lines = run(python, "-c", WHERE, cwd=tmp_path).splitlines()
    folders = ("geonorm", "models", "datasets")
    assert lines[:3] == [str(tmp_path / "clone" / name / "__init__.py") for name in folders]
    assert lines[3] == "available"


@pytest.mark.long
@pytest.mark.timeout(1800)
def test_pip_install_with_build_isolation(tmp_path: Path) -> None:
    """Needs a package index: pip fetches torch, for the compiler alone, into a place of its own."""
    run("git", "clone", "--quiet", ROOT, tmp_path / "clone")
    python = environment(tmp_path / "fresh")
    # The extension works with the torch that it was compiled with.
    (tmp_path / "same.txt").write_text(f"torch=={metadata.version('torch')}\n")
    variables = dict.fromkeys(("PIP_CONSTRAINT", "PIP_BUILD_CONSTRAINT"), tmp_path / "same.txt")
    run(python, "-m", "pip", "install", "--no-deps", "--no-cache-dir", tmp_path / "clone",
        env=os.environ | {name: str(file) for name, file in variables.items()})  # fmt: skip
    lines = run(python, "-c", WHERE, cwd=tmp_path).splitlines()
    assert all(line.startswith(str(tmp_path / "fresh")) for line in lines[:3])
    assert lines[3] == "available"


@pytest.mark.long
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
