"""MinkUNet on points: voxelization, the point stem, duplication and weights."""

import pytest
import torch
from conftest import TOLERANCES, relative_error

from geonorm.models.minkunet_input import check_input, voxelize
from helpers.minkunet_cases import ME, MUST_MOVE, batch, build, minkunet, scan


def duplicated(first, times):
    """Repeat the points of one scan, each as often as `times` says."""
    return tuple(part.repeat_interleave(times, dim=0) for part in first)


def moved_by_duplication(norm, times, weighted=False):
    """Return how far logits move when points of one of two scans repeat before a point stem."""
    model = build(norm=norm, point_stem=16)
    # Half the grid, so that most voxels average several points and their weights matter.
    first, second = ((coordinates / 2, features) for coordinates, features in (
        scan(extent=8), scan(200, seed=1)
    ))
    plain = model(batch(first, second, kind=ME.TensorField)).F
    out = model(
        batch(duplicated(first, times), second, kind=ME.TensorField),
        point_weights=torch.cat(((1 / times).repeat_interleave(times), torch.ones(200)))
        if weighted else None,
    ).F
    last_copy = torch.cat((times.cumsum(0) - 1, torch.arange(200) + times.sum()))
    return relative_error(out[last_copy], plain)


def test_the_point_stem_is_one_of_the_stem_and_has_no_bias():
    with torch.device("meta"):
        model = build(norm={"default": "batch", "stem": "ibn-b"}, point_stem=16)
    shapes = {key: tuple(value.shape) for key, value in model.state_dict().items()
              if key.startswith("point_")}  # fmt: skip
    assert shapes == {
        "point_linear.linear.weight": (16, 3), "point_norm.weight": (16,), "point_norm.bias": (16,)
    }  # fmt: skip
    assert type(model.point_norm) is type(model.bn0)
    assert model.point_norm.activation == model.bn0.activation == "relu"


@pytest.mark.parametrize("k", [2, 3, 7])
def test_point_stem_ignores_duplication_of_one_scan(k):
    times = torch.full((300,), k)
    assert moved_by_duplication("instance", times) <= TOLERANCES["logits"]
    assert moved_by_duplication("batch", times) > MUST_MOVE


def test_weights_undo_duplication_of_single_points():
    times = torch.randint(1, 5, (300,), generator=torch.Generator().manual_seed(0))
    assert moved_by_duplication("instance", times, weighted=True) <= TOLERANCES["logits"]
    assert moved_by_duplication("instance", times) > MUST_MOVE
    assert moved_by_duplication("batch", times, weighted=True) > MUST_MOVE


@pytest.mark.filterwarnings("ignore:torch.sparse.SparseTensor")  # the engine's own average
def test_voxels_of_a_field_are_normalized_like_the_same_sparse_tensor():
    """MinkowskiInstanceNorm errs, or crashes, on the result of TensorField.sparse()."""
    model = build()
    coordinates, features = scan()
    field = batch((coordinates / 2, features), scan(200, seed=1), kind=ME.TensorField)
    voxels = field.sparse()
    assert len(voxels.F) < len(field.F)
    rebuilt = ME.SparseTensor(voxels.F, voxels.C)
    expected = model(rebuilt).F[field.inverse_mapping(voxels.coordinate_map_key).long()]
    assert relative_error(model(field).F, expected) <= TOLERANCES["logits"]
    assert relative_error(model(field).F.roll(1, 0), expected) > MUST_MOVE


def test_same_field_can_be_classified_again():
    """The engine gives the second voxelization a second map of every stride."""
    model, field = build(), batch(scan(), scan(200, seed=1), kind=ME.TensorField)
    first = model(field).F
    assert relative_error(model(field).F, first) <= TOLERANCES["float32 against float64"]


def test_of_a_field_that_is_subsampled_one_point_stands_for_its_voxel():
    places = torch.tensor([[0, 0.1, 0, 0], [0, 0.2, 0, 0], [0, 3.1, 0, 0]])
    features = torch.tensor([[1.0, 2.0], [5.0, 8.0], [3.0, 3.0]])
    mode = ME.SparseTensorQuantizationMode.RANDOM_SUBSAMPLE
    sampled = ME.TensorField(features, places, quantization_mode=mode)
    with torch.device("meta"):
        model = minkunet.MinkUNet14A(2, 5)
    check_input(model, sampled, None)
    voxels = voxelize(sampled, None)
    assert sorted(voxels.F.tolist()) in ([[1, 2], [3, 3]], [[3, 3], [5, 8]])
    field = ME.TensorField(features, places)
    assert sorted(voxelize(field, None).F.tolist()) == [[3, 3], [3, 5]]
    weights = torch.tensor([3.0, 1.0, 7.0], dtype=torch.float64)
    assert sorted(voxelize(field, weights).F.tolist()) == [[2, 3.5], [3, 3]]


def test_field_that_cannot_be_carried_back_is_refused():
    coordinates, features = ME.utils.sparse_collate(*zip(scan(), strict=True))
    mode = ME.SparseTensorQuantizationMode.MAX_POOL
    field = ME.TensorField(features, coordinates.float(), quantization_mode=mode)
    with pytest.raises(ValueError, match=r"quantized by one of .* got MAX_POOL"):
        build()(field)


def test_wrong_point_weights_are_refused():
    model, field = build(), batch(scan(), kind=ME.TensorField)
    with pytest.raises(TypeError, match="weigh the points of a TensorField; got a SparseTensor"):
        model(batch(scan()), point_weights=torch.ones(300))
    with pytest.raises(ValueError, match=r"\(300,\), one per point; got torch\.float32 \(299,\)"):
        model(field, point_weights=torch.ones(299))
    for shape in ((301,), (300, 1)):
        with pytest.raises(ValueError, match=r"\(300,\), one per point; got torch\.float32 \(30"):
            model(field, point_weights=torch.ones(shape))
    with pytest.raises(ValueError, match=r"floating point, .* got torch\.int64"):
        model(field, point_weights=torch.ones(300, dtype=torch.int64))
    with pytest.raises(ValueError, match="must be positive"):
        model(field, point_weights=torch.zeros(300))
    with pytest.raises(ValueError, match="must be positive"):
        model(field, point_weights=torch.arange(300.0) - 1)
