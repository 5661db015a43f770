"""The CUDA toolkit: where it is, if it fits torch, and what pip packages hold that it lacks."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from geonorm.minkowski.running import InstallError
from geonorm.minkowski.source import HEADER

USUAL_PLACES = (Path("/usr/local/cuda"),)
# A header that MinkowskiEngine or torch's own headers include, and the library it belongs to.
HEADERS = {"cublas_v2.h": "cublas", "cusparse.h": "cusparse", "cusolverDn.h": "cusolver"}
LIBRARIES = ("cusparse", "cudart")
# Included, and nothing in it used: an empty file does, where there is no library of that name.
UNUSED_HEADER = "curand.h"


class Toolkit(NamedTuple):
    """A CUDA toolkit.

    Args:
        home: folder with bin/nvcc and include/.
        version: of nvcc, such as "13.0".
        arches: compute capabilities that it compiles for, such as "9.0".
    """

    home: Path
    version: str
    arches: tuple[str, ...]


def pip_folders() -> list[Path]:
    """Return the folders of NVIDIA's pip packages, each with include/ and lib/, maybe bin/."""
    return [folder for entry in sys.path for folder in sorted(Path(entry).glob("nvidia/*"))]


def find_nvcc(torch_cuda: str) -> Path:
    """Return nvcc: of CUDA_HOME where set, else on PATH, in /usr/local/cuda, or of a pip package.

    Args:
        torch_cuda: version of the CUDA that torch was built with, for the advice.

    Raises:
        InstallError: there is none.
    """
    for name in ("CUDA_HOME", "CUDA_PATH"):
        if home := os.environ.get(name):
            if (nvcc := Path(home) / "bin" / "nvcc").is_file():
                return nvcc
            raise InstallError(
                f"{name} is {home}, and there is no {nvcc}: unset it, or name the folder of a CUDA "
                f"toolkit, such as /usr/local/cuda"
            )
    if on_path := shutil.which("nvcc"):
        return Path(on_path)
    for folder in [*USUAL_PLACES, *pip_folders()]:
        if (nvcc := folder / "bin" / "nvcc").is_file():
            return nvcc
    raise InstallError(
        "no nvcc, the compiler of CUDA: it is not on PATH, nor in "
        f"{' or '.join(map(str, USUAL_PLACES))}, nor in a pip package. Bring it into this "
        f'environment (pip install "cuda-toolkit[nvcc]=={torch_cuda}.*"), or install the CUDA '
        f"toolkit {torch_cuda.split('.')[0]} and name its folder in CUDA_HOME, or build for the "
        "CPU: --cpu"
    )


def _output(command: list[str | Path]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.stdout + done.stderr


def find_toolkit(torch_cuda: str | None) -> Toolkit:
    """Find nvcc and the toolkit it belongs to, and see that torch was built with the same major.

    Args:
        torch_cuda: version of the CUDA that torch was built with.

    Raises:
        InstallError: torch has no CUDA, there is no nvcc, or its major version differs.
    """
    if torch_cuda is None:
        raise InstallError(
            "this torch is built for the CPU: install one with CUDA (pip install torch, without "
            "an index for the CPU), or build for the CPU: --cpu"
        )
    nvcc = find_nvcc(torch_cuda)
    told = _output([nvcc, "--version"])
    version = re.search(r"release (\d+\.\d+)", told)
    if version is None:
        raise InstallError(f"{nvcc} --version tells no version; it said:\n{told}")
    if version[1].split(".")[0] != torch_cuda.split(".")[0]:
        raise InstallError(
            f"{nvcc} is of CUDA {version[1]} and torch was built with CUDA {torch_cuda}: their "
            f"major versions must be the same. Name the folder of a toolkit {torch_cuda} in "
            f"CUDA_HOME, or install a torch for CUDA {version[1].split('.')[0]}"
        )
    # nvcc on PATH may be a link or a script that calls the real one; it says itself where it is.
    top = re.search(r"^#\$ TOP=(.+)$", _output([nvcc, "--dryrun", "none.cu"]), re.MULTILINE)
    home = Path(top[1]).resolve() if top else nvcc.resolve().parents[1]
    listed = re.findall(r"compute_(\d+)(\d)\b", _output([nvcc, "--list-gpu-arch"]))
    return Toolkit(home, version[1], tuple(f"{major}.{minor}" for major, minor in listed))


def check_arches(arches: Iterable[str], toolkit: Toolkit) -> None:
    """Refuse what is no compute capability, or one that nvcc cannot compile for."""
    for arch in arches:
        plain = re.fullmatch(r"(\d+\.\d)[af]?(\+PTX)?", arch)
        if plain is None or (toolkit.arches and plain[1] not in toolkit.arches):
            raise InstallError(
                f"nvcc {toolkit.version} does not compile for compute capability {arch!r}; it "
                f"does for {', '.join(toolkit.arches)}"
            )


def gather(toolkit: Toolkit, scratch: Path, torch_cuda: str) -> None:
    """Link what the toolkit lacks, from pip packages, into scratch's `include` and `lib`.

    Only what is missing: the packages may be newer than nvcc, and headers of two versions do not
    mix. The packages hold libcusparse.so.12 and no libcusparse.so, which `-lcusparse` needs.

    Raises:
        InstallError: something is in neither; the message names the packages.
    """
    include, lib = scratch / "include", scratch / "lib"
    shutil.copy(HEADER, include)
    if not (toolkit.home / "include" / UNUSED_HEADER).exists():
        (include / UNUSED_HEADER).touch()
    missing = dict(_link_headers(toolkit, include))
    missing |= dict(_link_libraries(toolkit, lib))
    if missing:
        names = sorted(set(missing.values()))
        major = int(torch_cuda.split(".")[0])
        suffix = "" if major >= 13 else f"-cu{major}"
        packages = " ".join(f"nvidia-{name.replace('cudart', 'cuda-runtime')}{suffix}"
                            for name in names)  # fmt: skip
        raise InstallError(
            f"missing from CUDA: {', '.join(missing)}; looked in {toolkit.home} and in NVIDIA's "
            f"pip packages. These packages hold them: pip install {packages} (of the versions that "
            f'go with torch\'s CUDA: pip install "cuda-toolkit[{",".join(names)}]=={torch_cuda}.*")'
        )


def _link_headers(toolkit: Toolkit, include: Path) -> Iterator[tuple[str, str]]:
    """Link each family of headers that the toolkit lacks; yield those that are nowhere."""
    for header, family in HEADERS.items():
        if (toolkit.home / "include" / header).is_file():
            continue
        holder = next((f for f in pip_folders() if (f / "include" / header).is_file()), None)
        if holder is None:
            yield header, family
            continue
        for file in (holder / "include").glob(f"{family}*"):
            (include / file.name).symlink_to(file)


def _link_libraries(toolkit: Toolkit, lib: Path) -> Iterator[tuple[str, str]]:
    """Link each library that the toolkit lacks by the name a linker wants; yield the missing."""
    for name in LIBRARIES:
        if any((toolkit.home / each / f"lib{name}.so").exists() for each in ("lib64", "lib")):
            continue
        versioned = (file for folder in [toolkit.home, *pip_folders()]
                     for file in sorted((folder / "lib").glob(f"lib{name}.so.*")))  # fmt: skip
        found = next(versioned, None)
        if found is None:
            yield f"lib{name}.so", name
        else:
            (lib / f"lib{name}.so").symlink_to(found)


def cuda_environment(
    toolkit: Toolkit, arches: Iterable[str], scratch: Path, environment: Mapping[str, str]
) -> dict[str, str]:
    """Return the variables of a CUDA build, for torch's builder, nvcc and the host compiler.

    Args:
        toolkit: of nvcc.
        arches: compute capabilities.
        scratch: folder with `include` and `lib`.
        environment: what to add to.
    """
    # CCCL's own NVTX, which thrust includes, clashes with the copy in MinkowskiEngine's source.
    flags = f"--pre-include {scratch / 'include' / HEADER.name} -DCCCL_DISABLE_NVTX"
    cccl = toolkit.home / "include" / "cccl"
    # nvcc knows this folder; the host compiler, which has a few of the files, does not.
    paths = [str(cccl)] if cccl.is_dir() else []
    return {
        "CUDA_HOME": str(toolkit.home),
        "TORCH_CUDA_ARCH_LIST": ";".join(arches),
        "NVCC_APPEND_FLAGS": f"{environment.get('NVCC_APPEND_FLAGS', '')} {flags}".strip(),
        "CPATH": os.pathsep.join(filter(None, [environment.get("CPATH"), *paths])),
    }
