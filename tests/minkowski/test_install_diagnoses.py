"""Each failure of a build that the installer knows, provoked for real, and what it says of it."""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from geonorm.minkowski.cuda import check_arches, find_nvcc, find_toolkit, gather
from geonorm.minkowski.host import prepare_blas
from geonorm.minkowski.running import InstallError, Runner

SCRIPT = Path(__file__).resolve().parents[2] / "tools" / "install_minkowski.py"
TORCH_LIB = Path(torch.__file__).parent / "lib"
needs_nvcc = pytest.mark.skipif(
    shutil.which("nvcc") is None or torch.version.cuda is None,
    reason="needs nvcc and a torch with CUDA",
)


def scratch_in(tmp_path: Path) -> Path:
    for name in ("include", "lib"):
        (tmp_path / "scratch" / name).mkdir(parents=True)
    return tmp_path / "scratch"


def install(*arguments: str, **environment: str) -> str:
    """Run the installer, which must fail, and return what it says; it must not reach a compiler."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("CUDA_HOME", "CUDA_PATH"):
            patch.delenv(name, raising=False)
        done = subprocess.run([sys.executable, SCRIPT, *arguments], capture_output=True, text=True,
                              env=os.environ | environment, check=False)  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    assert "compiled 1/" not in done.stdout
    return done.stderr


def hiding(folders: list[Path], empty: Path, command: list[str | Path]) -> str:
    """Run a command that must fail, in which folders are empty; return what it says."""
    empty.mkdir(exist_ok=True)
    mounts = "".join(f"mount --bind '{empty}' '{folder}' && " for folder in folders)
    own = ["unshare", "--mount", "--map-root-user", "sh", "-c"]
    if shutil.which("unshare") is None or subprocess.run(
        [*own, mounts + "true"], capture_output=True, check=False
    ).returncode:  # fmt: skip
        pytest.skip("needs the right to mount in a namespace of its own (unshare --mount)")
    done = subprocess.run([*own, mounts + 'exec "$@"', "sh", *command], capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 1, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return done.stderr


def test_no_nvcc(tmp_path, monkeypatch) -> None:
    monkeypatch.delenv("CUDA_HOME", raising=False)
    monkeypatch.delenv("CUDA_PATH", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr("geonorm.minkowski.cuda.USUAL_PLACES", (tmp_path,))
    monkeypatch.setattr(sys, "path", [str(tmp_path)])
    with pytest.raises(InstallError, match=r"no nvcc.*not on PATH.*\[nvcc\]==13.2.*--cpu"):
        find_nvcc("13.2")
    nvcc = tmp_path / "nvidia" / "cu13" / "bin" / "nvcc"
    nvcc.parent.mkdir(parents=True)
    nvcc.touch()
    assert find_nvcc("13.2") == nvcc  # as `pip install cuda-toolkit[nvcc]` lays it down


@needs_nvcc
def test_no_nvcc_where_the_toolkit_is_gone(tmp_path) -> None:
    # Here nvcc on PATH is a script that calls the toolkit's, which is not there any more.
    said = hiding([find_toolkit(torch.version.cuda).home], tmp_path / "empty",
                  [sys.executable, SCRIPT, "--cuda", "--arch", "9.0", "--wheel-dir", tmp_path])
    assert "no nvcc" in said or "--version tells no version" in said  # fmt: skip


def test_cuda_home_without_nvcc(tmp_path) -> None:
    if torch.version.cuda is None:
        pytest.skip("this torch has no CUDA")
    said = install("--cuda", "--arch", "9.0", "--wheel-dir", tmp_path, CUDA_HOME=str(tmp_path))
    assert f"CUDA_HOME is {tmp_path}, and there is no {tmp_path}/bin/nvcc" in said


def test_torch_without_cuda() -> None:
    with pytest.raises(InstallError, match=r"this torch is built for the CPU.*--cpu"):
        find_toolkit(None)


@pytest.mark.parametrize(("version", "says"), [
    ("release 11.8, V11.8.89", "is of CUDA 11.8 and torch was built with CUDA"),
    ("nothing of use", "tells no version"),
])  # fmt: skip
def test_nvcc_of_another_major_version(tmp_path, monkeypatch, version, says) -> None:
    nvcc = tmp_path / "bin" / "nvcc"
    nvcc.parent.mkdir()
    nvcc.write_text(f"#!/bin/sh\necho 'Cuda compilation tools, {version}'\n")
    nvcc.chmod(0o755)
    monkeypatch.setenv("CUDA_HOME", str(tmp_path))
    with pytest.raises(InstallError, match=says):
        find_toolkit(torch.version.cuda or "13.2")


def test_cuda_without_a_gpu_needs_an_architecture(tmp_path) -> None:
    if torch.version.cuda is None or torch.cuda.is_available():
        pytest.skip("needs a torch with CUDA and no GPU")
    assert "needs the compute capability" in install("--cuda", "--wheel-dir", tmp_path)


@needs_nvcc
@pytest.mark.parametrize("arch", ["3.5", "sm_90", "90"])
def test_an_architecture_that_nvcc_does_not_know(arch) -> None:
    toolkit = find_toolkit(torch.version.cuda)
    check_arches(["9.0", "9.0+PTX", "9.0a"], toolkit)
    with pytest.raises(InstallError, match=f"does not compile for compute capability '{arch}'"):
        check_arches([arch], toolkit)


@needs_nvcc
@pytest.mark.parametrize(("library", "file"), [
    ("cusparse", "include/cusparse.h"),
    ("cublas", "include/cublas_v2.h"),
    ("cusolver", "include/cusolverDn.h"),
    ("cusparse", "lib/libcusparse.so.*"),
])  # fmt: skip
def test_a_missing_header_or_library_names_its_package(tmp_path, monkeypatch, library, file):
    """A copy of the pip packages' folder without one file, beside a toolkit that lacks it too."""
    toolkit = find_toolkit(torch.version.cuda)
    home, packages = tmp_path / "toolkit", tmp_path / "site" / "nvidia" / "all"
    for folder in ("include", "lib"):
        (packages / folder).mkdir(parents=True)
        (home / folder).mkdir(parents=True)
    names = ("cublas", "cusparse", "cusolver", "libcusparse.so", "libcudart.so")
    held = [toolkit.home, *(path for entry in sys.path for path in Path(entry).glob("nvidia/*"))]
    for source in held:
        for found in [*source.glob("include/cu*.h"), *source.glob("lib/lib*.so.*")]:
            link = packages / found.parent.name / found.name
            if found.name.startswith(names) and not link.exists():
                link.symlink_to(found)
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    gather(toolkit._replace(home=home), scratch_in(tmp_path / "whole"), torch.version.cuda)
    removed = list(packages.glob(file))
    assert removed
    for path in removed:
        path.unlink()
    with pytest.raises(InstallError, match=f"pip install nvidia-{library}") as caught:
        gather(toolkit._replace(home=home), scratch_in(tmp_path), torch.version.cuda)
    assert Path(file).name.removesuffix(".*") in str(caught.value)
    assert f'"cuda-toolkit[{library}]=={torch.version.cuda}.*"' in str(caught.value)
    with pytest.raises(InstallError, match=f"pip install nvidia-{library}-cu12"):
        gather(toolkit._replace(home=home), scratch_in(tmp_path / "twelve"), "12.8")


@needs_nvcc
def test_what_the_toolkit_lacks_is_linked_and_nothing_else(tmp_path) -> None:
    toolkit, scratch = find_toolkit(torch.version.cuda), scratch_in(tmp_path)
    gather(toolkit, scratch, torch.version.cuda)
    for link in (scratch / "include").iterdir():
        assert link.exists()
        assert not (toolkit.home / "include" / link.name).exists()
    assert (toolkit.home / "lib64" / "libcusparse.so").exists() or (
        scratch / "lib" / "libcusparse.so"
    ).exists()


PREPARE = """
import sys
from pathlib import Path
from geonorm.minkowski.host import InstallError, prepare_blas
try:
    prepare_blas("openblas", Path(sys.argv[1]), Path(sys.argv[2]))
except InstallError as error:
    sys.exit(str(error))
"""


def test_no_openblas(tmp_path) -> None:
    include = subprocess.run(["c++", "-print-multiarch"], capture_output=True, text=True)
    folders = [Path("/usr", kind, include.stdout.strip(), "openblas-pthread")
               for kind in ("include", "lib")]  # fmt: skip
    if not all(folder.is_dir() for folder in folders):
        pytest.skip("needs Debian's libopenblas-dev, to hide it")
    said = hiding(folders, tmp_path / "empty",
                  [sys.executable, "-c", PREPARE, scratch_in(tmp_path), TORCH_LIB])  # fmt: skip
    assert "no OpenBLAS" in said
    assert "apt-get install libopenblas-dev" in said
    assert "--blas torch" in said


def test_a_torch_without_a_blas(tmp_path) -> None:
    scratch = scratch_in(tmp_path)
    prepare_blas("torch", scratch, TORCH_LIB)
    (tmp_path / "libtorch_cpu.so").write_text("INPUT()\n")
    with pytest.raises(InstallError, match="holds no BLAS that can be linked"):
        prepare_blas("torch", scratch, tmp_path)


def test_no_compiler(monkeypatch, tmp_path) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler -O2")
    with pytest.raises(InstallError, match=r"no C\+\+ compiler: 'no-such-compiler -O2'.*g\+\+"):
        prepare_blas("openblas", scratch_in(tmp_path), TORCH_LIB)


@pytest.mark.parametrize("compiler", ["c++", "nvcc"])
def test_a_compiler_killed_for_memory(tmp_path, compiler) -> None:
    """The kernel ends a process that takes too much by signal 9; here the test does."""
    if shutil.which(compiler) is None:
        pytest.skip(f"no {compiler}")
    pipe = tmp_path / "endless.h"
    os.mkfifo(pipe)
    (tmp_path / "file.cu").write_text(f'#include "{pipe}"\n')
    killer = subprocess.Popen([sys.executable, "-c", KILLER, str(pipe)])
    try:
        with pytest.raises(InstallError, match=r"ran out of memory[\s\S]*--jobs 2$"):
            Runner(tmp_path / "log", jobs=4).run(
                [compiler, "-x", "c++" if compiler == "c++" else "cu", "-c", f"{tmp_path}/file.cu",
                 "-o", f"{tmp_path}/file.o"]
            )  # fmt: skip
    finally:
        killer.send_signal(signal.SIGTERM)
        killer.wait()


# Opens the pipe to write once a compiler reads it, and kills that reader: the process that has it
# open and is not this one.
KILLER = """
import os, signal, sys, time
pipe = open(sys.argv[1], "w")
time.sleep(0.3)
for process in filter(str.isdigit, os.listdir("/proc")):
    try:
        held = [os.readlink(f"/proc/{process}/fd/{fd}") for fd in os.listdir(f"/proc/{process}/fd")]
    except OSError:
        continue
    if sys.argv[1] in held and int(process) != os.getpid():
        os.kill(int(process), signal.SIGKILL)
time.sleep(60)
"""


def test_a_compiler_that_may_take_no_more_memory(tmp_path) -> None:
    if shutil.which("prlimit") is None or shutil.which("c++") is None:
        pytest.skip("needs prlimit and c++")
    (tmp_path / "file.cpp").write_text("#include <regex>\nstd::regex r;\n")
    command = ["prlimit", f"--as={60 * 2**20}", "c++", "-c", f"{tmp_path}/file.cpp", "-o",
               f"{tmp_path}/file.o"]  # fmt: skip
    with pytest.raises(InstallError, match=r"ran out of memory[\s\S]*--jobs 1$"):
        Runner(tmp_path / "log", jobs=1).run(command)


@pytest.mark.parametrize(("code", "says"), [
    ("#include <no_such_place/cblas.h>", "apt-get install libopenblas-dev"),
    ("#include <no_such_place/Python.h>", "apt-get install python3-dev"),
    ("#include <no_such_place/cusparse.h>", "the installer with --cuda"),
])  # fmt: skip
def test_a_header_missed_by_the_build_itself(tmp_path, code, says) -> None:
    (tmp_path / "file.cpp").write_text(code + "\n")
    with pytest.raises(InstallError, match=says):
        Runner(tmp_path / "log").run(["c++", "-c", f"{tmp_path}/file.cpp", "-o", os.devnull])


def test_an_unknown_failure_gets_no_advice(tmp_path) -> None:
    (tmp_path / "file.cpp").write_text("int x = no_such_name;\n")
    start = time.monotonic()
    with pytest.raises(InstallError, match=r"no_such_name[\s\S]*The whole log: .*log$"):
        Runner(tmp_path / "log").run(["c++", "-c", f"{tmp_path}/file.cpp", "-o", os.devnull])
    assert time.monotonic() - start < 60
