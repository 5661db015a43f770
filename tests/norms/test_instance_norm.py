"""InstanceNorm on rows: kinds of input, other norms' state dicts, MinkowskiEngine's own norm."""

import copy
import pickle
import warnings

import pytest
import torch
from conftest import relative_error
from torch import nn

from geonorm import SparseInstanceNorm
from helpers.segment_norm_cases import (
    FLOAT32,
    FLOAT64,
    batch,
    by_torch,
    parameters,
    with_affine,
)


def test_rows_with_an_index_come_back_as_rows():
    rows, index = batch()
    norm = with_affine(SparseInstanceNorm(5))
    out = norm(rows, index)
    exact = by_torch(rows.double(), index, 7, *(p.detach().double() for p in norm.parameters()))
    assert relative_error(out, exact) < FLOAT32


class Network(nn.Module):
    def __init__(self, norm):
        super().__init__()
        self.first, self.second = norm(4), nn.Sequential(norm(4), norm(6))


def minkowski_batch_norm(channels):
    engine = pytest.importorskip("MinkowskiEngine", reason="run tools/install_minkowski.py")
    return engine.MinkowskiBatchNorm(channels)


@pytest.mark.parametrize("norm", [minkowski_batch_norm, nn.BatchNorm1d])
def test_batch_norms_load_and_their_statistics_are_dropped_with_one_message(norm):
    source, target = Network(norm), Network(SparseInstanceNorm)
    for number, parameter in enumerate(source.parameters()):
        nn.init.constant_(parameter, number + 1.0)
    with warnings.catch_warnings(record=True) as said:
        warnings.resetwarnings()
        missing, unexpected = target.load_state_dict(source.state_dict())
    assert not missing
    assert not unexpected
    assert [str(w.message) for w in said if "running statistics" in str(w.message)] == [
        "running statistics of a batch norm are dropped: an instance norm takes its own from each "
        "instance, so the network's function changes until it is fine-tuned"]
    for one, other in zip(source.parameters(), target.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_state_dict_of_torchs_norm_without_parameters_is_explained():
    theirs = nn.Sequential(nn.InstanceNorm3d(4))
    ours = nn.Sequential(SparseInstanceNorm(4))
    explained = r"unless they are built with affine=True\. Build this"
    with (
        pytest.warns(UserWarning, match=explained),
        pytest.raises(RuntimeError, match=r"Missing key.*0\.weight.*0\.bias"),
    ):
        ours.load_state_dict(theirs.state_dict())
    with pytest.warns(UserWarning, match=explained):
        ours.load_state_dict(theirs.state_dict(), strict=False)
    nn.Sequential(SparseInstanceNorm(4, affine=False)).load_state_dict(theirs.state_dict())
    affine = nn.Sequential(nn.InstanceNorm3d(4, affine=True))
    nn.init.constant_(affine[0].weight, 3.0)
    ours.load_state_dict(affine.state_dict())
    assert ours[0].weight.tolist() == [3.0] * 4


def test_parameters():
    norm = SparseInstanceNorm(4, dtype=torch.float64)
    assert [*norm.state_dict()] == ["weight", "bias"]
    assert all(p.dtype == torch.float64 and p.shape == (4,) for p in norm.parameters())
    assert SparseInstanceNorm(4, device="meta").weight.is_meta
    with_affine(norm, torch.float64).reset_parameters()
    assert norm.weight.tolist() == [1] * 4
    assert norm.bias.tolist() == [0] * 4
    plain = SparseInstanceNorm(4, affine=False)
    assert plain.weight is plain.bias is None
    assert not plain.state_dict()
    rows, index = batch(channels=4)
    assert torch.equal(plain(rows, index), SparseInstanceNorm(4)(rows, index))


def test_repr_shows_what_was_given():
    assert repr(SparseInstanceNorm(4)) == "InstanceNorm(4, eps=1e-05, affine=True)"
    relu = SparseInstanceNorm(4, 1e-3, False, activation="relu")
    assert repr(relu) == "InstanceNorm(4, eps=0.001, affine=False, activation='relu')"


def test_evaluation_and_training_are_the_same():
    rows, index = batch()
    norm = SparseInstanceNorm(5)
    assert torch.equal(norm(rows, index), norm.eval()(rows, index))


def test_copies_and_pickles():
    rows, index = batch()
    norm = with_affine(SparseInstanceNorm(5, activation="relu"))
    for copied in (copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
        assert torch.equal(copied(rows, index), norm(rows, index))


@pytest.mark.parametrize(("activation", "function"), [
    ("relu", torch.relu), ("leaky_relu", lambda x: nn.functional.leaky_relu(x, 0.2))])
def test_the_activation_is_what_would_follow(activation, function):
    rows, index = batch()
    fused = with_affine(SparseInstanceNorm(5, activation=activation, negative_slope=0.2))
    plain = with_affine(SparseInstanceNorm(5))
    assert relative_error(fused(rows, index), function(plain(rows, index))) < FLOAT32


def test_point_weights_of_voxels_give_the_statistics_of_points():
    points = torch.randn(400, 3, generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    times = torch.randint(1, 9, (400,), generator=torch.Generator().manual_seed(6))
    scans = torch.arange(400).remainder(3)
    norm = SparseInstanceNorm(3, dtype=torch.float64)
    repeated = norm(points.repeat_interleave(times, 0), scans.repeat_interleave(times))
    weighted = norm(points, scans, point_weights=times)
    assert relative_error(weighted.repeat_interleave(times, 0), repeated) < FLOAT64
    plain = norm(points, scans)
    assert relative_error(plain.repeat_interleave(times, 0), repeated) > 1e-2


def test_wrong_channels_are_refused():
    rows = (torch.randn(100, 64), torch.zeros(100, dtype=torch.long))
    with pytest.raises(ValueError, match=r"must be \(N, 32\); got \(100, 64\)\. Did you mean "
                                         r"InstanceNorm\(64\)\?"):
        SparseInstanceNorm(32)(*rows)
    with pytest.raises(TypeError, match=r"must be floating point; got torch\.int64"):
        SparseInstanceNorm(64)(rows[0].long(), rows[1])
    with pytest.raises(ValueError, match="one entry for each of the 100 rows; got 99"):
        SparseInstanceNorm(64)(rows[0], rows[1][1:])


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_keeps_its_dtype_under_autocast_too(dtype):
    rows, index = batch(dtype=dtype)
    norm = with_affine(SparseInstanceNorm(5))
    exact = by_torch(rows.double(), index, 7, *parameters(5, torch.float64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = norm(rows, index)
        wide = norm(rows.float(), index)
    assert out.dtype == dtype
    assert wide.dtype == torch.float32
    assert relative_error(out, exact) < 2 * torch.finfo(dtype).eps
    assert relative_error(wide, exact) < FLOAT32


def test_compiles_into_one_graph():
    torch.compiler.reset()
    norm = with_affine(SparseInstanceNorm(5))
    rows, index = batch()
    compiled = torch.compile(norm, fullgraph=True, backend="aot_eager")
    found = compiled(rows, index, num_instances=7)
    assert relative_error(found, norm(rows, index)) < FLOAT32
