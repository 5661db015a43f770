"""MinkowskiEngine as installed: every module imported, every public function called, no warning."""

import importlib
import pkgutil
import subprocess
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType

import pytest

ME = pytest.importorskip("MinkowskiEngine")
from helpers.minkowski_calls import CALLS  # noqa: E402  (it needs the engine)

# What is not called, and why.
LEFT_OUT = {
    "abstract, or of types alone": (
        "BroadcastMode", "CoordinateMapKey", "CoordinateMapType", "GPUMemoryAllocatorType",
        "KernelRegion", "MinkowskiAlgorithm", "MinkowskiModuleBase", "MinkowskiNetwork",
        "PoolingMode", "RegionType", "SparseTensorOperationMode", "SparseTensorQuantizationMode",
    ),
    "called by what is called": (
        "CoordinateManager", "KernelGenerator", "SparseTensor", "TensorField",
        "convert_region_type", "global_coordinate_manager", "set_global_coordinate_manager",
    ),
    "of a GPU": ("get_gpu_memory_info", "set_gpu_allocator", "set_memory_manager_backend",
                 "print_diagnostics"),
    # These fail with every torch: MinkowskiEngine 0.5.4 itself has left them behind.
    "an old interface": ("CoordsManager", "MinkowskiStableInstanceNorm",
                         "MinkowskiAdaptiveLogSoftmaxWithLoss"),
}  # fmt: skip


def public(module: ModuleType) -> Iterator[str]:
    """Yield what a module offers, but for autograd's functions, which its modules call."""
    for name in dir(module):
        is_function = name.endswith("Function") and name != "Function"
        if callable(getattr(module, name)) and not name.startswith("_") and not is_function:
            yield name


def test_every_module_imports_without_a_warning() -> None:
    names = [module.name for module in pkgutil.walk_packages(ME.__path__, "MinkowskiEngine.")]
    assert "MinkowskiEngine.utils.gradcheck" in names
    code = "\n".join(["import warnings", "warnings.simplefilter('error')",
                      "warnings.filterwarnings('ignore', 'The MinkowskiEngine was compiled')",
                      *(f"import {name}" for name in names)])  # fmt: skip
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_everything_public_is_called() -> None:
    left_out = {name for names in LEFT_OUT.values() for name in names}
    called = {word.removeprefix("functional.") for name in CALLS for word in name.split()}
    missing = {name for module in (ME, ME.utils) for name in public(module)} - called - left_out
    assert not missing
    functional = importlib.import_module("MinkowskiFunctional")
    wrappers = {name for name in public(functional)
                if getattr(functional, name).__module__ == functional.__name__}  # fmt: skip
    assert not wrappers - {name.removeprefix("functional.") for name in CALLS}


@pytest.mark.parametrize("name", [*CALLS])
def test_it_works_without_a_warning(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        CALLS[name]()
