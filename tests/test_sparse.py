"""The layout of MinkowskiEngine's tensors: right in every order of rows, worked out once."""

import gc
import weakref

import MinkowskiEngine as ME
import pytest
import torch
from conftest import relative_error
from MinkowskiEngine.MinkowskiTensor import clear_global_coordinate_manager

from geonorm import SparseInstanceNorm
from geonorm.sparse import features_of, layout_of, with_features
from helpers.segment_norm_cases import FLOAT32, by_torch
from helpers.sparse_tensors import coordinates, sparse_tensor, strided


def assert_normalizes(x):
    index, norm = x.C[:, 0].long(), SparseInstanceNorm(x.F.shape[1])
    exact = by_torch(x.F.detach().double(), index, int(index.max()) + 1)
    assert relative_error(norm(x).F, exact) < FLOAT32
    assert torch.equal(layout_of(x).index, index)


def test_rows_sorted_and_interleaved():
    x = sparse_tensor(coordinates())
    y = strided(x)
    assert not (layout_of(x).index.diff() < 0).any()
    assert (layout_of(y).index.diff() < 0).sum() > 10  # what makes the second case another one
    for tensor in (x, y, strided(y)):
        assert_normalizes(tensor)


def test_taking_interleaved_rows_for_sorted_ones_shows():
    y = strided(sparse_tensor(coordinates()))
    index = layout_of(y).index
    exact = by_torch(y.F.detach().double(), index, 3)
    assert relative_error(by_torch(y.F.detach().double(), index.sort().values, 3), exact) > 1e-2


# TensorField.sparse() of MinkowskiEngine 0.5.4 averages by a constructor that torch deprecates.
@pytest.mark.filterwarnings("ignore:torch.sparse.SparseTensor:UserWarning")
def test_tensor_field_and_its_sparse_tensor():
    places = coordinates().float()
    places = torch.cat([places, places[::3]])  # a field keeps duplicates, here of all scans
    field = ME.TensorField(torch.randn(len(places), 4), places)
    for tensor in (field, field.sparse(), strided(field.sparse())):
        assert_normalizes(tensor)
    assert len(layout_of(field.sparse()).index) < len(layout_of(field).index)


def test_worked_out_once_per_manager_and_key():
    x = sparse_tensor(coordinates())
    norm = SparseInstanceNorm(4)
    first = layout_of(x)
    assert layout_of(norm(x)) is layout_of(with_features(x, x.F * 2)) is first
    y = strided(x)
    assert layout_of(y) is layout_of(norm(y)) is not first
    up = ME.MinkowskiConvolutionTranspose(4, 4, 2, stride=2, dimension=3)
    assert layout_of(up(y)) is first
    assert layout_of(sparse_tensor(coordinates())) is not first


@pytest.mark.filterwarnings("ignore:torch.sparse.SparseTensor:UserWarning")
def test_a_field_and_a_sparse_tensor_of_one_manager_differ():
    places = torch.cat([coordinates(), coordinates()]).float()
    field = ME.TensorField(torch.randn(len(places), 4), places)
    voxels = field.sparse()
    assert voxels.coordinate_manager is field.coordinate_manager
    assert len(layout_of(field).index) == 2 * len(layout_of(voxels).index)


def test_tensors_that_share_a_manager_differ():
    previous = ME.sparse_tensor_operation_mode()
    ME.set_sparse_tensor_operation_mode(ME.SparseTensorOperationMode.SHARE_COORDINATE_MANAGER)
    try:
        one = sparse_tensor(coordinates())
        other = sparse_tensor(coordinates((50, 60, 70, 80), seed=4))
        assert one.coordinate_manager is other.coordinate_manager
        for tensor in (one, other, strided(one), strided(other)):
            assert_normalizes(tensor)
    finally:
        clear_global_coordinate_manager()
        ME.set_sparse_tensor_operation_mode(previous)


def test_the_cache_keeps_no_manager_alive():
    x = sparse_tensor(coordinates())
    layout_of(x)
    manager, index = weakref.ref(x.coordinate_manager), weakref.ref(layout_of(x).index)
    y = SparseInstanceNorm(4)(strided(x))
    assert manager() is not None
    assert index() is not None
    del x, y
    gc.collect()
    assert manager() is None
    assert index() is None


def test_counts():
    places = coordinates()
    x = sparse_tensor(places)
    assert torch.equal(layout_of(x).counts, places[:, 0].bincount())
    assert layout_of(x).counts is layout_of(x).counts
    pair = (torch.randn(5, 2), torch.tensor([2, 0, 2, 2, 0]))
    assert layout_of(pair, 4).counts.tolist() == [2, 0, 3, 0]


@pytest.mark.parametrize("sizes", [(300, 0, 200), (0, 300, 200), (300, 200, 0, 0)])
def test_empty_scans(sizes):
    x = sparse_tensor(coordinates(sizes))
    last = max(number for number, size in enumerate(sizes) if size) + 1
    for tensor in (x, strided(x)):
        assert_normalizes(tensor)
        assert layout_of(tensor).num_instances == last  # MinkowskiEngine knows no more
        told = layout_of(tensor, len(sizes))
        assert told.num_instances == len(told.counts) == len(sizes)
        assert torch.equal(told.index, layout_of(tensor).index)
        assert relative_error(
            SparseInstanceNorm(4)(tensor, num_instances=len(sizes)).F,
            SparseInstanceNorm(4)(tensor).F) == 0


def test_pruning_the_last_scan_away_keeps_the_number_of_instances():
    x = sparse_tensor(coordinates())
    assert layout_of(x).num_instances == 3
    y = ME.MinkowskiPruning()(x, x.C[:, 0] < 2)
    assert layout_of(y).num_instances == 3
    assert layout_of(y).counts[2] == 0
    assert_normalizes(y)


def test_too_few_instances():
    with pytest.raises(ValueError, match=r"at least 3, one more than .* index; got 2"):
        layout_of(sparse_tensor(coordinates()), 2)


def test_features_and_with_features_keep_kind_key_and_manager():
    x = sparse_tensor(coordinates())
    field = ME.TensorField(torch.randn(5, 4), torch.rand(5, 4).floor())
    for tensor, key in ((x, "coordinate_map_key"), (field, "coordinate_field_map_key")):
        new = with_features(tensor, features_of(tensor)[:, :2].double())
        assert type(new) is type(tensor)
        assert getattr(new, key) == getattr(tensor, key)
        assert new.coordinate_manager is tensor.coordinate_manager
        assert torch.equal(new.F, tensor.F[:, :2].double())
    pair = (torch.randn(5, 4), torch.zeros(5).long())
    new = with_features(pair, pair[0] + 1)
    assert torch.equal(features_of(new), pair[0] + 1)
    assert new[1] is pair[1]


@pytest.mark.parametrize("function", [
    layout_of, features_of, lambda x: with_features(x, torch.ones(2, 2)), SparseInstanceNorm(2)])
@pytest.mark.parametrize("x", [torch.randn(2, 2), (torch.randn(2, 2),), "rows"])
def test_anything_else_is_refused(function, x):
    message = rf"looked for:.*coordinate_manager.*Got {type(x).__name__}$"
    with pytest.raises(TypeError, match=message):
        function(x)
