"""Every norm of the family on every kind of input: a loop in float64 as judge, half precision.

What passes makes docs/norms_checked.md; GEONORM_WRITE_DOCS=1 writes it anew.
"""

import copy
import os
from pathlib import Path

import pytest
import torch
from conftest import TOLERANCES, relative_error

from helpers.norm_family_cases import (
    KINDS,
    NORMS,
    build,
    example,
    refill,
    to_rows,
    values,
)

FLOAT32 = TOLERANCES["float32 against float64"]
TABLE = Path(__file__).parents[2] / "docs" / "norms_checked.md"
DONE = set()  # (norm, kind, what) of every test of this run that passed


def by_law(name, norm, features, index, dense):
    """Return the output of the norm's law on the features, in their layout."""
    out = NORMS[name][1](norm, to_rows(features) if dense else features, index)
    if not dense:
        return out
    return out.view(*features.movedim(1, -1).shape).movedim(-1, 1)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NORMS)
def test_output_and_all_gradients(name, kind):
    x, features, index = example(kind)
    norm, exact = build(name), copy.deepcopy(build(name)).double()
    leaf = features.detach().requires_grad_()
    double = features.detach().double().requires_grad_()
    out = norm(refill(x, leaf))
    assert type(out) is type(x)
    law = by_law(name, exact, double, index, isinstance(x, torch.Tensor))
    upstream = torch.randn(features.shape, generator=torch.Generator().manual_seed(9))
    found = torch.autograd.grad(values(out), [leaf, *norm.parameters()], upstream)
    expected = torch.autograd.grad(law, [double, *exact.parameters()], upstream.double())
    assert relative_error(values(out), law) < FLOAT32
    for one, other in zip(found, expected, strict=True):
        assert relative_error(one, other) < FLOAT32
    DONE.add((name, kind, "float32"))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NORMS)
def test_half_precision(name, kind, dtype):
    x, features, index = example(kind)
    half = features.to(dtype)
    norm, exact = build(name), copy.deepcopy(build(name)).double()
    out = values(norm(refill(x, half)))
    assert out.dtype == dtype
    law = by_law(name, exact, half.double(), index, isinstance(x, torch.Tensor))
    assert relative_error(out, law) < 2 * torch.finfo(dtype).eps
    DONE.add((name, kind, str(dtype)))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", NORMS)
def test_state_dict_copies_and_repr(name, kind):
    x, _, _ = example(kind)
    norm, other = build(name).eval(), build(name, seed=3).eval()
    expected = values(norm(x))
    if [*norm.parameters()]:
        assert relative_error(values(other(x)), expected) > 1e-2
    assert not any(other.load_state_dict(norm.state_dict()))
    assert torch.equal(values(other(x)), expected)
    assert torch.equal(values(copy.deepcopy(norm)(x)), expected)
    assert "6" in repr(norm)
    DONE.add((name, kind, "state dict"))



@pytest.mark.parametrize("kind", ["index", "5-D"])
@pytest.mark.parametrize("name", ["InstanceNorm", "InstanceBatchNorm", "BatchNorm",
                                  "GroupNorm", "LayerNorm", "DivisiveNorm", "DivisiveNorm, groups",
                                  "RetinexNorm"])
def test_compiles_into_one_graph(name, kind):
    torch.compiler.reset()
    _, features, index = example(kind)
    norm = build(name)
    rows = () if kind == "5-D" or name in ("BatchNorm", "LayerNorm") else (index,)
    counted = {"num_instances": 3} if rows else {}
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager")
    found = compiled(features, *rows, **counted)
    assert relative_error(found, norm(features, *rows, **counted)) < FLOAT32


@pytest.mark.parametrize("name", NORMS)
def test_only_norms_of_instances_ignore_the_gain_of_one_instance(name):
    x, features, index = example("index")
    gains = torch.tensor([9.0, 1.0, 1.0])[index][:, None]
    norm = build(name)
    if name == "RetinexNorm":  # of intensities; its floor has no gain
        x, features = refill(x, features.abs() + 1), features.abs() + 1
        norm = build(name, floor=1e-6)
    moved = relative_error(values(norm(refill(x, features * gains))), values(norm(x)))
    if name in ("BatchNorm", "SyncBatchNorm", "DomainBatchNorm", "InstanceBatchNorm"):
        assert moved > 1e-2
    else:
        assert moved < 1e-4


CHECKS = ("float32", "torch.bfloat16", "torch.float16", "state dict")
HEAD = """# What is checked

Written by tests/norms/test_norm_family.py. A ✓ says that on this kind of input the norm's output
and all its gradients are those of a loop in float64 to 1e-5, that float16 and bfloat16 come back as
they came with a relative error below twice their eps, and that a state dict carries the norm over.
`DivisiveNorm` is here the one without a window; with one it is defined on MinkowskiEngine's
SparseTensor and on dense tensors alone, and checked in tests/norms/test_divisive_norm.py.
`RetinexNorm` is the one that takes out the mean; its surrounds are in
tests/norms/test_retinex_norm.py.

"""


def table():
    """Return the page of everything that passed in this run."""
    lines = ["| norm | " + " | ".join(KINDS) + " |", "|---" * (len(KINDS) + 1) + "|"]
    for name in NORMS:
        cells = []
        for kind in KINDS:
            missing = [what for what in CHECKS if (name, kind, what) not in DONE]
            cells.append("✓" if not missing else f"not: {', '.join(missing)}")
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return HEAD + "\n".join(lines) + "\n"


def test_the_table_in_the_docs_is_what_passed():
    if len(DONE) < len(NORMS) * len(KINDS) * len(CHECKS):
        pytest.skip("a part of the tests above was not run, failed or was skipped")
    if os.environ.get("GEONORM_WRITE_DOCS") == "1":
        TABLE.write_text(table(), encoding="utf-8")
    assert TABLE.read_text(encoding="utf-8") == table()
