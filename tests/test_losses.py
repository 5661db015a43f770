"""Losses of style transfer: hand-worked values, dense against sparse, gradients, errors."""

import MinkowskiEngine as ME
import pytest
import torch
from torch import Tensor

from geonorm import Rows, losses, neighbours
from geonorm.style import StyleStatistics, style_statistics


def grid(x: Tensor) -> ME.SparseTensor:
    """Return a dense (B, C, X, Y) tensor as the voxels of full grids."""
    places = torch.cartesian_prod(*[torch.arange(n) for n in (x.shape[0], *x.shape[2:])])
    return ME.SparseTensor(x.movedim(1, -1).flatten(0, -2), places.int())


def example(seed: int = 0, batch: int = 2) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(batch, 3, 4, 5, generator=generator, dtype=torch.float64)
    return x * torch.tensor([1.0, 2.0, 5.0]).view(3, 1, 1) + seed


@pytest.mark.parametrize("kind", ["dense", "sparse"])
def test_every_loss_is_what_plain_torch_says(kind: str) -> None:
    x, y = example(1).float(), example(2).float()
    a, b = (x, y) if kind == "dense" else (grid(x), grid(y))
    same = y if kind == "dense" else y.movedim(1, -1).flatten(0, -2)
    assert float(losses.content_loss(a, same)) == pytest.approx(
        float((x - y).square().mean()), rel=1e-5)
    means = (x.mean((2, 3)) - y.mean((2, 3))).square().mean()
    roots = [(z.var((2, 3), correction=0) + 1e-5).sqrt() for z in (x, y)]
    expected = float(means + (roots[0] - roots[1]).square().mean())
    assert float(losses.style_loss(a, b)) == pytest.approx(expected, rel=1e-5)
    grams = [torch.einsum("bcxy,bdxy->bcd", z, z) / 20 for z in (x, y)]
    assert float(losses.gram_loss(a, b)) == pytest.approx(
        float((grams[0] - grams[1]).square().mean()), rel=1e-5)
    steps = torch.cat([x.diff(dim=2).flatten(), x.diff(dim=3).flatten()]).abs()
    assert float(losses.total_variation_loss(a)) == pytest.approx(float(steps.mean()), rel=1e-5)


def test_variation_of_missing_voxels() -> None:
    # Voxels 0, 1, 3 of one scan and 2 of another: only 0 and 1 are neighbours.
    places = torch.tensor([[0, 0], [0, 1], [0, 3], [1, 2]]).int()
    x = ME.SparseTensor(torch.tensor([[1.0, 0.0], [4.0, 1.0], [50.0, 9.0], [-7.0, 3.0]]), places)
    assert float(losses.total_variation_loss(x)) == 2.0  # (3 + 1) / 2
    alone = ME.SparseTensor(torch.ones(1, 2), torch.zeros(1, 2).int())
    assert float(losses.total_variation_loss(alone)) == 0.0


def voxels(kind: str) -> tuple[object, Tensor, Tensor, int]:
    """Return voxels of two scans with holes, their features, their places and their stride."""
    generator = torch.Generator().manual_seed(3)
    places = torch.cartesian_prod(torch.arange(2), *[torch.arange(n) for n in (3, 4, 5)])
    places = places[torch.randperm(len(places), generator=generator)[:70]]
    x = torch.randn(70, 2, generator=generator) ** 3
    if kind == "MinkowskiEngine":
        return ME.SparseTensor(x, places.int()), x, places, 1
    if kind == "spconv":
        spconv = pytest.importorskip("spconv.pytorch", reason="pip install 'geonorm[test]'")
        return spconv.SparseConvTensor(x, places.int(), [3, 4, 5], 2), x, places, 1
    if kind == "torch_geometric":
        data = pytest.importorskip("torch_geometric.data", reason="pip install 'geonorm[test]'")
        beside = (places[:, None] - places[None]).abs().sum(2) == 1
        edges = (beside & (places[:, None, 0] == places[None, :, 0])).nonzero().T  # both directions
        edges = torch.cat([edges, edges[:, :9], torch.tensor([[4], [4]])], 1)  # twice, and a loop
        return data.Data(x, edges, batch=places[:, 0]), x, places, 1
    # It cannot be installed without CUDA: an object of its attributes stands in for its tensor.
    other = {"torchsparse 2.1": ("spatial_range",), "torchsparse 1.4": ("cmaps", "kmaps")}[kind]
    strided = places * torch.tensor([1, 2, 2, 2])
    tensor = type("SparseTensor", (), dict.fromkeys(other))()
    tensor.feats, tensor.stride = x, (2, 2, 2) if kind == "torchsparse 2.1" else 2
    tensor.coords = (strided if kind == "torchsparse 2.1" else strided.roll(-1, 1)).int()
    return tensor, x, strided, 2


@pytest.mark.parametrize("kind", ["MinkowskiEngine", "spconv", "torchsparse 2.1", "torchsparse 1.4",
                                  "torch_geometric"])  # fmt: skip
def test_variation_of_every_kind_that_has_neighbours(kind: str) -> None:
    given, x, places, stride = voxels(kind)
    steps = []
    for i in range(70):
        for j in range(i):
            apart = (places[i] - places[j]).abs()
            if apart[0] == 0 and sorted(apart[1:].tolist()) == [0, 0, stride]:
                steps.append((x[i] - x[j]).abs())
    assert len(steps) > 40
    found = losses.total_variation_loss(given)
    assert float(found) == pytest.approx(float(torch.stack(steps).mean()), rel=1e-5)


def test_neighbours_are_one_stride_of_their_axis_apart_and_named_once() -> None:
    places = torch.tensor([[0, 0, 0], [0, 3, 0], [0, 0, 2], [0, 2, 0], [1, 0, 0], [0, 0, -2],
                           [0, -3, -2], [0, 0, 3]])  # fmt: skip
    found = neighbours.of_voxels(places, (3, 2)).tolist()
    assert {*zip(*found, strict=True)} == {(0, 1), (6, 5), (0, 2), (5, 0)}
    assert len(found[0]) == 4
    edges = torch.tensor([[4, 1, 2, 4, 4, 0], [1, 4, 2, 1, 3, 9]])
    assert neighbours.of_edges(edges).tolist() == [[0, 1, 3], [9, 4, 4]]


def test_variation_of_strided_voxels() -> None:
    """At 0, 2 and 6: the last has no neighbour."""
    places = torch.tensor([[0, 0], [0, 2], [0, 6]]).int()
    x = ME.SparseTensor(torch.tensor([[1.0], [4.0], [9.0]]), places, tensor_stride=2)
    assert float(losses.total_variation_loss(x)) == 3.0


def test_rows_in_any_order_and_styles_of_one_instance() -> None:
    x, style = example(1), example(2, batch=1)
    rows, index = x.movedim(1, -1).flatten(0, 2), torch.arange(2).repeat_interleave(20)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    for loss in (losses.style_loss, losses.gram_loss):
        expected = float(loss(x, style.expand(2, -1, -1, -1)))
        assert float(loss(x, style)) == pytest.approx(expected, rel=1e-12)
        assert float(loss(rows[order], style, index[order])) == pytest.approx(expected, rel=1e-12)
        assert float(loss(Rows(rows, index), style)) == pytest.approx(expected, rel=1e-12)
    told = losses.style_loss(x, style_statistics(style))
    assert float(told) == pytest.approx(float(losses.style_loss(x, style)), rel=1e-12)


def test_an_instance_without_rows_has_a_gram_matrix_of_zeros() -> None:
    rows, index = torch.tensor([[1.0, 2.0]]), torch.tensor([0])
    style = torch.zeros(1, 2, 1)
    style[0, 0] = 2
    found = losses.gram_loss(rows, style, index, num_instances=2)
    # [[1, 2], [2, 4]] and zeros, less [[4, 0], [0, 0]] of either.
    assert float(found) == pytest.approx((9 + 4 + 4 + 16 + 16) / 8)


def test_a_dense_instance_without_positions_has_a_gram_matrix_of_zeros_too() -> None:
    style = torch.tensor([[[2.0, 0.0], [0.0, 4.0]]])  # of which [[2, 0], [0, 8]]
    assert float(losses.gram_loss(torch.zeros(3, 2, 0), style)) == (4 + 64) / 4


@pytest.mark.parametrize("loss", [losses.style_loss, losses.gram_loss, losses.content_loss])
def test_gradients_of_dense_and_rows(loss) -> None:  # type: ignore[no-untyped-def]
    x, target = example(1)[:, :, :2, :2].requires_grad_(), example(2)[:, :, :2, :2]
    assert torch.autograd.gradcheck(lambda x: loss(x, target), (x,))
    rows = torch.randn(5, 2, dtype=torch.float64, requires_grad=True)
    index = torch.tensor([1, 0, 1, 1, 0])
    other = torch.randn(5, 2, dtype=torch.float64) if loss is losses.content_loss else torch.randn(
        2, 2, 7, dtype=torch.float64)  # fmt: skip
    assert torch.autograd.gradcheck(lambda rows: loss(rows, other, index), (rows,))


def test_variation_has_the_gradient_of_its_differences() -> None:
    x = example(1).requires_grad_()
    assert torch.autograd.gradcheck(losses.total_variation_loss, (x,))


def test_what_does_not_fit_is_refused() -> None:
    x = torch.randn(2, 3, 4, 5)
    with pytest.raises(ValueError, match="3 channels and one instance or 2; got 4 channels"):
        losses.gram_loss(x, torch.randn(1, 4, 4, 5))
    with pytest.raises(ValueError, match="3 channels and one instance or 2; got 3 channels and 3"):
        losses.gram_loss(x, torch.randn(3, 3, 4, 5))
    with pytest.raises(ValueError, match="the content's 3 channels; got 4"):
        losses.style_loss(x, StyleStatistics(torch.zeros(1, 4), torch.ones(1, 4)))
    with pytest.raises(ValueError, match=r"instances \[2\] have no rows"):
        losses.style_loss(torch.randn(4, 3), x, torch.tensor([0, 1, 1, 0]), num_instances=3)
    with pytest.raises(ValueError, match=r"residual must have|shape"):
        losses.content_loss(x, torch.randn(2, 3, 4, 6))
    with pytest.raises(TypeError, match=r"need a dense tensor, voxels.*; got Rows, whose"):
        losses.total_variation_loss(Rows(torch.randn(3, 2), torch.tensor([0, 0, 1])))
    with pytest.raises(TypeError, match="got MinkowskiEngine's TensorField, whose points"):
        losses.total_variation_loss(ME.TensorField(torch.randn(3, 2), torch.rand(3, 4)))
    data = pytest.importorskip("torch_geometric.data", reason="pip install 'geonorm[test]'")
    with pytest.raises(ValueError, match="a graph with edges; its edge_index is None"):
        losses.total_variation_loss(data.Data(torch.randn(3, 2)))
