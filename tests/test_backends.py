"""Backends: what is present is said, what is missing is explained, and nothing falls back."""

import subprocess
import sys

import pytest
import torch

import geonorm
from geonorm.ops import backends as module

OTHER = "\n".join([
    "import sys, importlib.abc, importlib.machinery",
    "class Broken(importlib.abc.MetaPathFinder, importlib.abc.Loader):",
    "    def find_spec(self, name, path, target=None):",
    "        return importlib.machinery.ModuleSpec(name, self) if name == 'geonorm._C' else None",
    "    def exec_module(self, module):",
    "        raise ImportError('undefined symbol: at_something')",
    "sys.meta_path.insert(0, Broken())",
    "import geonorm",
    "print(geonorm.backends()['cpp'])",
    "geonorm.force_backend('cpp')",
])


def test_each_backend_is_present_or_explained():
    found = geonorm.backends()
    assert set(found) == {"cpp", "triton", "reference"}
    assert found["reference"] == "available"
    assert all(reason == "available" or len(reason) > 20 for reason in found.values())


def test_unknown_backend():
    with pytest.raises(ValueError, match=r"\['cpp', 'reference', 'triton'\] or None; got 'cuda'"):
        geonorm.force_backend("cuda")


def test_a_missing_backend_cannot_be_forced():
    missing = [name for name, reason in geonorm.backends().items() if reason != "available"]
    if not missing:
        pytest.skip("every backend is present here")
    for name in missing:
        with pytest.raises(ValueError, match=f"'{name}' is missing: "):
            geonorm.force_backend(name)
    assert module.backend_for(torch.device("cpu")) in ("cpp", "reference")


def test_an_extension_built_for_another_torch_is_explained():
    program = [sys.executable, "-c", OTHER]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert "built for another Python or torch, install geonorm anew" in done.stdout
    assert "ValueError: backend 'cpp' is missing" in done.stderr


def test_the_reference_runs_when_forced():
    geonorm.force_backend("reference")
    try:
        assert module.backend_for(torch.device("cpu")) == "reference"
        assert module.backend_for(torch.device("cuda")) == "reference"
    finally:
        geonorm.force_backend(None)


def test_a_backend_of_another_device_is_refused():
    if geonorm.backends()["cpp"] != "available":
        pytest.skip(geonorm.backends()["cpp"])
    geonorm.force_backend("cpp")
    try:
        rows, index = (torch.zeros(s, device="meta") for s in ((3, 2), 3))
        assert module.backend_for(torch.device("cpu")) == "cpp"
        with pytest.raises(ValueError, match="'cpp' is forced and runs on cpu tensors; got"):
            module.backend_for(torch.device("cuda"))
        out = geonorm.functional.sparse_instance_norm(rows, index.long(), 1)
        assert out.shape == (3, 2)  # shapes alone need no kernel
    finally:
        geonorm.force_backend(None)
