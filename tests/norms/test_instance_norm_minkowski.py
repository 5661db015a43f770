"""InstanceNorm on MinkowskiEngine's tensors, beside MinkowskiEngine's own norm."""

import pytest
import torch
from conftest import TOLERANCES, relative_error

from geonorm import SparseInstanceNorm
from helpers.segment_norm_cases import FLOAT32, by_torch, parameters, with_affine
from helpers.sparse_tensors import ME, coordinates, sparse_tensor, strided


@pytest.mark.parametrize("make", [sparse_tensor, lambda c: strided(sparse_tensor(c)),
                                  lambda c: ME.TensorField(torch.randn(len(c), 4), c.float())])
def test_gradients_through_minkowski_engine(make):
    x = make(coordinates())
    leaf = x.F.detach().requires_grad_()
    key = {k: getattr(x, k) for k in ("coordinate_map_key", "coordinate_field_map_key")
           if hasattr(x, k)}
    y = with_affine(SparseInstanceNorm(4))(
        type(x)(leaf, coordinate_manager=x.coordinate_manager, **key))
    upstream = torch.randn(y.F.shape, generator=torch.Generator().manual_seed(3))
    (found,) = torch.autograd.grad(y.F, leaf, upstream)
    double = leaf.detach().double().requires_grad_()
    out = by_torch(double, x.C[:, 0].long(), 3, *parameters(4, torch.float64))
    (exact,) = torch.autograd.grad(out, double, upstream.double())
    assert relative_error(found, exact) < FLOAT32


def test_equals_minkowski_engines_norm_with_its_eps_and_its_state_dict():
    x = sparse_tensor(coordinates())
    theirs = ME.MinkowskiInstanceNorm(4)
    with torch.no_grad():
        theirs.weight.copy_(torch.rand(1, 4))
        theirs.bias.copy_(torch.rand(1, 4))
    ours = SparseInstanceNorm(4, eps=1e-8)
    ours.load_state_dict(theirs.state_dict())
    assert relative_error(ours(x).F, theirs(x).F) < FLOAT32
    with_affine(ours)
    assert relative_error(ours(x).F, theirs(x).F) > 0.1


def test_loading_leaves_the_callers_state_dict_alone_and_stays_strict():
    state = ME.MinkowskiBatchNorm(4).state_dict()
    names = [*state]
    with pytest.warns(UserWarning, match="running statistics of a batch norm are dropped"):
        SparseInstanceNorm(4).load_state_dict(state)
    assert [*state] == names
    with pytest.raises(RuntimeError, match=r"Missing key.*bias"):
        SparseInstanceNorm(4).load_state_dict({"weight": torch.ones(4)})
    with pytest.raises(RuntimeError, match=r"Unexpected key.*scale"):
        SparseInstanceNorm(4).load_state_dict({**SparseInstanceNorm(4).state_dict(), "scale": 1})
    with pytest.raises(RuntimeError, match="size mismatch for weight"):
        SparseInstanceNorm(4).load_state_dict(ME.MinkowskiInstanceNorm(5).state_dict())


def test_gain_and_offset_of_one_scan_are_removed_and_batch_norm_moves():
    x = sparse_tensor(coordinates())
    gains = torch.tensor([1.0, 7.0, 0.2])[x.C[:, 0].long()][:, None]
    changed = ME.SparseTensor(
        x.F * gains + 5 * gains, coordinate_map_key=x.coordinate_map_key,
        coordinate_manager=x.coordinate_manager)
    norm, control = SparseInstanceNorm(4, eps=1e-12), ME.MinkowskiBatchNorm(4)
    assert relative_error(norm(changed).F, norm(x).F) < TOLERANCES["gain and offset"]
    assert relative_error(control(changed).F, control(x).F) > 0.1
