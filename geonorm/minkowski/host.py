"""Find the C++ compiler, Python's headers and the BLAS that MinkowskiEngine is built with."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

from geonorm.minkowski.running import InstallError, MissingPackageError

TORCH_BLAS = Path(__file__).with_name("torch_blas")
_PROBE = """
extern "C" {
#include <cblas.h>
}
float probe(float* c) {
  cblas_sgemm(CblasColMajor, CblasNoTrans, CblasTrans, 1, 1, 1, 1.0f, c, 1, c, 1, 0.0f, c, 1);
  return *c;
}
"""


def check_host(blas: str, scratch: Path, torch_lib: Path) -> None:
    """Lay out the BLAS in scratch, or refuse, naming at once all that this machine lacks.

    Args:
        blas, scratch, torch_lib: as of `prepare_blas`.

    Raises:
        InstallError: something is missing; the message ends with Debian's packages that hold it.
    """
    lacking: list[MissingPackageError] = []
    for check in (host_compiler, python_headers, lambda: prepare_blas(blas, scratch, torch_lib)):
        try:
            check()
        except MissingPackageError as error:
            lacking.append(error)
    packages = {error.package for error in lacking}
    if "g++" in packages and blas == "openblas":
        packages.add("libopenblas-dev")  # which nothing but a compiler can look for
    if packages:
        reasons = dict.fromkeys(str(error) for error in lacking)
        raise InstallError(
            "\n".join(reasons)
            + f"\nOn Debian and Ubuntu: apt-get install {' '.join(sorted(packages))}"
        )


def python_headers() -> Path:
    """Return Python.h, without which no extension compiles.

    Raises:
        MissingPackageError: it is missing.
    """
    header = Path(sysconfig.get_path("include"), "Python.h")
    if not header.is_file():
        raise MissingPackageError(
            f"Python's own headers are missing: no {header} (apt-get install python3-dev)",
            "python3-dev",
        )
    return header


def host_compiler() -> str:
    """Return the C++ compiler: CXX, or c++ as torch's builder takes it.

    Raises:
        MissingPackageError: it is not on PATH.
    """
    compiler = os.environ.get("CXX", "c++")
    if not compiler.split() or shutil.which(compiler.split()[0]) is None:
        raise MissingPackageError(
            f"no C++ compiler: {compiler!r} is not on PATH. Install one (apt-get install g++), or "
            f"name yours in CXX",
            "g++",
        )
    return compiler


def prepare_blas(blas: str, scratch: Path, torch_lib: Path) -> None:
    """Lay out what the chosen BLAS needs in scratch, and see that it compiles and links.

    Args:
        blas: "openblas", or "torch" for the products inside libtorch_cpu.
        scratch: its folders `include` and `lib` are searched by the build.
        torch_lib: folder of torch's libraries.

    Raises:
        InstallError: it is missing.
    """
    include, lib = scratch / "include", scratch / "lib"
    if blas == "torch":
        shutil.copy(TORCH_BLAS / "cblas.h", include)
        # MinkowskiEngine's setup script knows OpenBLAS by name: a linker script of that name.
        (lib / "libopenblas.so").write_text(f"INPUT({torch_lib / 'libtorch_cpu.so'})\n")
    done = subprocess.run(
        [*host_compiler().split(), "-x", "c++", "-", "-shared", "-fPIC", "-Wl,-z,defs",
         f"-I{include}", f"-L{lib}", "-lopenblas", "-o", scratch / "blas_probe.so"],
        input=_PROBE, capture_output=True, text=True, check=False,
    )  # fmt: skip
    if done.returncode == 0:
        return
    if blas == "torch":
        raise InstallError(f"this torch holds no BLAS that can be linked:\n{done.stderr}")
    raise MissingPackageError(
        "no OpenBLAS: a file that includes cblas.h does not compile and link with -lopenblas. "
        "Install it (apt-get install libopenblas-dev), or build on the matrix products inside "
        f"torch: --blas torch. The compiler said:\n{done.stderr}",
        "libopenblas-dev",
    )
