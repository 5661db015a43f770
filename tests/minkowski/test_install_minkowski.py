"""The installer: what it builds for, what it refuses, and that the installed copy works."""

import argparse
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path

import pytest
import torch

from geonorm.minkowski import install as installer
from geonorm.minkowski.running import InstallError, Runner
from geonorm.minkowski.self_test import self_test
from geonorm.minkowski.source import (
    CPU_EDITS,
    CUDA_EDITS,
    EDITS,
    HEADER,
    UNITS,
    Target,
    build_settings,
    fetch_source,
    mend_source,
    save_source,
)

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "install_minkowski.py"
CPU = Target(metadata.version("torch"))
CUDA = Target("2.15.0", "13.2", ("8.0", "9.0+PTX"))


def asked(**options: object) -> argparse.Namespace:
    """Return the command line's options, those not named as by default."""
    return argparse.Namespace(**{"cpu": False, "cuda": False, "arch": None, "blas": "openblas",
                                 **options})  # fmt: skip


def source_tree(root: Path) -> Path:
    """Write the files that the edits touch, each holding just the text to replace."""
    for edit in EDITS + CPU_EDITS + CUDA_EDITS:
        path = root / edit.file
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(edit.old + "\n")
    (root / "MinkowskiEngine" / "__init__.py").write_text('__version__ = "0.5.4"\n')
    (root / "src").mkdir(exist_ok=True)
    return root


def test_the_installed_copy_is_the_wanted_one_and_works() -> None:
    assert installer.is_installed(installer.choose_target(asked()))
    done = subprocess.run([sys.executable, SCRIPT, "--self-test"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "self-test passed on cpu" in done.stdout


def test_the_self_test_says_what_it_could_not_try(monkeypatch, capsys) -> None:
    engine = pytest.importorskip("MinkowskiEngine")
    if torch.cuda.is_available():
        pytest.skip("what is asked is what it says without a GPU")
    self_test()
    assert "GPU" not in capsys.readouterr().out
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    self_test()
    assert "built for the CPU alone, though torch sees a GPU" in capsys.readouterr().out
    monkeypatch.setattr(engine, "is_cuda_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    self_test()
    assert "its CUDA side has not been run" in capsys.readouterr().out


def test_version_and_wheel_name_what_they_were_built_for(monkeypatch, tmp_path) -> None:
    here = installer.wheel_path(tmp_path, CPU).name
    assert metadata.version("torch").replace("+", ".") in here
    assert ".cpu." in here
    assert f"cp{sys.version_info.major}{sys.version_info.minor}" in here
    assert "torch9.9.9.cpu.cpu" in installer.wheel_path(tmp_path, Target("9.9.9+cpu")).name
    assert "torch2.15.0.cuda13.2.sm80.sm90ptx." in CUDA.version
    # Another BLAS and other edits are other wheels.
    assert CPU._replace(blas="torch").version != CPU.version
    other = {**UNITS, "unit_2": UNITS["unit_2"][:-1]}
    for name, changed in (("EDITS", ()), ("UNITS", other)):
        with monkeypatch.context() as patch:
            patch.setattr(f"geonorm.minkowski.source.{name}", changed)
            assert installer.wheel_path(tmp_path, CPU).name != here


def test_another_header_is_another_cuda_wheel(monkeypatch, tmp_path) -> None:
    cuda, cpu = CUDA.version, CPU.version
    (tmp_path / "cuda13.h").write_text(HEADER.read_text() + "// changed\n")
    monkeypatch.setattr("geonorm.minkowski.source.HEADER", tmp_path / "cuda13.h")
    assert CUDA.version != cuda
    assert CPU.version == cpu


def test_without_a_wish_it_builds_for_what_torch_sees(monkeypatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert installer.choose_target(asked()) == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda index: ((8, 9), (9, 0))[index])
    assert installer.choose_target(asked()) == CPU._replace(
        cuda=torch.version.cuda, arches=("8.9", "9.0")
    )
    assert installer.choose_target(asked(cpu=True)) == CPU
    assert installer.choose_target(asked(cuda=True, arch=["8.0"])).arches == ("8.0",)


@pytest.mark.parametrize("target", [CPU, CUDA])
def test_edits_are_applied_and_the_version_stamped(tmp_path, target) -> None:
    source = source_tree(tmp_path)
    mend_source(source, target)
    for edit in EDITS:
        assert edit.new in (source / edit.file).read_text()
    for edit in CPU_EDITS + CUDA_EDITS:
        applied = edit.new in (source / edit.file).read_text()
        assert applied is ((edit in CUDA_EDITS) is (target is CUDA))
    units = {file.stem: file.read_text() for file in (source / "src").glob("unit_*.cpp")}
    assert units == ({} if target is CUDA else {
        unit: "".join(f'#include "{name}.cpp"\n' for name in names)
        for unit, names in UNITS.items()
    })
    stamped = (source / "MinkowskiEngine" / "__init__.py").read_text()
    assert target.version in stamped


@pytest.mark.parametrize("times", [0, 2])
@pytest.mark.parametrize("edit", [EDITS[0], CUDA_EDITS[0]])
def test_an_edit_without_its_single_place_is_refused(tmp_path, edit, times) -> None:
    source = source_tree(tmp_path)
    text = (source / edit.file).read_text().replace(edit.old, "")
    (source / edit.file).write_text(text + (edit.old + "\n") * times)
    with pytest.raises(InstallError, match=f"exactly once, found it {times} times"):
        mend_source(source, CUDA)


def test_the_setup_script_is_told_the_device() -> None:
    for target, said in ((CPU, "--cpu_only"), (CUDA, "--force_cuda")):
        (setting,) = [word for word in build_settings(target) if word.startswith("--config")]
        assert setting == f"--config-settings=--global-option=--blas=openblas {said}"


def test_every_edit_says_why_and_since_when() -> None:
    for edit in EDITS + CPU_EDITS + CUDA_EDITS:
        assert edit.why
        assert edit.since.split()[0] in ("Python", "numpy", "torch", "CUDA", "any")


def test_a_saved_source_comes_back_from_the_archive(tmp_path) -> None:
    sdist = tmp_path / "to" / "be" / "carried" / "MinkowskiEngine-0.5.4.tar.gz"
    save_source(source_tree(tmp_path / "source"), sdist)
    with tarfile.open(sdist) as archive:
        assert "MinkowskiEngine-0.5.4/setup.py" in archive.getnames()
    found = fetch_source(tmp_path, sdist, Runner(tmp_path / "log"))
    mend_source(found, CUDA)
    with pytest.raises(InstallError, match=r"no source archive .*--save-sdist"):
        fetch_source(tmp_path, tmp_path / "none.tar.gz", Runner(tmp_path / "log"))


@pytest.mark.slow  # pip fetches the source from the index
def test_the_source_is_saved_as_it_is_published(tmp_path, capfd) -> None:
    sdist = tmp_path / "carried" / "source.tar.gz"
    assert installer.main([f"--save-sdist={sdist}"]) is None
    assert capfd.readouterr().out.endswith(f"MinkowskiEngine's source is in {sdist}\n")
    mend_source(fetch_source(tmp_path, sdist, Runner(tmp_path / "log")), CPU)  # finds all places
    assert [file.name for file in sdist.parent.iterdir()] == ["source.tar.gz"]


def test_to_build_only_takes_the_wheel_from_the_cache_and_installs_nothing(
    monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr(installer, "is_installed", lambda target: False)
    installer.wheel_path(tmp_path, CPU).touch()  # no wheel at all, had anyone opened it
    arguments = ["--cpu", "--wheel-dir", str(tmp_path)]
    assert installer.main([*arguments, "--build-only"]) is None
    assert "install … failed" in installer.main(arguments)


def test_the_build_cannot_uninstall_a_working_copy(tmp_path) -> None:
    environment = installer.build_environment(CPU, tmp_path, jobs=1)
    done = subprocess.run(["pip", "uninstall", "MinkowskiEngine", "-y"], env=environment,
                          executable=tmp_path / "bin" / "pip", check=False)  # fmt: skip
    assert done.returncode == 0
    assert installer.is_installed(installer.choose_target(asked()))
    assert environment["PATH"].split(":")[0] == str(tmp_path / "bin")


def test_progress_shows_files_done_of_total_and_the_log_has_everything(tmp_path, capsys) -> None:
    lines = "print('[1/3] g++ a.cpp'); print('a warning'); print('[3/3] g++ c.cpp')"
    Runner(tmp_path / "log").run([sys.executable, "-c", lines])
    assert capsys.readouterr().out == "\r  compiled 1/3\r  compiled 3/3\n"
    assert (tmp_path / "log").read_text() == "[1/3] g++ a.cpp\na warning\n[3/3] g++ c.cpp\n"


def test_a_failing_step_shows_its_last_lines_and_the_log(tmp_path) -> None:
    command = [sys.executable, "-c", "print('no such thing'); raise SystemExit(3)"]
    with pytest.raises(InstallError, match=r"no such thing[\s\S]*build.log$"):
        Runner(tmp_path / "build.log").run(command)


def test_make_hands_its_options_on() -> None:
    """The Dockerfile relies on this; nothing is run."""
    command = ["make", "--always-make", "--dry-run", "setup", "MINKOWSKI=--cuda --arch 9.0"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=SCRIPT.parents[1])
    tool = "python tools/install_minkowski.py"
    assert f"{tool} --cuda --arch 9.0 &&" in done.stdout
    module = "python -m geonorm.minkowski.install"  # from the checkout, before it is installed
    assert f"{module} --build-only --cuda --arch 9.0 &" in done.stdout
    dockerfile = (SCRIPT.parent / "Dockerfile").read_text()
    assert 'make setup MINKOWSKI="--cuda --arch ${ARCH}"' in dockerfile
