"""The layout of MinkowskiEngine's tensors: right in every order of rows, worked out once."""

import gc
import sys
import weakref

import pytest
import torch
from conftest import relative_error

from geonorm import SparseInstanceNorm
from geonorm.inputs import read
from helpers.segment_norm_cases import FLOAT32, by_torch
from helpers.sparse_tensors import ME, coordinates, sparse_tensor, strided


def assert_normalizes(x):
    index, norm = x.C[:, 0].long(), SparseInstanceNorm(x.F.shape[1])
    exact = by_torch(x.F.detach().double(), index, int(index.max()) + 1)
    assert relative_error(norm(x).F, exact) < FLOAT32
    assert torch.equal(read(x).instance, index)


def test_rows_sorted_and_interleaved():
    x = sparse_tensor(coordinates())
    y = strided(x)
    assert not (read(x).instance.diff() < 0).any()
    assert (read(y).instance.diff() < 0).sum() > 10  # what makes the second case another one
    for tensor in (x, y, strided(y)):
        assert_normalizes(tensor)


def test_taking_interleaved_rows_for_sorted_ones_shows():
    y = strided(sparse_tensor(coordinates()))
    index = read(y).instance
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
    assert len(read(field.sparse()).instance) < len(read(field).instance)


def test_worked_out_once_per_manager_and_key():
    x = sparse_tensor(coordinates())
    norm = SparseInstanceNorm(4)
    first = read(x).instance
    assert read(norm(x)).instance is read(read(x).rebuild(x.F * 2)).instance is first
    y = strided(x)
    assert read(y).instance is read(norm(y)).instance is not first
    up = ME.MinkowskiConvolutionTranspose(4, 4, 2, stride=2, dimension=3)
    assert read(up(y)).instance is first
    assert read(sparse_tensor(coordinates())).instance is not first


@pytest.mark.filterwarnings("ignore:torch.sparse.SparseTensor:UserWarning")
def test_a_field_and_a_sparse_tensor_of_one_manager_differ():
    places = torch.cat([coordinates(), coordinates()]).float()
    field = ME.TensorField(torch.randn(len(places), 4), places)
    voxels = field.sparse()
    assert voxels.coordinate_manager is field.coordinate_manager
    assert len(read(field).instance) == 2 * len(read(voxels).instance)


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
        ME.clear_global_coordinate_manager()
        ME.set_sparse_tensor_operation_mode(previous)


def test_the_cache_keeps_no_manager_alive():
    x = sparse_tensor(coordinates())
    read(x)
    manager, index = weakref.ref(x.coordinate_manager), weakref.ref(read(x).instance)
    y = SparseInstanceNorm(4)(strided(x))
    assert manager() is not None
    assert index() is not None
    del x, y
    gc.collect()
    assert manager() is None
    assert index() is None


@pytest.mark.parametrize("sizes", [(300, 0, 200), (0, 300, 200), (300, 200, 0, 0)])
def test_empty_scans(sizes):
    x = sparse_tensor(coordinates(sizes))
    last = max(number for number, size in enumerate(sizes) if size) + 1
    for tensor in (x, strided(x)):
        assert_normalizes(tensor)
        assert read(tensor).num_instances == last  # MinkowskiEngine knows no more
        told = read(tensor, num_instances=len(sizes))
        assert told.num_instances == len(sizes)
        assert torch.equal(told.instance, read(tensor).instance)
        assert relative_error(
            SparseInstanceNorm(4)(tensor, num_instances=len(sizes)).F,
            SparseInstanceNorm(4)(tensor).F) == 0


def test_pruning_the_last_scan_away_keeps_the_number_of_instances():
    x = sparse_tensor(coordinates())
    assert read(x).num_instances == 3
    y = ME.MinkowskiPruning()(x, x.C[:, 0] < 2)
    assert read(y).num_instances == 3
    assert not (read(y).instance == 2).any()
    assert_normalizes(y)


def test_too_few_instances():
    with pytest.raises(ValueError, match=r"at least 3, one more than .* index; got 2"):
        read(sparse_tensor(coordinates()), num_instances=2)


def test_rebuilt_tensors_keep_kind_key_and_manager():
    x = sparse_tensor(coordinates())
    summed = ME.SparseTensorQuantizationMode.UNWEIGHTED_SUM
    field = ME.TensorField(torch.randn(5, 4), torch.rand(5, 4).floor(), quantization_mode=summed)
    assert read(field).rebuild(field.F).quantization_mode == summed
    for tensor, key in ((x, "coordinate_map_key"), (field, "coordinate_field_map_key")):
        new = read(tensor).rebuild(read(tensor).features[:, :2].double())
        assert type(new) is type(tensor)
        assert getattr(new, key) == getattr(tensor, key)
        assert new.coordinate_manager is tensor.coordinate_manager
        assert torch.equal(new.F, tensor.F[:, :2].double())


@pytest.mark.parametrize("as_tensor", [False, True])
def test_a_residual_of_the_same_coordinates_is_added(as_tensor):
    x = sparse_tensor(coordinates())
    y = read(x).rebuild(x.F.flip(0))
    out = SparseInstanceNorm(4, activation="relu")(x, residual=y.F if as_tensor else y)
    expected = (SparseInstanceNorm(4)(x).F + y.F).relu()
    assert out.coordinate_map_key == x.coordinate_map_key
    assert relative_error(out.F, expected) < FLOAT32


def test_a_residual_of_other_coordinates_is_refused():
    x, norm = sparse_tensor(coordinates()), SparseInstanceNorm(4)
    other = sparse_tensor(coordinates())  # equal coordinates, but a manager of its own
    with pytest.raises(ValueError, match="residual must have the input's coordinates"):
        norm(x, residual=other)
    with pytest.raises(ValueError, match="residual must have the input's coordinates"):
        norm(x, residual=strided(x))
    with pytest.raises(ValueError, match=r"the shape of the features, \(\d+, 4\); got \(5, 4\)"):
        norm(x, residual=torch.randn(5, 4))
    with pytest.raises(TypeError, match=r"residual must be floating point; got torch\.int64"):
        norm(x, residual=x.F.long())
    with pytest.raises(TypeError, match=r"a tensor or, as the input, MinkowskiEngine's"):
        norm(x, residual=[x])
    with pytest.raises(TypeError, match="SparseTensor has its own"):
        norm(x, x.C[:, 0])


def stations(norm, x):
    """Return the functions of geonorm that are given a tensor or its features, in order."""
    passed = []

    def note(frame, event, _):
        here = "geonorm" in frame.f_code.co_filename.split("/")
        given = any(value is x or value is x.F for value in frame.f_locals.values())
        if event == "call" and here and given:
            passed.append(frame.f_code.co_qualname)

    sys.setprofile(note)
    try:
        norm(x)
    finally:
        sys.setprofile(None)
    return passed[:passed.index("segment_norm") + 1]


def test_a_tensor_without_rows_has_the_instances_that_its_manager_knows():
    x = sparse_tensor(coordinates())
    none = ME.MinkowskiPruning()(x, torch.zeros(len(x.F), dtype=torch.bool))
    assert read(none).num_instances == 0
    y = sparse_tensor(coordinates())
    known = read(y).num_instances
    none = ME.MinkowskiPruning()(y, torch.zeros(len(y.F), dtype=torch.bool))
    assert read(none).num_instances == known > 1


def test_the_way_to_the_operator_is_short_and_reads_the_input_once():
    x, norm = sparse_tensor(coordinates()), SparseInstanceNorm(4, activation="relu")
    norm(x)  # works out the layout
    passed = stations(norm, x)
    assert len(passed) <= 6
    assert passed.count("read") == 1
    assert len({*passed}) == len(passed)
