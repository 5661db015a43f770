"""Backends: what is present is said, what is missing is explained, and nothing falls back."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.autograd import forward_ad

import geonorm
from geonorm.ops import axis_norm as clips
from geonorm.ops import backends as module
from geonorm.ops import segment_norm as segments

ROOT = Path(__file__).resolve().parents[2]
KERNELS = str(getattr(importlib.util.find_spec("geonorm._C"), "origin", None))
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


NO_TRITON = "\n".join([
    "import sys",
    "sys.modules['triton'] = None",
    "import geonorm",
    "print(geonorm.backends()['triton'])",
    "geonorm.force_backend('triton')",
])
NO_CUDA = "\n".join([
    "import torch, geonorm",
    "print(geonorm.backends()['triton'])",
    "geonorm.force_backend('triton')",
])


WITHOUT_CPP = OTHER[: OTHER.index("import geonorm")] + "\n".join([
    "import pytest",
    "sys.exit(pytest.main(['-q', '-p', 'no:cacheprovider', *sys.argv[1:]]))",
])


def output_of(program, **environment):
    environment = {k: v for k, v in os.environ.items() if k != "TRITON_INTERPRET"} | environment
    return subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=False, env=environment)


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


def test_an_instruction_set_that_is_not_there():
    if geonorm.backends()["cpp"] != "available":
        pytest.skip(geonorm.backends()["cpp"])
    kernels = importlib.import_module("geonorm._C")
    best = kernels.instruction_set()
    with pytest.raises(ValueError, match=f"this machine has no avx1024, its best is {best}"):
        kernels.instruction_set("avx1024")
    assert kernels.instruction_set() == best


@pytest.mark.slow
def test_an_extension_built_for_another_torch_is_explained():
    program = [sys.executable, "-c", OTHER]
    done = subprocess.run(program, capture_output=True, text=True, check=False)
    assert "built for another Python or torch, install geonorm anew" in done.stdout
    assert "ValueError: backend 'cpp' is missing" in done.stderr


def test_an_extension_built_for_other_operators_is_explained():
    if geonorm.backends()["cpp"] != "available":
        pytest.skip(geonorm.backends()["cpp"])
    program = "\n".join([
        "import importlib.util, torch",
        "library = torch.library.Library('geonorm', 'DEF')",
        "library.define('segment_norm(Tensor rows) -> Tensor')",
        f"found = importlib.util.spec_from_file_location('geonorm._C', {KERNELS!r})",
        "importlib.util.module_from_spec(found)",
    ])
    done = output_of(program)
    assert done.returncode == 1, done.stderr  # not killed by a signal
    assert "ImportError: " in done.stderr
    assert "segment_norm" in done.stderr


@pytest.mark.long
def test_derivatives_without_the_extension():
    """Their rule is then in Python; with the extension it is csrc/autograd.cpp's."""
    tests = [f"tests/ops/test_{op}_norm_{what}" for op in ("segment", "axis") for what in (
        "autograd.py", "residual.py::test_gradcheck_and_gradgradcheck",
        "residual.py::test_opcheck_and_one_graph",
        "residual.py::test_a_result_that_the_gradient_needs_may_not_be_changed")]
    done = subprocess.run([sys.executable, "-c", WITHOUT_CPP, *tests], cwd=ROOT,
                          capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    passed, skipped = (int(re.search(rf"(\d+) {word}", done.stdout)[1])
                       for word in ("passed", "skipped"))
    assert passed >= 20
    assert skipped >= 20  # what asks for the extension


@pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated")  # torch.forward_ad calls it
def test_forward_mode_is_refused_not_zero():
    index = torch.tensor([0, 0, 1])
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(torch.randn(3, 2), torch.ones(3, 2))
        with pytest.raises(RuntimeError, match="jvp is not implemented"):
            geonorm.functional.instance_norm(dual, index, 2)
        with pytest.raises(RuntimeError, match="Nested forward mode AD is not supported"):
            segments.segment_stats(dual, index, 2, None, 2)


def test_where_triton_is_not_installed_that_is_the_reason():
    done = output_of(NO_TRITON)
    assert "triton, which CUDA builds of torch bring along, cannot be imported" in done.stdout
    assert "ValueError: backend 'triton' is missing: triton, which CUDA" in done.stderr


@pytest.mark.slow
def test_triton_needs_a_cuda_device_or_its_interpreter():
    pytest.importorskip("triton")
    done = output_of(NO_CUDA, CUDA_VISIBLE_DEVICES="")
    assert "torch sees no CUDA device; TRITON_INTERPRET=1, set before" in done.stdout
    assert "ValueError: backend 'triton' is missing: torch sees no CUDA device" in done.stderr
    done = output_of(NO_CUDA, CUDA_VISIBLE_DEVICES="", TRITON_INTERPRET="1")
    assert (done.stdout, done.stderr) == ("available\n", "")


def ran():
    """Return which backend each of the five operators ran on, on the CPU, by their traces.

    The reference shifts by the first value, the compiled kernels by a number near the mean, and
    the two add up in another order.
    """
    x = torch.randn(1, 1, 3000, generator=torch.Generator().manual_seed(1))
    x[0, 0, 0] = 50
    rows, index, ops = x[0, 0, :, None], torch.zeros(3000, dtype=torch.long), torch.ops.geonorm
    of_rows = ops.segment_norm(rows, index, 1, None, None, None, 1, 1e-5, "none", 0.0)
    of_axes = ops.axis_norm(x, [2], None, None, 1e-5, "none", 0.0)
    grads = (
        ops.segment_norm_backward(rows.sin(), rows, index, *of_rows[1:], None, None, None, 1,
                                  "none", 0.0)[0],
        ops.axis_norm_backward(x.sin(), x, *of_axes[1:], [2], None, None, "none", 0.0)[0],
        ops.segment_stats(rows, index, 1, None, 1)[1])
    by_reference = (
        segments.backward(rows.sin(), rows, index, *of_rows[1:], None, None, None, 1, "none", 0.0),
        clips.backward(x.sin(), x, *of_axes[1:], [2], None, None, "none", 0.0),
        segments.statistics(rows, index, 1, None, 1)[2:])
    traces = [bool(of_rows[1] == 50), bool(of_axes[1] == 50),
              *(torch.equal(g, r[0]) for g, r in zip(grads, by_reference, strict=True))]
    return ["reference" if trace else "cpp" for trace in traces]


def test_a_backend_is_forced_at_once_and_until_its_block_ends():
    if geonorm.backends()["cpp"] != "available":
        pytest.skip(geonorm.backends()["cpp"])
    cpp, reference = ["cpp"] * 5, ["reference"] * 5
    assert ran() == cpp
    with geonorm.force_backend("reference"):
        assert ran() == reference
        with geonorm.force_backend("cpp"):
            assert ran() == cpp
        assert ran() == reference
        with geonorm.force_backend(None):
            assert ran() == cpp
        assert ran() == reference
    assert ran() == cpp
    geonorm.force_backend("reference")
    assert ran() == reference  # a call holds on
    geonorm.force_backend(None)
    assert ran() == cpp
    with pytest.raises(RuntimeError, match="on the way"), geonorm.force_backend("reference"):
        raise RuntimeError("on the way")
    assert ran() == cpp


def test_a_name_that_cannot_be_forced_changes_nothing():
    with geonorm.force_backend("reference"):
        with pytest.raises(ValueError, match="backend must be one of"):
            geonorm.force_backend("cuda")
        assert module.backend_for(torch.device("cpu")) == "reference"


def test_values_are_checked_until_the_block_ends():
    def checked():
        return module.checks_values(torch.device("cuda"))

    assert not checked()
    with geonorm.validate(True):
        assert checked()
        with geonorm.validate(False):
            assert not checked()
        assert checked()
    assert not checked()
    geonorm.validate(True)
    assert checked()  # a call holds on
    geonorm.validate(False)
    assert not checked()
    assert module.checks_values(torch.device("cpu"))


def test_the_reference_runs_when_forced():
    with geonorm.force_backend("reference"):
        assert module.backend_for(torch.device("cpu")) == "reference"
        assert module.backend_for(torch.device("cuda")) == "reference"


def test_without_a_wish_each_device_has_the_fastest_backend_that_is_present():
    for device, fastest in (("cpu", "cpp"), ("cuda", "triton"), ("meta", "triton")):
        there = geonorm.backends()[fastest] == "available"
        expected = fastest if there else "reference"
        assert module.backend_for(torch.device(device)) == expected, device


def test_a_backend_of_another_device_is_refused():
    if geonorm.backends()["cpp"] != "available":
        pytest.skip(geonorm.backends()["cpp"])
    with geonorm.force_backend("cpp"):
        rows, index = (torch.zeros(s, device="meta") for s in ((3, 2), 3))
        assert module.backend_for(torch.device("cpu")) == "cpp"
        with pytest.raises(ValueError, match="'cpp' is forced and runs on cpu tensors; got"):
            module.backend_for(torch.device("cuda"))
        out = geonorm.functional.instance_norm(rows, index.long(), 1)
        assert out.shape == (3, 2)  # shapes alone need no kernel
