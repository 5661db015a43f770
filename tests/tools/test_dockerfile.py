"""The files that the Dockerfile names exist and are copied; Docker is not needed."""

import re
import shutil
import subprocess
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

import pytest
import torch

from geonorm.minkowski import install

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = ROOT / "tools" / "Dockerfile"
TEXT = DOCKERFILE.read_text()
# A line that ends in a backslash goes on in the next.
LINES = [line for line in TEXT.replace("\\\n", " ").splitlines() if not line.startswith("#")]


def instructions(name: str) -> list[str]:
    return [line.split(maxsplit=1)[1] for line in LINES if line.startswith(f"{name} ")]


def is_ignored(path: str, patterns: list[str]) -> bool:
    """Return whether a path or a folder above it matches, `**/` standing for any folders or none.

    fnmatch's star passes slashes, so this ignores no less than Docker does.
    """
    places = [path, *map(str, PurePosixPath(path).parents)]
    return any(fnmatch(place, form) for place in places for pattern in patterns
               for form in (pattern, pattern.removeprefix("**/")))


def test_every_file_of_the_repository_is_copied_and_nothing_that_is_built() -> None:
    # BuildKit looks for this name beside the Dockerfile before it looks for .dockerignore.
    patterns = DOCKERFILE.with_name("Dockerfile.dockerignore").read_text().split()
    assert instructions("COPY") == [". ."]
    for built in (".venv/bin/python", "build/lib/x.py", "geonorm/_C.so", "carried/a.whl",
                  "tools/__pycache__/demo.pyc", "geonorm.egg-info/PKG-INFO", ".git/HEAD"):
        assert is_ignored(built, patterns), built
    if not (ROOT / ".git").exists():
        pytest.skip("not a checkout: nothing tells the repository's files from others")
    listed = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True,
                            check=True)
    files = listed.stdout.splitlines()
    assert len(files) > 200
    assert [file for file in files if is_ignored(file, patterns)] == []


def test_its_make_targets_and_their_options_exist() -> None:
    if shutil.which("make") is None:
        pytest.skip("no make here")
    (setup,) = re.findall(r'make setup MINKOWSKI="([^"]+)"', " ".join(instructions("RUN")))
    assert "ARCH=9.0" in instructions("ARG")
    options = setup.replace("${ARCH}", "9.0")
    # What make would run, with everything made anew and nothing run.
    done = subprocess.run(["make", "--always-make", "--dry-run", "setup", f"MINKOWSKI={options}"],
                          cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"tools/install_minkowski.py {options}" in done.stdout
    for named in re.findall(r"(?:bash|python) (tools/\S+)", done.stdout):
        assert (ROOT / named).is_file(), named
    arguments = install.parse_arguments(options.split())
    assert (arguments.cuda, arguments.arch) == (True, ["9.0"])
    assert instructions("CMD") == ['["make", "demo"]']
    assert re.search(r"^demo:", (ROOT / "Makefile").read_text(), re.MULTILINE)


def test_its_toolkit_is_of_torchs_major_version() -> None:
    if torch.version.cuda is None:
        pytest.skip("this torch has no CUDA")
    (version,) = re.findall(r"^CUDA=(\d+)\.\d+\.\d+$", "\n".join(instructions("ARG")), re.MULTILINE)
    assert version == torch.version.cuda.partition(".")[0]
    assert instructions("FROM") == ["nvidia/cuda:${CUDA}-devel-ubuntu24.04"]


def test_the_documentation_gives_the_same_commands() -> None:
    commands = re.findall(r"^# +(docker .+)$", TEXT, re.MULTILINE)
    assert len(commands) == 2
    assert commands[0].startswith("docker build -f tools/Dockerfile --build-arg ARCH=9.0 ")
    documented = (ROOT / "docs" / "cuda.md").read_text()
    assert all(command in documented for command in commands)
