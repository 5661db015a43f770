"""Packaging that pyproject.toml cannot express: the mapped packages and the optional C++ extension."""

import os
import sys
from pathlib import Path

from setuptools import setup

SOURCES = sorted(str(path) for path in Path("geonorm/csrc").glob("*.cpp"))


def cpp_extension():
    """Return the build arguments of geonorm._C, or none (said loudly) where it cannot be built."""
    if not SOURCES or os.environ.get("GEONORM_NO_EXTENSION") == "1":
        return {}
    try:
        from torch.utils.cpp_extension import BuildExtension, CppExtension
    except ImportError as error:
        print(f"geonorm: the C++ kernels are not built, torch is not importable here: {error}",
              file=sys.stderr)
        return {}
    extension = CppExtension(
        "geonorm._C", SOURCES, extra_compile_args=["-O3", "-fopenmp"], extra_link_args=["-fopenmp"]
    )
    extension.optional = True
    return {"ext_modules": [extension], "cmdclass": {"build_ext": BuildExtension}}


setup(
    packages=["geonorm", "geonorm.norms", "geonorm.ops", "geonorm.ops.segment_norm",
              "geonorm.ops.axis_norm", "geonorm.models", "geonorm.datasets"],
    package_dir={"geonorm": "geonorm", "geonorm.models": "models", "geonorm.datasets": "datasets"},
    package_data={"geonorm": ["py.typed"]},
    **cpp_extension(),
)
