"""Packaging that pyproject.toml cannot express: the mapped packages and the optional C++ extension.

Where the extension cannot be built the install goes on, says why on stderr (pip shows it with -v),
and leaves the reason in geonorm/_C_missing.txt, which geonorm.backends() repeats.
GEONORM_NO_EXTENSION=1 skips it on purpose.
"""

import os
import shutil
import sys
from pathlib import Path

from setuptools import Extension, find_packages, setup
from setuptools.command.build_ext import build_ext
from setuptools.errors import BaseError, CCompilerError

try:
    import torch
    from torch.utils.cpp_extension import BuildExtension, CppExtension
except ImportError as error:
    BuildExtension, CppExtension, NO_TORCH = build_ext, Extension, str(error)
else:
    NO_TORCH = None

# FMA where the machine has it (GCC's default), errno left alone; the vector types pass no ABI. Of
# torch's headers for its operators, which take long to read, only those that a file names.
FLAGS = ["-O3", "-g0", "-fopenmp", "-ffp-contract=fast", "-fno-math-errno", "-Wno-psabi",
         "-DAT_PER_OPERATOR_HEADERS"]
SOURCES = sorted(str(path) for path in Path("geonorm/csrc").glob("*.cpp"))
HEADERS = sorted(str(path) for path in Path("geonorm/csrc").glob("*.h"))


def obstacle():
    """Return what is missing before the compiler is even started, or None."""
    if os.environ.get("GEONORM_NO_EXTENSION") == "1":
        return "GEONORM_NO_EXTENSION=1 was set when geonorm was installed"
    if NO_TORCH is not None:
        return f"torch could not be imported when geonorm was installed: {NO_TORCH}"
    compiler = os.environ.get("CXX", "c++").split()[0]
    if shutil.which(compiler) is None:
        return (f"no C++ compiler: {compiler!r} was not found when geonorm was installed (on "
                "Debian: apt-get install g++), then install geonorm anew")
    return None


class OptionalExtension(BuildExtension):
    """Builds geonorm._C, or says loudly why not and leaves the reason in the package."""

    def build_extensions(self):
        reason = obstacle()
        if reason is None:
            try:
                super().build_extensions()
            except (BaseError, CCompilerError, RuntimeError, OSError) as error:
                reason = f"compiling it failed when geonorm was installed: {error}"
        in_place = self.inplace or getattr(self, "editable_mode", False)
        note = Path("." if in_place else self.build_lib, "geonorm", "_C_missing.txt")
        note.unlink(missing_ok=True)
        built_for = note.with_name("_C_torch.txt")  # which geonorm doctor compares
        built_for.unlink(missing_ok=True)
        if reason is not None:
            print(f"geonorm: THE C++ KERNELS ARE NOT BUILT, the slow reference will run: {reason}",
                  file=sys.stderr)
            note.parent.mkdir(parents=True, exist_ok=True)
            note.write_text(f"{reason}\n", encoding="utf-8")
        else:
            built_for.write_text(f"{torch.__version__}\n", encoding="utf-8")


def extension():
    """Return geonorm._C, which setuptools lets fail."""
    built = CppExtension("geonorm._C", SOURCES, depends=HEADERS, extra_compile_args=FLAGS,
                         extra_link_args=["-fopenmp"])
    built.optional = True
    return built


setup(
    packages=[*find_packages(include=["geonorm", "geonorm.*"]),
              "geonorm.models", "geonorm.datasets", "geonorm.datasets.synthetic"],
    package_dir={"geonorm": "geonorm", "geonorm.models": "models", "geonorm.datasets": "datasets"},
    package_data={"geonorm": ["py.typed"], "geonorm.training": ["configs/*.yaml"],
                  "geonorm.looking": ["*.css", "*.js"],
                  "geonorm.datasets": ["label_maps/*.toml"],
                  "geonorm.minkowski": ["cuda13.h", "torch_blas/cblas.h"]},
    include_package_data=False,  # the sources of the extension stay out of the wheel
    ext_modules=[extension()],
    cmdclass={"build_ext": OptionalExtension},
)
