"""The installer: what it builds for, what it refuses, and that the installed copy works."""

import importlib.util
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from types import ModuleType

import pytest

SCRIPT = Path(__file__).resolve().parents[1] / "tools" / "install_minkowski.py"


@pytest.fixture
def installer() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install_minkowski", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def source_tree(root: Path, installer: ModuleType) -> Path:
    """Write the files that the edits touch, each holding just the text to replace."""
    for edit in installer.EDITS:
        path = root / edit.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(edit.old + "\n")
    (root / "MinkowskiEngine" / "__init__.py").write_text('__version__ = "0.5.4"\n')
    return root


def test_the_installed_copy_is_the_wanted_one_and_works(installer: ModuleType) -> None:
    assert installer.is_installed()
    done = subprocess.run([sys.executable, SCRIPT, "--self-test"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "self-test passed" in done.stdout


def test_version_and_wheel_name_what_they_were_built_for(installer, monkeypatch, tmp_path) -> None:
    here = installer.wheel_path(tmp_path).name
    assert metadata.version("torch").replace("+", ".") in here
    assert f"cp{sys.version_info.major}{sys.version_info.minor}" in here
    monkeypatch.setattr(installer.metadata, "version", lambda _: "9.9.9+cpu")
    assert "torch9.9.9.cpu" in installer.wheel_path(tmp_path).name
    monkeypatch.undo()
    monkeypatch.setattr(installer, "EDITS", [])
    assert installer.wheel_path(tmp_path).name != here  # other edits, another wheel


def test_edits_are_applied_and_the_version_stamped(installer, tmp_path) -> None:
    source = source_tree(tmp_path, installer)
    installer.mend_source(source)
    for edit in installer.EDITS:
        assert edit.new in (source / edit.file).read_text()
    stamped = (source / "MinkowskiEngine" / "__init__.py").read_text()
    assert installer.wanted_version() in stamped


@pytest.mark.parametrize("times", [0, 2])
def test_an_edit_without_its_single_place_is_refused(installer, tmp_path, times) -> None:
    source = source_tree(tmp_path, installer)
    edit = installer.EDITS[0]
    (source / edit.file).write_text((edit.old + "\n") * times)
    with pytest.raises(installer.InstallError, match=f"exactly once, found it {times} times"):
        installer.mend_source(source)


def test_the_build_cannot_uninstall_a_working_copy(installer, tmp_path) -> None:
    environment = installer.build_environment(tmp_path, jobs=1)
    done = subprocess.run(["pip", "uninstall", "MinkowskiEngine", "-y"], env=environment,
                          executable=tmp_path / "bin" / "pip", check=False)  # fmt: skip
    assert done.returncode == 0
    assert installer.is_installed()
    assert environment["PATH"].split(":")[0] == str(tmp_path / "bin")


def test_a_failing_step_shows_its_last_lines_and_the_log(installer, tmp_path) -> None:
    command = [sys.executable, "-c", "print('no such header'); raise SystemExit(3)"]
    with pytest.raises(installer.InstallError, match=r"no such header[\s\S]*build.log"):
        installer.run(command, tmp_path / "build.log")
