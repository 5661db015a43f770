"""Tensors of spconv and torch_geometric, the real ones, and rows with offsets; what is refused."""

import copy
import subprocess
import sys

import pytest
import torch
from conftest import relative_error
from torch import nn

from geonorm import InstanceNorm, Rows, SparseInstanceNorm
from geonorm.inputs import read
from helpers.norm_family_cases import SIZES, coordinates, rows, sparse
from helpers.segment_norm_cases import FLOAT32, by_torch


def counts(given):
    """Return the rows of each instance."""
    return given.instance.bincount(minlength=given.num_instances).tolist()


def scene():
    return sparse("spconv")


def graphs():
    return sparse("PyG")


@pytest.mark.parametrize("make", [scene, graphs])
def test_the_layout_is_the_engines_own(make):
    x = make()
    index = x.indices[:, 0] if make is scene else x.batch
    given = read(x)
    assert given.instance.dtype == torch.int64
    assert torch.equal(given.instance, index.long())
    assert counts(given) == [*SIZES]
    assert counts(read(x, num_instances=5)) == [*SIZES, 0, 0]
    with pytest.raises(ValueError, match=r"at least 3, one more than .* index; got 2"):
        read(x, num_instances=2)


@pytest.mark.parametrize("norm", [InstanceNorm(6), SparseInstanceNorm(6)])
@pytest.mark.parametrize("make", [scene, graphs])
def test_both_names_of_instance_norm_take_them(make, norm):
    x = make()
    exact = by_torch(read(x).features.double(), read(x).instance, 3)
    assert relative_error(read(norm(x)).features, exact) < FLOAT32


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
    assert counts(read(x)) == [*SIZES, 0, 0]
    wrong = spconv.SparseConvTensor(rows(), coordinates(), [4, 4, 4], 2)
    with pytest.raises(ValueError, match=r"must lie in \[0, 2\).*goes from 0 to 2"):
        read(wrong)


def test_graphs_keep_everything_else_and_the_input_its_features():
    x = graphs()
    x.pos = torch.zeros(59, 3)
    before = x.x
    y = read(x).rebuild(before + 1)
    assert type(y) is type(x)
    assert x.x is before
    assert torch.equal(y.x, before + 1)
    assert y.pos is x.pos
    assert y.batch is x.batch
    assert y.num_graphs == 3


def test_one_graph_is_one_instance_and_one_without_features_is_refused():
    data = pytest.importorskip("torch_geometric.data")
    alone = data.Data(x=rows())
    assert counts(read(alone)) == [59]
    unbatched = data.Data(x=rows(), batch=torch.arange(59).div(30, rounding_mode="floor"))
    assert counts(read(unbatched)) == [30, 29]  # without ptr
    assert counts(read(data.Data(x=rows()[:0], batch=torch.zeros(0).long()))) == []
    with pytest.raises(ValueError, match="Data holds no features: its x is None"):
        SparseInstanceNorm(6)(data.Data(pos=torch.zeros(3, 3)))


def test_a_trailing_empty_graph_is_known_by_ptr():
    """Two instances of three and no rows: the index alone would tell one."""
    data = pytest.importorskip("torch_geometric.data")
    x = data.Batch(x=rows()[:3], batch=torch.zeros(3).long(), ptr=torch.tensor([0, 3, 3]))
    assert counts(read(x)) == [3, 0]


def test_rows_with_offsets():
    x = Rows(rows(), offsets=torch.tensor([0, 0, 50, 59]))
    out = InstanceNorm(6)(x)
    index = torch.tensor([1] * 50 + [2] * 9)
    assert torch.equal(out.batch_index, index)
    assert out.num_instances == 3
    assert torch.equal(out.features, InstanceNorm(6)(rows(), index))
    assert counts(read(x)) == [0, 50, 9]
    with pytest.raises(ValueError, match="end at 59, the number of rows; they start at 0 and end"):
        Rows(rows(), offsets=torch.tensor([0, 50]))
    with pytest.raises(ValueError, match=r"must be at least 3, .*; got 2"):
        InstanceNorm(6)(x, num_instances=2)


def test_what_an_index_cannot_say_and_offsets_can():
    """Three rows in two instances: the offsets are a valid batch index of other instances."""
    three, numbers = rows()[:3], torch.tensor([0, 1, 3])
    assert counts(read(Rows(three, offsets=numbers))) == [1, 2]
    assert counts(read(Rows(three, numbers))) == [1, 1, 0, 1]
    assert counts(read(three, numbers)) == [1, 1, 0, 1]


def test_rows_pass_through_a_sequence_of_modules():
    class Linear(nn.Linear):
        def forward(self, x):
            return x.replace(super().forward(x.features))

    index = torch.arange(59) % 3
    model = nn.Sequential(InstanceNorm(6), Linear(6, 4), InstanceNorm(4, activation="relu"))
    out = model(Rows(rows(), index, num_instances=4))
    expected = model[2](nn.functional.linear(model[0](rows(), index), model[1].weight,
                                             model[1].bias), index)
    assert out.num_instances == 4
    assert torch.equal(out.features, expected)
    assert repr(out) == "Rows((59, 4), 4 instances, torch.float32)"
    with pytest.raises(ValueError, match="must have 59 rows as before; got 3"):
        out.replace(torch.zeros(3, 4))
    with pytest.raises(ValueError, match="must have 59 rows as before; got 60"):
        out.replace(torch.zeros(60, 4))
    with pytest.raises(ValueError, match=r"features must be \(N, C\) with C ≥ 1; got shape \(59,"):
        out.replace(torch.zeros(59))


def test_the_same_rows_with_and_without_a_container_or_an_engine():
    x = scene()
    for norm in (InstanceNorm(6), SparseInstanceNorm(6, affine=False)):
        plain = norm(x.features, x.indices[:, 0])
        assert torch.equal(plain, norm(x).features)
        assert torch.equal(plain, norm(Rows(x.features, x.indices[:, 0])).features)


@pytest.mark.parametrize("make", [scene, graphs, lambda: Rows(rows(), torch.arange(59) % 3)])
def test_a_residual_of_the_same_kind_and_places_is_added(make):
    x, norm = make(), InstanceNorm(6)
    added = read(x).features.flip(0) * 3
    out = read(norm(x, residual=read(x).rebuild(added))).features
    torch.testing.assert_close(out, read(norm(x)).features + added)
    if make is not graphs:  # whose places nobody knows
        with pytest.raises(ValueError, match="residual must have the input's coordinates in the"):
            norm(x, residual=make())


def test_an_engine_of_another_version_is_refused_with_what_was_looked_for():
    old = scene()

    class Old:  # spconv 1 had no replace_feature
        features, indices, batch_size = old.features, old.indices, old.batch_size

    with pytest.raises(TypeError, match=r"looked for:.*spconv's SparseConvTensor \(features, ind.*"
                                        r"Got Old, which looks like spconv's SparseConvTensor of "
                                        r"another version: it has no replace_feature$"):
        SparseInstanceNorm(6)(Old())
    half = type("Half", (), dict.fromkeys(("features", "indices")))()
    with pytest.raises(TypeError, match=r"Got Half, which .* has no batch_size, replace_feature$"):
        InstanceNorm(6)(half)
    with pytest.raises(TypeError, match=r"Got Less$"):
        InstanceNorm(6)(type("Less", (), {"features": None})())
    with pytest.raises(TypeError, match=r"Got list$"):
        InstanceNorm(6)([1, 2])
    with pytest.raises(TypeError, match=r"Got tuple\. Did you mean norm\(features, batch_index"):
        InstanceNorm(6)((rows(), torch.zeros(59).long()))


@pytest.mark.parametrize(("others", "column"), [
    (("stride", "spatial_range"), 0), (("stride", "cmaps", "kmaps"), 3),
], ids=["torchsparse 2.1", "torchsparse 1.4"])  # fmt: skip
def test_torchsparse_numbers_its_scans_first_or_last(others, column):
    """It cannot be installed without CUDA: an object of its attributes stands in for its tensor."""
    x = type("SparseTensor", (), dict.fromkeys(others))()
    x.feats = torch.randn(12, 6)
    x.coords = torch.arange(48, dtype=torch.int32).view(12, 4) % torch.tensor([5, 7, 4, 3]) % 3
    x.coords[-1] = torch.tensor([1, 0, 2, 2])
    norm = InstanceNorm(6)
    out = norm(x)
    assert type(out) is type(x)
    assert out.coords is x.coords
    assert torch.equal(out.feats, norm(x.feats, x.coords[:, column].long()))
    others_columns = [norm(x.feats, x.coords[:, other].long()) for other in {0, 1, 2, 3} - {column}]
    assert not any(torch.equal(out.feats, other) for other in others_columns)
    torch.testing.assert_close(norm(x, residual=out).feats, 2 * out.feats)
    x.feats, x.coords = x.feats[:0], x.coords[:0]
    assert counts(read(x)) == []
    elsewhere = copy.copy(out)
    elsewhere.coords = x.coords.clone()
    with pytest.raises(ValueError, match="residual must have the input's coordinates in the"):
        norm(x, residual=elsewhere)


def test_no_engine_is_imported():
    program = ("import sys, torch, geonorm; geonorm.InstanceNorm(2)(torch.ones(3, 2), "
               "torch.zeros(3).long()); print([m for m in ('MinkowskiEngine', 'spconv', "
               "'torchsparse', 'torch_geometric') if m in sys.modules])")
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True,
                          check=True)
    assert done.stdout.strip() == "[]"


def test_rows_can_be_copied():
    x = copy.deepcopy(Rows(rows(), offsets=torch.tensor([0, 59])))
    assert read(x).num_instances == 1


@pytest.mark.parametrize("x", [(torch.randn(2, 2),), "rows"])
def test_anything_else_is_refused(x):
    message = rf"looked for:.*coordinate_manager.*Got {type(x).__name__}$"
    for function in (read, SparseInstanceNorm(2)):
        with pytest.raises(TypeError, match=message):
            function(x)


def test_more_channels_than_a_norm_has_are_refused_as_fewer_are():
    for channels in (5, 7):
        with pytest.raises(ValueError, match=rf"\(N, 6\); got .* mean InstanceNorm\({channels}\)"):
            InstanceNorm(6)(torch.randn(3, channels), torch.tensor([0, 0, 1]))


def test_a_matrix_without_an_index_is_refused():
    with pytest.raises(ValueError, match=r"got \(2, 2\)\. For rows .*norm\(features, batch_inde"):
        SparseInstanceNorm(2)(torch.randn(2, 2))
