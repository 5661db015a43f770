"""Tensors of spconv and torch_geometric, the real ones, and rows with offsets; what is refused."""

import copy
import subprocess
import sys

import pytest
import torch
from conftest import relative_error

import geonorm
from geonorm import InstanceNorm, Packed, SparseInstanceNorm
from geonorm.sparse import features_of, layout_of, with_features
from helpers.norm_family_cases import SIZES, coordinates, rows, sparse
from helpers.segment_norm_cases import FLOAT32, by_torch


def scene():
    return sparse("spconv")


def graphs():
    return sparse("PyG")


@pytest.mark.parametrize("make", [scene, graphs])
def test_the_layout_is_the_engines_own(make):
    x = make()
    index = x.indices[:, 0] if make is scene else x.batch
    layout = layout_of(x)
    assert layout.index.dtype == torch.int64
    assert torch.equal(layout.index, index.long())
    assert layout.counts.tolist() == [*SIZES]
    assert layout_of(x, 5).counts.tolist() == [*SIZES, 0, 0]
    with pytest.raises(ValueError, match=r"at least 3, one more than .* index; got 2"):
        layout_of(x, 2)


@pytest.mark.parametrize("norm", [InstanceNorm(6), SparseInstanceNorm(6)])
@pytest.mark.parametrize("make", [scene, graphs])
def test_both_instance_norms_take_them(make, norm):
    x = make()
    exact = by_torch(features_of(x).double(), layout_of(x).index, 3)
    assert relative_error(features_of(norm(x)), exact) < FLOAT32


def test_an_spconv_tensor_keeps_what_its_convolutions_need():
    spconv = pytest.importorskip("spconv.pytorch")
    x = scene()
    down = spconv.SparseConv3d(6, 6, 2, stride=2, bias=False, indice_key="down")
    up = spconv.SparseInverseConv3d(6, 6, 2, bias=False, indice_key="down")
    with torch.no_grad():  # spconv's convolutions have no backward on the CPU
        y = down(x)
        normed = InstanceNorm(6)(y)
        back = up(normed)
    assert normed.spatial_shape == y.spatial_shape
    assert normed.indice_dict is y.indice_dict
    assert torch.equal(normed.indices, y.indices)
    assert torch.equal(back.indices, x.indices)
    exact = by_torch(y.features.double(), y.indices[:, 0].long(), 3)
    assert relative_error(normed.features, exact) < FLOAT32


def test_an_empty_last_scan_of_spconv_is_known():
    spconv = pytest.importorskip("spconv.pytorch")
    x = spconv.SparseConvTensor(rows(), coordinates(), [4, 4, 4], 5)
    assert layout_of(x).counts.tolist() == [*SIZES, 0, 0]
    wrong = spconv.SparseConvTensor(rows(), coordinates(), [4, 4, 4], 2)
    with pytest.raises(ValueError, match=r"must lie in \[0, 2\).*goes from 0 to 2"):
        layout_of(wrong)


def test_graphs_keep_everything_else_and_the_input_its_features():
    x = graphs()
    x.pos = torch.zeros(59, 3)
    before = x.x
    y = with_features(x, before + 1)
    assert type(y) is type(x)
    assert x.x is before
    assert torch.equal(y.x, before + 1)
    assert y.pos is x.pos
    assert y.batch is x.batch
    assert y.num_graphs == 3


def test_one_graph_is_one_instance_and_one_without_features_is_refused():
    data = pytest.importorskip("torch_geometric.data")
    alone = data.Data(x=rows())
    assert layout_of(alone).counts.tolist() == [59]
    unbatched = data.Data(x=rows(), batch=torch.arange(59).div(30, rounding_mode="floor"))
    assert layout_of(unbatched).counts.tolist() == [30, 29]  # without ptr
    with pytest.raises(ValueError, match="Data holds no features: its x is None"):
        SparseInstanceNorm(6)(data.Data(pos=torch.zeros(3, 3)))


def test_rows_with_offsets():
    x = Packed(rows(), torch.tensor([0, 0, 50, 59]))
    out = InstanceNorm(6)(x)
    assert out.offsets is x.offsets
    index = torch.tensor([1] * 50 + [2] * 9)
    assert torch.equal(out.features, InstanceNorm(6)((rows(), index))[0])
    assert layout_of(x).counts.tolist() == [0, 50, 9]
    with pytest.raises(ValueError, match="end at 59, the number of rows; they start at 0 and end"):
        InstanceNorm(6)(Packed(rows(), torch.tensor([0, 50])))
    with pytest.raises(ValueError, match="got 4 entries and num_instances=7"):
        InstanceNorm(6)(x, num_instances=7)


def test_what_a_pair_cannot_say_and_offsets_can():
    """Three rows in two instances: the offsets are a valid batch index of other instances."""
    three, numbers = rows()[:3], torch.tensor([0, 1, 3])
    assert layout_of(Packed(three, numbers)).counts.tolist() == [1, 2]
    assert layout_of((three, numbers)).counts.tolist() == [1, 1, 0, 1]


def test_an_engine_of_another_version_is_refused_with_what_was_looked_for():
    old = scene()

    class Old:  # spconv 1 had no replace_feature
        features, indices, batch_size = old.features, old.indices, old.batch_size

    with pytest.raises(TypeError, match=r"looked for:.*spconv's SparseConvTensor \(features, ind.*"
                                        r"Got Old, which looks like spconv's SparseConvTensor of "
                                        r"another version: it has no replace_feature$"):
        SparseInstanceNorm(6)(Old())
    with pytest.raises(TypeError, match=r"Got list$"):
        InstanceNorm(6)([1, 2])


def test_no_engine_is_imported():
    program = ("import sys, torch, geonorm; geonorm.InstanceNorm(2)((torch.ones(3, 2), "
               "torch.zeros(3).long())); print([m for m in ('MinkowskiEngine', 'spconv', "
               "'torchsparse', 'torch_geometric') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=True)
    assert done.stdout.strip() == "[]"


def test_packed_rows_can_be_copied():
    x = copy.deepcopy(Packed(rows(), torch.tensor([0, 59])))
    assert geonorm.sparse.layout_of(x).num_instances == 1
