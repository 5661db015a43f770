"""The C++ compiler and the BLAS that MinkowskiEngine's CPU side is built with."""

import os
import shutil
import subprocess
from pathlib import Path

from geonorm.minkowski.running import InstallError

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


def host_compiler() -> str:
    """Return the C++ compiler: CXX, or c++ as torch's builder takes it."""
    compiler = os.environ.get("CXX", "c++")
    if not compiler.split() or shutil.which(compiler.split()[0]) is None:
        raise InstallError(
            f"no C++ compiler: {compiler!r} is not on PATH. Install one (apt-get install g++), or "
            f"name yours in CXX"
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
    raise InstallError(
        "no OpenBLAS: a file that includes cblas.h does not compile and link with -lopenblas. "
        "Install it (apt-get install libopenblas-dev), or build on the matrix products inside "
        f"torch: --blas torch. The compiler said:\n{done.stderr}"
    )
