"""The installer: what it builds for, what it refuses, and that the installed copy works."""

import argparse
import re
import subprocess
import sys
import tarfile
from importlib import metadata
from pathlib import Path

import pytest
import torch

from geonorm.minkowski import host
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
    pip,
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
    done = subprocess.run([sys.executable, SCRIPT], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "self-test passed on cpu" in done.stdout


def test_what_is_installed_and_does_not_work_is_said(monkeypatch, tmp_path) -> None:
    broken = tmp_path / "MinkowskiEngine.py"
    broken.write_text("raise ImportError('of another torch')\n")
    assert installer.is_installed(installer.choose_target(asked()))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    assert installer.main([]) == (
        "geonorm install-minkowski: it is installed and does not work; the self-test's message is "
        "above"
    )


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
    cuda = r"0\.5\.4\+torch2\.15\.0\.cuda13\.2\.sm80\.sm90ptx\.[0-9a-f]{8}"
    assert re.fullmatch(cuda, CUDA.version)
    assert re.fullmatch(r"0\.5\.4\+torch9\.9\.9\.cpu\.[0-9a-f]{8}", Target("9.9.9").version)
    assert not installer.is_installed(CUDA)
    with monkeypatch.context() as patch:
        patch.setattr(installer.sysconfig, "get_platform", lambda: "macosx-11.0-arm64")
        python = f"cp{sys.version_info.major}{sys.version_info.minor}"
        assert installer.wheel_path(tmp_path, CUDA) == tmp_path / (
            f"minkowskiengine-{CUDA.version}-{python}-{python}-macosx_11_0_arm64.whl"
        )
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
    assert installer.choose_target(asked(blas="torch")) == CPU._replace(blas="torch")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    seen = ((10, 0), (9, 0), (8, 9), (9, 0))
    monkeypatch.setattr(torch.cuda, "device_count", lambda: len(seen))
    monkeypatch.setattr(torch.cuda, "get_device_capability", seen.__getitem__)
    every = CPU._replace(cuda=torch.version.cuda, arches=("8.9", "9.0", "10.0"))
    assert installer.choose_target(asked()) == every
    assert installer.choose_target(asked(blas="torch")) == every._replace(blas="torch")
    assert installer.choose_target(asked(cpu=True)) == CPU
    assert installer.choose_target(asked(cpu=True, blas="torch")) == CPU._replace(blas="torch")
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
    (source / edit.file).unlink()
    with pytest.raises(InstallError, match="exactly once, found it 0 times; this is not Minkowski"):
        mend_source(source, CUDA)


def test_what_is_changed_for_cuda(tmp_path) -> None:
    source = source_tree(tmp_path)
    mend_source(source, CUDA)
    changed = (source / "src" / "3rdparty" / "concurrent_unordered_map.cuh").read_text()
    assert changed == "return std::shared_ptr<Self>{\n"
    assert "std::unique_ptr<Self, std::function<void(Self*)>>{" in CUDA_EDITS[0].old


def test_the_setup_script_is_told_the_device() -> None:
    for target, said in ((CPU, "--cpu_only"), (CUDA, "--force_cuda")):
        *others, setting = build_settings(target)
        assert others == ["--no-deps", "--no-build-isolation", "--no-cache-dir", "--use-pep517"]
        assert setting == f"--config-settings=--global-option=--blas=openblas {said}"
    begin = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
    assert pip("wheel", Path("/a")) == [*begin, "wheel", "/a"]


def test_every_edit_says_why_and_since_when() -> None:
    for edit in EDITS + CPU_EDITS + CUDA_EDITS:
        assert edit.why
        assert edit.since.split()[0] in ("Python", "numpy", "torch", "CUDA", "any")


def test_a_saved_source_comes_back_from_the_archive(tmp_path) -> None:
    sdist = tmp_path / "to" / "be" / "carried" / "MinkowskiEngine-0.5.4.tar.gz"
    source_tree(tmp_path / "source")
    for _ in range(2):  # the second in the place of the first
        save_source(tmp_path / "source", sdist)
    with tarfile.open(sdist) as archive:
        assert "MinkowskiEngine-0.5.4/setup.py" in archive.getnames()
    found = fetch_source(tmp_path, sdist, Runner(tmp_path / "log"))
    mend_source(found, CUDA)
    with pytest.raises(InstallError, match=r"no source archive .*--save-sdist"):
        fetch_source(tmp_path, tmp_path / "none.tar.gz", Runner(tmp_path / "log"))


@pytest.mark.parametrize("names", [["a/readme"], ["a/setup.py", "b/setup.py"]])
def test_an_archive_of_other_than_one_source_is_refused(tmp_path, names) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    said = f"expected one source folder .*setup.py, found {len(names) if len(names) > 1 else 0}"
    with pytest.raises(InstallError, match=said):
        fetch_source(tmp_path, tmp_path / "a.tar", Runner(tmp_path / "log"))


def test_an_archive_writes_nothing_outside_its_folder(tmp_path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        archive.addfile(tarfile.TarInfo("../outside/setup.py"))
    with pytest.raises(tarfile.OutsideDestinationError):
        fetch_source(tmp_path, tmp_path / "a.tar", Runner(tmp_path / "log"))
    assert not (tmp_path / "outside").exists()


@pytest.mark.slow  # pip fetches the source from the index
def test_the_source_is_saved_as_it_is_published(tmp_path, capfd) -> None:
    sdist = tmp_path / "carried" / "source.tar.gz"
    assert installer.main([f"--save-sdist={sdist}"]) is None
    assert capfd.readouterr().out.endswith(f"MinkowskiEngine's source is in {sdist}\n")
    mend_source(fetch_source(tmp_path, sdist, Runner(tmp_path / "log")), CPU)  # finds all places
    assert [file.name for file in sdist.parent.iterdir()] == ["source.tar.gz"]


def test_a_wheel_of_another_name_is_not_kept(tmp_path) -> None:
    built, cache = tmp_path / "minkowskiengine-0.5.4-cp311.whl", tmp_path / "cache"
    built.write_bytes(b"wheel")
    cache.mkdir()
    with pytest.raises(InstallError, match=r"wheel M.*-cp312.whl, the build made m.*-cp311.whl"):
        installer.keep(built, cache / "MinkowskiEngine-0.5.4-cp312.whl")
    assert [*cache.iterdir()] == []
    installer.keep(built, wheel := cache / "MinkowskiEngine-0.5.4-cp311.whl")
    assert [*cache.iterdir()] == [wheel]
    assert wheel.read_bytes() == b"wheel"


def test_to_build_only_takes_the_wheel_from_the_cache_and_installs_nothing(
    monkeypatch, tmp_path
) -> None:
    monkeypatch.setattr(installer, "is_installed", lambda target: False)
    installer.wheel_path(tmp_path, CPU).touch()  # no wheel at all, had anyone opened it
    arguments = ["--cpu", "--wheel-dir", str(tmp_path)]
    assert installer.main([*arguments, "--build-only"]) is None
    said = installer.main(arguments)
    assert said.startswith("geonorm install-minkowski: ")
    assert "install … failed" in said


def test_the_build_cannot_uninstall_a_working_copy(tmp_path) -> None:
    environment = installer.build_environment(CPU, tmp_path, jobs=1)
    done = subprocess.run(["pip", "uninstall", "MinkowskiEngine", "-y"], env=environment,
                          executable=tmp_path / "bin" / "pip", check=False)  # fmt: skip
    assert done.returncode == 0
    assert installer.is_installed(installer.choose_target(asked()))
    assert environment["PATH"].split(":")[0] == str(tmp_path / "bin")


def test_as_many_compilers_as_cores_and_memory_allow(monkeypatch) -> None:
    pages = {"SC_PAGE_SIZE": 2**20, "SC_PHYS_PAGES": 12 * 1024}  # 12 GiB
    monkeypatch.setattr(installer.os, "sysconf", pages.__getitem__)
    monkeypatch.setattr(installer.os, "cpu_count", lambda: 16)
    assert (installer.default_jobs(False), installer.default_jobs(True)) == (4, 3)
    monkeypatch.setattr(installer.os, "cpu_count", lambda: 2)
    assert installer.default_jobs(False) == 2
    monkeypatch.setattr(installer.os, "cpu_count", lambda: None)
    assert installer.default_jobs(False) == 1
    pages["SC_PHYS_PAGES"] = 100
    assert installer.default_jobs(True) == 1


def test_options_of_the_command_line(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    plain = installer.parse_arguments([])
    assert plain.wheel_dir == tmp_path / "geonorm" / "wheels"
    assert (plain.cuda, plain.cpu, plain.blas, plain.jobs) == (False, False, "openblas", None)
    assert not any([plain.build_only, plain.self_test, plain.sdist, plain.save_sdist])
    given = installer.parse_arguments(["--cuda", "--arch", "8.0", "9.0", "--blas=torch"])
    assert (given.cuda, given.arch, given.blas) == (True, ["8.0", "9.0"], "torch")
    with pytest.raises(SystemExit):
        installer.parse_arguments(["--cuda", "--cpu"])
    named = ["--jobs=3", "--sdist=/a", "--save-sdist=/b", "--wheel-dir=/c"]
    files = installer.parse_arguments(named)
    assert (files.jobs, files.sdist, files.save_sdist) == (3, Path("/a"), Path("/b"))
    assert files.wheel_dir == Path("/c")
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", "/home/me")
    assert installer.parse_arguments([]).wheel_dir == Path("/home/me/.cache/geonorm/wheels")


def test_nothing_is_fetched_where_nothing_is_missing(tmp_path) -> None:
    installer.fetch_missing(["numpy", "torch"], tmp_path / "new" / "log")
    assert [*tmp_path.iterdir()] == []


def test_the_environment_of_a_build_searches_its_own_folders_first(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(installer, "check_host", lambda *arguments: None)
    monkeypatch.setenv("CFLAGS", "-O1  -g")
    monkeypatch.setenv("CPATH", "/mine")
    monkeypatch.delenv("LIBRARY_PATH", raising=False)
    told = installer.build_environment(CPU, tmp_path, jobs=7)
    assert (told["MAX_JOBS"], told["TMPDIR"]) == ("7", str(tmp_path))
    assert told["CFLAGS"] == "-O1 -g -DNDEBUG -g0"
    assert told["CPATH"] == f"{tmp_path}/include:/mine"
    assert told["LIBRARY_PATH"] == f"{tmp_path}/lib"
    assert told["PATH"].split(":")[:2] == [f"{tmp_path}/bin", str(Path(sys.executable).parent)]


def test_all_that_a_machine_lacks_is_named_at_once(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.setattr(host.sysconfig, "get_path", {"include": str(tmp_path)}.__getitem__)
    for blas, packages in (("openblas", "g++ libopenblas-dev python3-dev"),
                           ("torch", "g++ python3-dev")):  # fmt: skip
        for name in ("include", "lib"):
            (tmp_path / blas / name).mkdir(parents=True)
        with pytest.raises(InstallError, match=r"no C\+\+ compiler") as caught:
            host.check_host(blas, tmp_path / blas, tmp_path)
        said = str(caught.value)
        assert said.endswith(f"\nOn Debian and Ubuntu: apt-get install {packages}")
        assert said.count("no C++ compiler") == said.count("Python's own headers") == 1
    (tmp_path / "Python.h").touch()
    assert host.python_headers() == tmp_path / "Python.h"
    with pytest.raises(InstallError, match=r"\nOn Debian and Ubuntu: apt-get install g\+\+$"):
        host.check_host("torch", tmp_path / "torch", tmp_path)


def test_the_compiler_is_that_of_cxx_or_the_systems(tmp_path, monkeypatch) -> None:
    for name in ("c++", "mine"):
        (tmp_path / name).touch(mode=0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    assert host.host_compiler() == "c++"
    monkeypatch.setenv("CXX", "mine -O2")
    assert host.host_compiler() == "mine -O2"
    for name in ("", " ", "other mine"):
        monkeypatch.setenv("CXX", name)
        with pytest.raises(InstallError, match=rf"no C\+\+ compiler: '{name}' is not on PATH"):
            host.host_compiler()


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
