"""The CUDA side of MinkowskiEngine's build: capabilities, nvcc and libraries."""

import sys
from pathlib import Path

import pytest

from geonorm.minkowski.cuda import Toolkit, check_arches, cuda_environment, find_nvcc, gather
from geonorm.minkowski.running import InstallError
from geonorm.minkowski.source import HEADER

TOOLKIT = Toolkit(Path("/none"), "13.0", ("8.0", "9.0", "10.0"))


def test_compute_capabilities_that_a_compiler_knows() -> None:
    check_arches(["8.0", "10.0a", "9.0+PTX", "9.0f+PTX"], TOOLKIT)
    check_arches(["7.5"], TOOLKIT._replace(arches=()))
    for arch in ("7.5", "90", "sm_90", "9.0b", "19.0"):
        with pytest.raises(InstallError, match=r"nvcc 13\.0 does not .*; it does for 8\.0, 9\.0"):
            check_arches(["9.0", arch], TOOLKIT)
    with pytest.raises(InstallError, match="capability 'sm_75'"):
        check_arches(["sm_75"], TOOLKIT._replace(arches=()))


def test_the_environment_of_a_cuda_build(tmp_path) -> None:
    toolkit = TOOLKIT._replace(home=tmp_path)
    include = f"--pre-include {tmp_path}/s/include/cuda13.h -DCCCL_DISABLE_NVTX"
    told = cuda_environment(toolkit, ["8.0", "9.0"], tmp_path / "s", {})
    assert told == {"CUDA_HOME": str(tmp_path), "TORCH_CUDA_ARCH_LIST": "8.0;9.0",
                    "NVCC_APPEND_FLAGS": include, "CPATH": ""}  # fmt: skip
    (tmp_path / "include" / "cccl").mkdir(parents=True)
    before = {"NVCC_APPEND_FLAGS": "-O1", "CPATH": "/mine"}
    told = cuda_environment(toolkit, [], tmp_path / "s", before)
    assert told["NVCC_APPEND_FLAGS"] == f"-O1 {include}"
    assert told["CPATH"] == f"/mine:{tmp_path}/include/cccl"


def test_nvcc_is_looked_for_in_this_order(tmp_path, monkeypatch) -> None:
    folders = {}
    for name in ("home", "path", "search", "usual"):
        folders[name] = tmp_path / name / "bin"
        folders[name].mkdir(parents=True)
        (folders[name] / "nvcc").touch(mode=0o755)
    monkeypatch.setattr("geonorm.minkowski.cuda.USUAL_PLACES", (tmp_path / "usual",))
    monkeypatch.setenv("CUDA_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("CUDA_PATH", str(tmp_path / "path"))
    monkeypatch.setenv("PATH", str(folders["search"]))
    for name, gone in (("home", "CUDA_HOME"), ("path", "CUDA_PATH"), ("search", "PATH")):
        assert find_nvcc("13.0") == folders[name] / "nvcc"
        monkeypatch.delenv(gone)
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_nvcc("13.0") == folders["usual"] / "nvcc"
    monkeypatch.setenv("CUDA_PATH", str(tmp_path))
    with pytest.raises(InstallError, match=rf"CUDA_PATH is {tmp_path}, and there is no"):
        find_nvcc("13.0")


def test_what_a_toolkit_lacks_is_linked_from_pip_packages(tmp_path, monkeypatch) -> None:
    home, scratch = tmp_path / "home", tmp_path / "scratch"
    packages = tmp_path / "site" / "nvidia"
    for folder in (scratch / "include", scratch / "lib", home / "include", home / "lib64"):
        folder.mkdir(parents=True)
    files = [home / "include/cublas_v2.h", home / "lib64/libcudart.so"]
    for file in ("a/include/cusparse.h", "a/include/cusparse_v2.h", "a/include/cudart.h",
                 "b/include/cusolverDn.h", "b/lib/libcusparse.so.12",
                 "b/lib/libcudart.so.13"):  # fmt: skip
        files.append(packages / file)
    for file in files:
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    gather(TOOLKIT._replace(home=home), scratch, "13.0")
    assert {file.name for file in (scratch / "include").iterdir()} == {
        HEADER.name, "curand.h", "cusparse.h", "cusparse_v2.h", "cusolverDn.h",
    }  # fmt: skip
    assert [file.name for file in (scratch / "lib").iterdir()] == ["libcusparse.so"]
    assert (scratch / "lib/libcusparse.so").resolve() == packages / "b/lib/libcusparse.so.12"
    assert not (scratch / "include/curand.h").is_symlink()
    for gone in ("home/include/cublas_v2.h", "home/lib64/libcudart.so",
                 "site/nvidia/b/lib/libcudart.so.13"):  # fmt: skip
        (tmp_path / gone).unlink()
    for version, suffix in (("13.0", ""), ("12.8", "-cu12"), ("14.1", "")):
        again = tmp_path / version
        (again / "include").mkdir(parents=True)
        (again / "lib").mkdir()
        (home / "include/curand.h").touch()
        with pytest.raises(InstallError, match=r"CUDA: cublas_v2\.h, libcudart\.so; ") as said:
            gather(TOOLKIT._replace(home=home), again, version)
        packages_named = f"nvidia-cublas{suffix} nvidia-cuda-runtime{suffix} (of"
        assert f"pip install {packages_named}" in str(said.value)
        assert f'"cuda-toolkit[cublas,cudart]=={version}.*"' in str(said.value)
        assert not (again / "include/curand.h").exists()


def test_libraries_of_the_toolkit_go_before_those_of_packages(tmp_path, monkeypatch) -> None:
    home, scratch, packages = tmp_path / "home", tmp_path / "scratch", tmp_path / "site" / "nvidia"
    files = [home / "include" / name for name in ("cublas_v2.h", "cusparse.h", "cusolverDn.h")]
    files += [home / "lib" / name for name in ("libcudart.so", "libcusparse.so.13",
                                               "libcusparse.so.12")]  # fmt: skip
    files += [packages / "a" / "lib" / name for name in ("libcusparse.so.11", "libcudart.so.13")]
    for file in (*files, scratch / "include" / "x", scratch / "lib" / "x"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()
    monkeypatch.setattr(sys, "path", [str(tmp_path / "site")])
    gather(TOOLKIT._replace(home=home), scratch, "13.0")
    assert sorted(file.name for file in (scratch / "lib").iterdir()) == ["libcusparse.so", "x"]
    assert (scratch / "lib/libcusparse.so").resolve() == home / "lib" / "libcusparse.so.12"
