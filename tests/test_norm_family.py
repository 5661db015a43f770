"""Every norm of the family on every kind of input: a loop in float64 as judge, half precision."""

import copy

import pytest
import torch
from conftest import TOLERANCES, relative_error
from norm_family_cases import (
    KINDS,
    NORMS,
    build,
    example,
    refill,
    to_rows,
    values,
)

FLOAT32 = TOLERANCES["float32 against float64"]


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


@pytest.mark.parametrize("name", NORMS)
def test_state_dict_copies_and_repr(name):
    x, _, _ = example("index")
    norm, other = build(name).eval(), build(name, seed=3).eval()
    expected, _ = norm(x)
    if [*norm.parameters()]:
        assert relative_error(other(x)[0], expected) > 1e-2
    assert not any(other.load_state_dict(norm.state_dict()))
    assert torch.equal(other(x)[0], expected)
    assert torch.equal(copy.deepcopy(norm)(x)[0], expected)
    assert "6" in repr(norm)



@pytest.mark.parametrize("kind", ["index", "5-D"])
@pytest.mark.parametrize("name", ["InstanceNorm", "InstanceBatchNorm", "BatchNorm",
                                  "SparseGroupNorm", "PointLayerNorm", "DivisiveNorm"])
def test_compiles_into_one_graph(name, kind):
    torch.compiler.reset()
    x, _, _ = example(kind)
    norm = build(name)
    counted = {} if kind == "5-D" or name in ("BatchNorm", "PointLayerNorm") else {
        "num_instances": 3}
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager")
    found = values(compiled(x, **counted))
    assert relative_error(found, values(norm(x, **counted))) < FLOAT32


@pytest.mark.parametrize("name", NORMS)
def test_only_norms_of_instances_ignore_the_gain_of_one_instance(name):
    x, features, index = example("index")
    gains = torch.tensor([9.0, 1.0, 1.0])[index][:, None]
    norm = build(name)
    moved = relative_error(norm((features * gains, index))[0], norm(x)[0])
    if name in ("BatchNorm", "SyncBatchNorm", "DomainBatchNorm", "InstanceBatchNorm"):
        assert moved > 1e-2
    else:
        assert moved < 1e-4
